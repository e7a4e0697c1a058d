"""What the decoding programs do with a decoded split: settle its confidences, write its files, say
where it is far from what the model learnt.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from dualasr_lib.data.folder import DataFolder
    from dualasr_lib.decoding.hypothesis import Hypothesis
    from dualasr_lib.decoding.offline import Detokenise
    from dualasr_lib.decoding.writer import ResultFiles
    from dualasr_lib.recognition.calibration import Calibrator

__all__ = ["Delivered", "check_place", "deliver", "is_valid", "valid_first"]

_LOG = logging.getLogger(__name__)


class Delivered(NamedTuple):
    """A split whose results are written."""

    files: "ResultFiles"
    hypotheses: "list[Hypothesis]"
    """With their last confidences."""


def is_valid(folder: "DataFolder", split: str) -> bool:
    """Whether a split is the one for validation, on which confidence is calibrated.

    Raises:
        ValueError: there is no such split.
    """
    return folder.split(split).use == "valid"


def valid_first(folder: "DataFolder", splits: Sequence[str]) -> list[str]:
    """`splits` in an order in which the calibration comes before those that use it."""
    return sorted(splits, key=lambda split: not is_valid(folder, split))


def check_place(directory: Path, splits: Sequence[str], data: str) -> None:
    """ValueError if `directory` has results of one of the splits of another data folder, which
    would be overwritten.
    """
    from dualasr_lib.decoding.writer import result_files

    for split in splits:
        path = result_files(directory, split).summary
        try:
            there = json.loads(path.read_text(encoding="utf-8")).get("data") or data
        except (OSError, ValueError, AttributeError):  # nothing there that is worth keeping
            continue
        if there != data:
            raise ValueError(
                f"{path} is of another data folder ({there}) than --data-dir ({data}), or of what "
                "was in it before: give another --out-dir, or remove that file"
            )


def deliver(
    directory: Path,
    hypotheses: "Sequence[Hypothesis]",
    summary: Mapping[str, Any],
    calibrator: "Calibrator",
    detokenise: "Detokenise",
    fit: bool,
) -> Delivered:
    """Writes the results of a split.

    Args:
        summary: without what it says of confidence.
        fit: it is split `valid`: calibrate on it.

    Raises:
        ValueError, OSError: as `writer.write_results` and `Calibrator.kept`.
    """
    from dualasr_lib.decoding.confidence_files import (
        confidence_summary,
        confident_texts,
        far_from_valid,
        format_confidence,
    )
    from dualasr_lib.decoding.writer import write_results

    settled = calibrator.settle(hypotheses, detokenise, fit)
    texts = confident_texts(settled.hypotheses, detokenise)
    known = {"confidence": confidence_summary(texts, settled.calibration)} if texts else {}
    content = format_confidence(texts, settled.calibration) if texts else ""
    files = write_results(directory, settled.hypotheses, {**summary, **known}, content)
    warning = far_from_valid(
        summary["split"], [text.confidences for text in texts], settled.calibration
    )
    if warning:
        _LOG.warning("%s", warning)
    return Delivered(files, settled.hypotheses)
