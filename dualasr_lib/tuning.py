"""Scales of a method: given by the user, or tuned on split `valid`, kept in `scales.json` beside
the method's results, and taken from there as long as model, options and language model are those
it was made for.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.config import from_dict, override
from dualasr_lib.decoding.offline import Detokenise, Heard
from dualasr_lib.decoding.rescoring import Scales, Tuned, tune
from dualasr_lib.files import write_atomically
from dualasr_lib.searches import OfflineMethod

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
    given: Scales | None = None,
) -> ChosenScales:
    """The scales to decode with.

    Args:
        directory: of the method's results; `scales.json` is kept there.
        fingerprint: model, chunk and whatever else the scales depend on beside the method.
        given: the user's; they are taken as they are and not kept.

    Raises:
        ValueError: the method has no scales, but some were given.
    """
    if method.propose is None:
        if given is not None:
            raise ValueError("this method weighs no scores, so it takes no scales")
        return ChosenScales(Scales(), "none to choose")
    if given is not None:
        return ChosenScales(given, "given")
    made_for = {**fingerprint, **method.params}
    path = directory / _FILE
    kept = _read(path, made_for)
    if kept is not None:
        return ChosenScales(kept, f"{_FILE}, tuned on valid")
    _LOG.info("tuning %d points of scales on valid", len(method.grid))
    tuned = tune(data.batches(), data.hear, method.propose, method.grid, data.detokenise)
    _write(path, made_for, tuned)
    _LOG.info("tuned on valid: %s, kept in %s", asdict(tuned.scales), path)
    return ChosenScales(tuned.scales, "tuned on valid")


def parse_scales(options: Sequence[str] | None) -> Scales | None:
    """`["lm=0.3", "attention=1"]` -> Scales; None stays None.

    Raises:
        ValueError: an unknown name, or something that is no number >= 0.
    """
    if options is None:
        return None
    values = override({}, options)
    return from_dict(Scales, {name: _number(name, value) for name, value in values.items()})


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"scale {name} must be a number, but is {value!r}")
    return float(value)


def _read(path: Path, made_for: Mapping[str, Any]) -> Scales | None:
    """The kept scales if they were tuned for the same things."""
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        same = kept["made_for"] == json.loads(json.dumps(made_for))
        scales = from_dict(Scales, kept["scales"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it to tune again") from None
    if not same:
        _LOG.info("%s was tuned for another model or other options: tuning again", path)
    return scales if same else None


def _write(path: Path, made_for: Mapping[str, Any], tuned: Tuned) -> None:
    kept = {
        "scales": asdict(tuned.scales),
        "tuned_on": "valid",
        "fallbacks": tuned.fallbacks,
        "made_for": made_for,
        "grid": [{**asdict(point.scales), "cer": point.cer} for point in tuned.grid],
    }
    text = json.dumps(kept, ensure_ascii=False, indent=1)
    write_atomically(path, f"{text}\n".encode())
