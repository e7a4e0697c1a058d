"""Calibrations of confidence: fitted wherever split `valid` is decoded, kept in a file of their own
(EXP/calibration/<name>.json), and used as long as the model, the language model and the scales are
those they were made for. Streams use that of the same search on whole utterances: they give the
same texts and posteriors.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.core.config import from_dict, to_dict
from dualasr_lib.core.files import write_atomically
from dualasr_lib.core.program import what_is_wrong
from dualasr_lib.decoding.confidence_files import calibrated
from dualasr_lib.decoding.hypothesis import Hypothesis
from dualasr_lib.decoding.offline import Detokenise, token_texts
from dualasr_lib.metrics.calibration import Calibration, correct_tokens, fit_calibration
from dualasr_lib.recognition.brought import serves

__all__ = ["Calibrator", "Settled"]

_LOG = logging.getLogger(__name__)


class Settled(NamedTuple):
    """A decoded split whose confidences are what they will be."""

    hypotheses: list[Hypothesis]
    calibration: Calibration | None


@dataclass(frozen=True)
class Calibrator:
    """Where the calibration of one search is kept, and what it must have been made for."""

    path: Path | None
    """None: nothing is kept."""
    made_for: Mapping[str, Any]
    brought: Sequence[Mapping[str, Any]] = ()
    """What came with the model for this method, as a bundle holds it."""

    def kept(self) -> Calibration | None:
        """The kept one, if it was made for the same things; or else one that came with the model.

        Raises:
            ValueError: a damaged file.
        """
        if self.path is None or not self.path.is_file():
            return self._of_the_bundle()
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            same = kept["made_for"] == json.loads(json.dumps(self.made_for))
            calibration = from_dict(Calibration, kept["calibration"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path} is damaged ({what_is_wrong(error)}); remove it and decode split "
                "valid to make it again"
            ) from None
        if not same:
            _LOG.info(
                "%s was made for another model or other options: decode split valid to calibrate "
                "confidence again", self.path
            )  # fmt: skip
        return calibration if same else self._of_the_bundle()

    def _of_the_bundle(self) -> Calibration | None:
        """One that serves this search."""
        for kept in self.brought:
            try:
                if serves(dict(kept["made_for"]), self.made_for):
                    return from_dict(Calibration, kept["calibration"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"the calibration that came with the model is damaged ({what_is_wrong(error)})"
                ) from None
        return None

    def fit(self, hypotheses: Sequence[Hypothesis], detokenise: Detokenise) -> Calibration | None:
        """The calibration for what was recognised of split `valid`, kept from now on; None, and
        nothing is kept, if there is no token or no reference.
        """
        known = [_truth(i, detokenise) for i in hypotheses if i.ref and i.path.posteriors]
        if not known:
            return None
        calibration = fit_calibration(known)
        kept = {
            "calibration": to_dict(calibration),
            "fitted_on": {
                "split": "valid",
                "tokens": sum(len(right) for _, right in known),
                "wrong": sum(right.count(False) for _, right in known),
            },
            "made_for": self.made_for,
        }
        text = json.dumps(kept, ensure_ascii=False, indent=1)
        if self.path is not None:
            write_atomically(self.path, f"{text}\n".encode())
        _LOG.info("confidence calibrated on valid, kept in %s", self.path or "no file")
        return calibration

    def settle(
        self, hypotheses: Sequence[Hypothesis], detokenise: Detokenise, is_valid: bool
    ) -> Settled:
        """A decoded split with its confidences: those of the kept calibration; split `valid` makes
        a new one first.

        Raises:
            ValueError: as `kept`.
        """
        calibration = self.fit(hypotheses, detokenise) if is_valid else self.kept()
        return Settled([calibrated(item, calibration) for item in hypotheses], calibration)


def _truth(item: Hypothesis, detokenise: Detokenise) -> tuple[Sequence[float], list[bool]]:
    texts = token_texts(detokenise, item.path.tokens)
    return item.path.posteriors, correct_tokens(item.ref, texts)
