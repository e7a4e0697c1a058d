"""What is known of one stream of audio between two steps: values, and the parts that make the next
ones (`stream` does).

P new samples of a step, S' encoder frames of it, n samples, S frames of a segment, C channels.
"""

from typing import Any, NamedTuple

from torch import Tensor

from dualasr_lib.decoding.contract import Frames, OnlineSearch, StreamingModel, listed
from dualasr_lib.decoding.endpoint import EndpointConfig, EndReason
from dualasr_lib.decoding.events import Partial
from dualasr_lib.decoding.hypothesis import PathLike, ScoredText
from dualasr_lib.decoding.offline import Detokenise
from dualasr_lib.decoding.stepping import Row

__all__ = ["Advanced", "Closed", "Parts", "Segment", "Stream", "first_texts"]


class Parts(NamedTuple):
    """What turns samples into text."""

    model: StreamingModel
    search: OnlineSearch
    detokenise: Detokenise
    keep_hidden: bool
    """Whether a second pass will want the hidden states."""
    endpoint: EndpointConfig | None
    """None: a stream is one segment."""

    @property
    def frame_seconds(self) -> float:
        """Duration of an encoder frame."""
        model = self.model
        return model.chunk_samples / model.chunk_frames / model.sample_rate


class Segment(NamedTuple):
    """The segment that is being heard."""

    number: int
    start: int
    """Sample of the stream at which it begins."""
    search_state: Any
    num_frames: int = 0
    """Encoder frames that the search has heard."""
    text: str = ""
    committed_text: str = ""
    hidden: tuple[Tensor, ...] = ()
    """(S_i, C) of each step, for the second pass."""
    recent: tuple[Frames, ...] = ()
    """What heads said of the last steps, each (S_i, ...), once a cut by length is near."""
    token_frames: tuple[int, ...] = ()
    """When the tokens of `text` were emitted."""

    @property
    def last_token_frame(self) -> int | None:
        """When the last token was emitted; None before the first."""
        return self.token_frames[-1] if self.token_frames else None


class Stream(NamedTuple):
    """A stream between two steps."""

    samples: Tensor
    """(n,) the end of its audio: what windows still need."""
    samples_start: int
    """Position of the first of them."""
    is_ended: bool
    """No more audio will come."""
    origin: int
    """Sample at which the model started afresh."""
    steps_done: int
    """Since then."""
    row: Row
    segment: Segment

    @property
    def num_samples(self) -> int:
        """Samples that have come so far."""
        return self.samples_start + len(self.samples)


class Closed(NamedTuple):
    """A segment that is over, before any second pass."""

    number: int
    start: int
    """Samples of the stream."""
    end: int
    path: PathLike
    """Of the first pass; frames count from the start of the segment."""
    reason: EndReason
    hidden: tuple[Tensor, ...]
    """(S_i, C), as many frames as it has."""
    proposed: tuple[ScoredText, ...] = ()
    """Texts that the first pass lists, for the second one."""


class Advanced(NamedTuple):
    """A stream after a step."""

    stream: Stream
    audio_seconds: float
    """Audio that had to be there for the step."""
    partial: Partial | None
    """If there is news."""
    closed: Closed | None
    """If a segment is over."""
    carried: Partial | None
    """What has been heard of the next segment already, if one was cut by length."""


def first_texts(parts: Parts, segment: Segment, path: PathLike) -> tuple[ScoredText, ...]:
    """What the first pass proposes to the second one: its list, or else its text."""
    if not parts.keep_hidden:
        return ()
    texts = listed(parts.search, segment.search_state) or (path,)
    return tuple(ScoredText(text.tokens, {}, text.frames) for text in texts)
