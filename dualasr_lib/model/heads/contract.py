"""What a head of a branch is: its loss, its score of given texts, and what of it others see.

A head belongs to one branch, or to both if it is shared. In training the model asks, in this order:

    reading  = head(states, targets)                 of each branch: all that draws random numbers
    readings = type(head).joined(heads, readings)    once for all branches: what is cheaper together
    head.loss(reading, criterion)                    of each branch, and its view, pictures ...

A reading is the head's own business. A weight or a scale that depends on the step is a `Scheduled`
inside the head: the model tells it the step.

Letters: N batch, S encoder frames (25 Hz), U tokens, V vocabulary (blank = 0), C channels of the
encoder, P texts of all utterances.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from dualasr_lib.core.picture import Picture
from dualasr_lib.model.encoder import Encoded
from dualasr_lib.model.pairing import Sequences

__all__ = ["Criteria", "Head", "HeadSizes", "NbestTexts", "Targets"]

Criteria = Mapping[str, Mapping[str, Callable[..., Tensor]]]
"""Head name -> branch -> who computes the loss, for heads that let somebody else do it ("ctc"). A
head or branch that is missing takes the head's own way."""


class HeadSizes(NamedTuple):
    """What a head must fit to."""

    vocab_size: int
    """V."""
    dim: int
    """C."""
    sos_eos: int
    """Id of the symbol at both ends of a text."""


class Targets(NamedTuple):
    """What should have been recognised."""

    tokens: Tensor
    """(N, U) int64, padded with 0."""
    lens: Tensor
    """(N,) int64."""


class NbestTexts(NamedTuple):
    """Texts of several utterances, to be scored."""

    tokens: Tensor
    """(P, U) int64, padded with anything."""
    lens: Tensor
    """(P,) int64, 0 allowed."""
    owner: Tensor
    """(P,) int64 utterance of each."""

    @staticmethod
    def padded(texts: Sequence[Sequence[int]], owners: Sequence[int]) -> "NbestTexts":
        """P texts, at least one, and the utterance of each."""
        width = max(map(len, texts))
        return NbestTexts(
            tokens=torch.tensor([[*text, *[0] * (width - len(text))] for text in texts]).long(),
            lens=torch.tensor([len(text) for text in texts]),
            owner=torch.tensor(owners),
        )


class Head(nn.Module):
    """The contract; a subclass is made as `Head(options, sizes)`, registered in `registry`."""

    name: ClassVar[str]
    """In configurations, logs, scores and weights."""
    speaks_by_frame: ClassVar[bool] = False
    """Whether `frame_log_probs` are there, for methods that compare distributions of frames."""
    counts_published_steps: ClassVar[bool] = False
    """Whether its schedules count published steps, as the encoders' aids do."""
    state_dim: int | None = None
    """Channels of the states that `view` shows; None: it shows none."""
    state_log_probs: bool = False
    """Whether `view` shows log-probabilities beside its states."""

    def __init__(self, options: Any, sizes: HeadSizes) -> None:
        """`options`: the field of `HeadsConfig` of the head's name, None if there is none."""
        super().__init__()
        del options, sizes  # for the subclasses

    def forward(self, states: Encoded, targets: Targets) -> Any:
        """The reading of one branch: what is computed once for loss, view and pictures."""
        raise NotImplementedError

    @classmethod
    def joined(cls, heads: Mapping[Any, "Head"], readings: Mapping[Any, Any]) -> dict[Any, Any]:
        """The readings of all branches that have this head, after what is done for all at once;
        nothing unless a subclass has something to do.

        Args:
            heads, readings: by branch; a shared head comes once per branch.
        """
        del heads
        return dict(readings)

    def loss(self, reading: Any, criterion: Callable[..., Tensor] | None = None) -> Tensor:
        """Sum over the batch of negative log-likelihoods, nats; a scalar. Utterances that are
        `impossible` count 0.
        """
        raise NotImplementedError

    def impossible(self, reading: Any) -> Tensor | None:
        """(N,) bool, True for utterances without any alignment; None: there are none."""
        del reading
        return None

    def view(self, reading: Any) -> Sequences | None:
        """The states that distillation compares between branches; None without `state_dim`."""
        del reading
        return None

    def frame_log_probs(self, reading: Any) -> Tensor | None:
        """(N, S, V) what is said of each encoder frame; None unless `speaks_by_frame`."""
        del reading
        return None

    def pictures(self, reading: Any) -> dict[str, Picture]:
        """Pictures of the first utterance for the log, by name."""
        del reading
        return {}

    def frames(self, h: Tensor) -> Tensor | None:
        """(N, S, ...) what searches read of states (N, S, C); None: nothing frame by frame."""
        del h
        return None

    def tables(self) -> Mapping[str, Tensor] | None:
        """Weights that searches need beside `frames`, by name; None: they need none."""
        return None

    def texts(self, states: Encoded) -> list[tuple[int, ...]]:
        """The best text of each utterance that is quickly found, for validation."""
        raise NotImplementedError

    def score(self, states: Encoded, texts: NbestTexts) -> Tensor:
        """(P,) float32 natural log-probabilities of given texts."""
        raise NotImplementedError
