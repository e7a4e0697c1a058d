"""Options of the transducer's searches; imports nothing heavy, because they are checked first."""

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["BeamConfig", "GreedyConfig", "OutcomeConfig"]


@dataclass(frozen=True, kw_only=True)
class OutcomeConfig:
    """How the joiner's logits become log-probabilities: log-softmax of (logits - penalty) /
    temperature. Tune both on valid only.
    """

    blank_penalty: float = 0.0
    """Taken from the blank's logit; more tokens are said then (1 to 2 helped against deletions in
    icefall's recipe of WenetSpeech)."""
    temperature: float = 1.0
    """Above 1: scores are nearer to each other."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.blank_penalty):
            raise ValueError(f"`blank_penalty` must be finite, but is {self.blank_penalty}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"`temperature` must be positive and finite, but is {self.temperature}"
            )


@dataclass(frozen=True, kw_only=True)
class GreedyConfig(OutcomeConfig):
    """Options of the greedy search."""

    max_symbols: int = 1
    """Tokens of a frame at most (1: as published); after the last one the next frame follows
    without a blank."""
    skip_blank: float = 1.0
    """Frames to which CTC gives the blank more than this probability are not searched (1: all
    are). Faster, but on models that were not trained so it costs accuracy; tune on valid only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.skip_blank <= 1:
            raise ValueError(
                f"`skip_blank` must be above 0 and at most 1, but is {self.skip_blank}"
            )
        if self.max_symbols < 1:
            raise ValueError(f"`max_symbols` must be at least 1, but is {self.max_symbols}")


@dataclass(frozen=True, kw_only=True)
class BeamConfig(GreedyConfig):
    """Options of the beam search."""

    beam: int = 4
    """Hypotheses that are kept at each frame."""
    score_beam: float = 10.0
    """Hypotheses further below the best one are dropped (natural log)."""
    recombine: Literal["context", "text"] = "context"
    """`text`: equal texts are added up. `context`: also, of texts that go on alike (the same last
    tokens and state of the language model) only the best one lives on, so that the beginning is
    soon sure and the beam holds what differs; `text` makes longer n-best lists."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beam < 1:
            raise ValueError(f"`beam` must be at least 1 hypothesis, but is {self.beam}")
        if not self.score_beam > 0:
            raise ValueError(f"`score_beam` must be positive, but is {self.score_beam}")
