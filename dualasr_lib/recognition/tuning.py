"""Scales of a method: given by the user, or tuned on split `valid`, kept in `scales.json` beside
the method's results, and taken from there as long as model, options and language model are those
it was made for.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.core.config import override
from dualasr_lib.core.files import write_atomically
from dualasr_lib.decoding.offline import Detokenise, Heard
from dualasr_lib.decoding.rescoring import Scales, Tuned, tune
from dualasr_lib.model.heads.registry import HEADS
from dualasr_lib.recognition.searches import OfflineMethod

__all__ = ["ChosenScales", "TuningData", "parse_scales", "scales_for"]

_LOG = logging.getLogger(__name__)
_FILE = "scales.json"


class ChosenScales(NamedTuple):
    """Scales and where they come from, for reports."""

    scales: Scales
    source: str


class TuningData(NamedTuple):
    """What tuning hears; nothing of it is read unless tuning is needed."""

    batches: Callable[[], Iterable[Any]]
    """The batches of split `valid`."""
    hear: Callable[[Any], Heard]
    detokenise: Detokenise


def scales_for(
    method: OfflineMethod,
    directory: Path,
    fingerprint: Mapping[str, Any],
    data: TuningData,
    given: Mapping[str, float] | None = None,
) -> ChosenScales:
    """The scales to decode with.

    Args:
        directory: of the method's results; `scales.json` is kept there.
        fingerprint: model, chunk and whatever else the scales depend on beside the method.
        given: the user's, by name; they are taken as they are and not kept.

    Raises:
        ValueError: scales were given, but not just those of the method.
    """
    if given is not None:
        return ChosenScales(_given(method, given), "given")
    if method.propose is None:
        return ChosenScales(Scales(), "none to choose")
    made_for = {**fingerprint, **method.params}
    path = directory / _FILE
    kept = _read(path, made_for, method.grid)
    if kept is not None:
        return ChosenScales(kept, f"{_FILE}, tuned on valid")
    _LOG.info("tuning %d points of scales on valid", len(method.grid))
    tuned = tune(data.batches(), data.hear, method.propose, method.grid, data.detokenise)
    _write(path, made_for, tuned)
    _LOG.info("tuned on valid: %s, kept in %s", tuned.scales, path)
    for name in _weighed(method.grid):
        value, tried = tuned.scales.weight(name), [p.weight(name) for p in method.grid]
        if value in (min(tried), max(tried)):
            _LOG.info("the scale %s=%g lies at the end of its grid", name, value)
    return ChosenScales(tuned.scales, "tuned on valid")


def parse_scales(options: Sequence[str] | None) -> dict[str, float] | None:
    """`["lm=0.3", "attention=1"]` -> scales by name; None stays None.

    Raises:
        ValueError: an unknown name, or something that is no number >= 0.
    """
    if options is None:
        return None
    values = {name: _number(name, value) for name, value in override({}, options).items()}
    unknown = values.keys() - {"lm", *HEADS}
    if unknown:
        raise ValueError(
            f"scales have the names lm, {', '.join(HEADS)}, but {min(unknown)!r} is none of these"
        )
    Scales(**values)  # its checks
    return values


def _given(method: OfflineMethod, given: Mapping[str, float]) -> Scales:
    needed = set(_weighed(method.grid))
    if not needed:
        raise ValueError("this method weighs no scores, so it takes no scales")
    if given.keys() != needed:
        raise ValueError(
            f"scales must be given for {', '.join(sorted(needed))}, which this method weighs, "
            f"but are for {', '.join(sorted(given)) or 'nothing'}"
        )
    return Scales(**given)


def _weighed(grid: Sequence[Scales]) -> list[str]:
    """Names of the scores whose weights differ between points of a grid."""
    names = dict.fromkeys(name for point in grid for name in point)
    return [name for name in names if len({point.weight(name) for point in grid}) > 1]


def _named(scales: Scales, names: Sequence[str]) -> dict[str, float]:
    return {name: scales.weight(name) for name in names}


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"scale {name} must be a number, but is {value!r}")
    return float(value)


def _read(path: Path, made_for: Mapping[str, Any], grid: Sequence[Scales]) -> Scales | None:
    """The kept scales if they were tuned for the same things on the same grid."""
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        tried = [Scales(**{n: v for n, v in p.items() if n != "cer"}) for p in kept["grid"]]
        same = kept["made_for"] == json.loads(json.dumps(made_for)) and tried == list(grid)
        scales = Scales(**kept["scales"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it to tune again") from None
    if not same:
        _LOG.info("%s was tuned for another model or other options: tuning again", path)
    return scales if same else None


def _write(path: Path, made_for: Mapping[str, Any], tuned: Tuned) -> None:
    names = _weighed([point.scales for point in tuned.grid])
    kept = {
        "scales": _named(tuned.scales, names),
        "tuned_on": "valid",
        "fallbacks": tuned.fallbacks,
        "made_for": made_for,
        "grid": [{**_named(p.scales, names), "cer": p.cer} for p in tuned.grid],
    }
    text = json.dumps(kept, ensure_ascii=False, indent=1)
    write_atomically(path, f"{text}\n".encode())
