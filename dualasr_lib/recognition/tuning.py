"""Scales of a method: given by the user, brought by the model's file, or tuned on split `valid`,
kept in a file of their own, and taken from there as long as model, options and language model are
those they were made for. Where there is no split `valid`, kept scales are taken without asking what
they were tuned on.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.core.files import write_atomically
from dualasr_lib.core.program import what_is_wrong
from dualasr_lib.decoding.coordinates import tune_by_coordinates
from dualasr_lib.decoding.offline import Detokenise, Heard
from dualasr_lib.decoding.rescoring import Scales, Tuned, tune
from dualasr_lib.metrics.units import CHARACTER, Unit
from dualasr_lib.recognition.brought import serves
from dualasr_lib.recognition.methods.method import OfflineMethod

__all__ = ["ChosenScales", "NoScalesError", "TuningData", "scales_for"]

_LOG = logging.getLogger(__name__)


class NoScalesError(ValueError):
    """Scales must be chosen, and nothing is there to choose them with."""


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
    fingerprint: str | None
    """Of split `valid`; None if there is none."""
    unit: Unit = CHARACTER
    """What errors are counted in."""


def scales_for(
    method: OfflineMethod,
    path: Path | None,
    described: Mapping[str, Any],
    data: TuningData,
    given: Mapping[str, float] | None = None,
    brought: Sequence[Mapping[str, Any]] = (),
) -> ChosenScales:
    """The scales to decode with.

    Args:
        path: the file in which tuned ones are kept; None: they are not.
        described: model, chunk and whatever else they depend on beside the method.
        given: the user's, by name; they are taken as they are and not kept.
        brought: those that came with the model for this method, as a bundle holds them.

    Raises:
        NoScalesError: they must be tuned, but there is no split `valid`.
        ValueError: what is kept is damaged.
    """
    if given is not None:
        return ChosenScales(Scales(**given), "given")
    if method.propose is None:
        return ChosenScales(Scales(), "none to choose")
    made_for = {**described, **method.params, "valid": data.fingerprint}
    found = _brought(brought, made_for, method.weighs)
    if found is not None:
        return ChosenScales(found, "of the bundle, tuned on valid")
    kept = None if path is None else _read(path, made_for, method)
    if path is not None and kept is not None:
        return ChosenScales(kept, f"scales/{path.name}, tuned on valid")
    if data.fingerprint is None:
        where = "the bundle" if path is None else str(path)
        raise NoScalesError(
            f"scales must be chosen, but {where} holds none for this model and these options, and "
            "there is no split valid to tune them on, or an empty one: give --scales (of a second "
            "pass --second-scales), or decode once where split valid is"
        )
    tuned = _tuned(method, data)
    _LOG.info("tried %d points of scales on valid, %d fall-backs", len(tuned.grid), tuned.fallbacks)
    if path is not None:
        _write(path, made_for, tuned, method)
    _LOG.info("tuned on valid: %s, kept in %s", tuned.scales, path or "no file")
    for name in method.weighs:
        tried = sorted({point.weight(name) for point in method.grid})
        if tuned.scales.weight(name) in (tried[0], tried[-1]):
            _LOG.info(
                "the scale %s=%g lies at the end of its grid", name, tuned.scales.weight(name)
            )
    return ChosenScales(tuned.scales, "tuned on valid")


def _tuned(method: OfflineMethod, data: TuningData) -> Tuned:
    assert method.propose is not None
    spoken = data.detokenise, data.unit
    if method.axes:
        return tune_by_coordinates(data.batches(), data.hear, method.propose, method.axes, *spoken)
    return tune(data.batches(), data.hear, method.propose, method.grid, *spoken)


def _brought(
    brought: Sequence[Mapping[str, Any]], made_for: Mapping[str, Any], weighs: Sequence[str]
) -> Scales | None:
    """Scales of these scores that serve this search, on whatever data they were tuned."""
    for kept in brought:
        try:
            scales, made = dict(kept["scales"]), dict(kept["made_for"])
            if scales.keys() == set(weighs) and serves(made, made_for):
                return Scales(**scales)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"the scales that came with the model are damaged ({what_is_wrong(error)})"
            ) from None
    return None


def _read(path: Path, made_for: Mapping[str, Any], method: OfflineMethod) -> Scales | None:
    """The kept scales if they were tuned for the same things on the same grid or axes."""
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        tried = [Scales(**{n: v for n, v in p.items() if n != "cer"}) for p in kept["grid"]]
        wanted, found = json.loads(json.dumps(made_for)), dict(kept["made_for"])
        if wanted["valid"] is None:
            wanted["valid"] = found.get("valid")
        axes = {name: list(values) for name, values in method.axes.items()}
        on_same = kept.get("axes") == axes if axes else tried == list(method.grid)
        same = found == wanted and on_same
        scales = Scales(**kept["scales"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({what_is_wrong(error)}); remove it to tune again"
        ) from None
    if not same:
        _LOG.info("%s was tuned for another model or other options: tuning again", path)
    return scales if same else None


def _write(path: Path, made_for: Mapping[str, Any], tuned: Tuned, method: OfflineMethod) -> None:
    def named(scales: Scales) -> dict[str, float]:
        return {name: scales.weight(name) for name in method.weighs}

    kept = {
        "scales": named(tuned.scales),
        "tuned_on": "valid",
        "fallbacks": tuned.fallbacks,
        "made_for": made_for,
        **({"axes": method.axes} if method.axes else {}),
        "grid": [{**named(point.scales), "cer": point.cer} for point in tuned.grid],
    }
    text = json.dumps(kept, ensure_ascii=False, indent=1)
    write_atomically(path, f"{text}\n".encode())
