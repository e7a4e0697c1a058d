"""What the frame loop of streaming recognition asks of models, searches and recordings.

The loop (`streaming.decode_streams`) owns windows, clocks and the coming and going of streams. It
promises to a model of hop P samples and look-ahead L:

- Step k of a stream reads its samples [k P, k P + P + L). Beyond the end of the audio they are
  completed by reflection (sample n + j = sample n - 1 - j, and on with period 2 n), as Kaldi does
  with snip_edges false. The start is the model's business.
- A stream of S_true = `num_output_frames(n)` encoder frames takes ceil(S_true / S') steps. Its
  outputs are cut to S_true before the search sees them. Without any frame there is no step, and
  the text is empty.
- Streams of different age share a call; states are stacked and split along the batch axis (`tree`).
- Everything runs without gradient. Window and frames_left are arrays of the kind that states are
  made of, torch's or numpy's; the model moves them to its device.

N streams in a call, V vocabulary (blank 0).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from dualasr_lib.core.arrays import Array
from dualasr_lib.decoding.hypothesis import PathLike, ScoredText
from dualasr_lib.metrics.latency import TimedWord

__all__ = [
    "Frames",
    "Listing",
    "ModelStep",
    "OnlineSearch",
    "OnlineStep",
    "Rewritten",
    "SecondPass",
    "Sentence",
    "StreamingModel",
    "TimedText",
    "Utterance",
    "frames_of",
    "listed",
]

Frames = Mapping[str, Array]
"""What the heads of a branch say of some encoder frames, by head name; heads that say nothing frame
by frame (attention) are missing. "ctc" -> (..., S, V) float32 log-probabilities, natural log. All
are on the CPU, and all have equally many frames.
"""


def frames_of(frames: Frames, head: str) -> Array:
    """What one head says.

    Raises:
        ValueError: the branch has no such head.
    """
    if head not in frames:
        raise ValueError(
            f"this search reads the {head} head of a branch, but this branch has "
            f"{', '.join(frames) or 'no head that it could search'}: choose another method, or a "
            "model trained with such a head (model.heads)"
        )
    return frames[head]


class ModelStep(NamedTuple):
    """What a model returns for one step of N streams."""

    frames: Frames
    """Each (N, S', ...)."""
    state: Any
    """NamedTuple tree of tensors, batch axis first, fixed shapes."""
    hidden: Array | None = None
    """(N, S', C) what a second pass will read; None if the model has none to offer."""


class Sentence(NamedTuple):
    """A sentence of a stream, for the second pass."""

    hidden: Array
    """(S, C): the `ModelStep.hidden` of one stream, all of its frames."""
    proposed: tuple[ScoredText, ...] = ()
    """Texts that the first pass lists."""
    seconds: float = math.inf
    """Time that the second pass has."""


class Rewritten(NamedTuple):
    """A sentence after the second pass."""

    path: PathLike | None
    """Final path; None: there was no time for one, that of the first pass stands."""
    fallbacks: int = 0
    """Times that memory ran out and less was searched."""
    left_out: tuple[str, ...] = ()
    """Parts that there was no time for."""


class SecondPass(Protocol):
    """Rewrites a sentence when its end has come, from what the first pass has already computed."""

    def __call__(self, sentence: Sentence) -> Rewritten:
        """The final text of a sentence of at least one frame."""


class StreamingModel(Protocol):
    """Samples to what heads say of them, by chunks, as a pure function of window and state."""

    @property
    def sample_rate(self) -> int:
        """Hz."""

    @property
    def frame_shift_samples(self) -> int:
        """Samples per feature frame."""

    @property
    def chunk_samples(self) -> int:
        """P: new samples per step, a multiple of the samples of one encoder frame."""

    @property
    def lookahead_samples(self) -> int:
        """L: samples that a window holds after its P new ones, and the next one brings again."""

    @property
    def chunk_frames(self) -> int:
        """S': encoder frames that every step returns."""

    def init_state(self, batch: int) -> Any:
        """State of `batch` fresh streams."""

    def num_feature_frames(self, num_samples: int) -> int:
        """T: feature frames of an utterance."""

    def num_output_frames(self, num_samples: int) -> int:
        """S_true: encoder frames of an utterance."""

    def step(self, window: Array, frames_left: Array, state: Any) -> ModelStep:
        """One step of N streams.

        Args:
            window: (N, P + L) float32 in [-1, 1].
            frames_left: (N,) int64 >= 1: valid feature frames from the window's first frame on; may
                exceed the window. Later feature frames must be replaced by the padding constant.
            state: of the N streams, in the same order.
        """


class OnlineStep(Protocol):
    """What a search returns for one stream."""

    @property
    def partial(self) -> PathLike:
        """Best path from the start of the stream."""

    @property
    def state(self) -> Any:
        """The stream after the call."""

    @property
    def num_committed(self) -> int:
        """Tokens of `partial` that cannot change any more."""


class OnlineSearch(Protocol):
    """Search on streams that join and leave at any time (`one_head.OneHead`)."""

    def open(self) -> Any:
        """State of a new stream."""

    def step(self, frames: Sequence[Frames], states: Sequence[Any]) -> Sequence[OnlineStep]:
        """Feeds each of some streams its next frames: per stream each (S_i, ...), S_i >= 0."""

    def finish(self, state: Any) -> PathLike:
        """Final path of a stream."""


class TimedText(Protocol):
    """A text with the frames at which its tokens were emitted: a `PathLike` or a `ScoredText`."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """Vocabulary ids."""

    @property
    def frames(self) -> tuple[int, ...]:
        """As many."""


@runtime_checkable
class Listing(Protocol):
    """An online search that lists texts."""

    def ranked(self, state: Any) -> Sequence[TimedText]:
        """Texts of a stream that is over, the best first; empty if there are none."""


def listed(search: object, state: Any) -> Sequence[TimedText]:
    """What a search lists; nothing if it does not."""
    return search.ranked(state) if isinstance(search, Listing) else ()


class Utterance(Protocol):
    """A recording to stream (`data` has it)."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def text(self) -> str:
        """Reference text."""

    @property
    def audio(self) -> Callable[[], Array]:
        """Reads the samples: (n,) float32 in [-1, 1]."""

    @property
    def words(self) -> Sequence[TimedWord]:
        """Reference words with true times; empty if unknown."""
