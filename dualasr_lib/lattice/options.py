"""Options of the searches in this folder. Needs neither k2 nor torch: programs check what users
write before they import anything heavy.
"""

from dataclasses import dataclass, field

from dualasr_lib.lattice.path import SearchConfig

__all__ = [
    "FastBeamConfig",
    "FastBeamStreamConfig",
    "GraphConfig",
    "IntersecterConfig",
    "LmLatticeConfig",
    "NbestConfig",
]


@dataclass(frozen=True, kw_only=True)
class NbestConfig:
    """Which texts are proposed."""

    lattice: SearchConfig = field(default_factory=SearchConfig)
    """What is kept of the lattice."""
    num_texts: int = 50
    """Texts kept at most, those with the best paths."""
    text_beam: float = 8.0
    """Texts whose CTC log-probability is further below the best one's are left out (natural log):
    on sure sentences few remain, which saves most of a rescoring."""
    num_paths: int = 100
    """Paths drawn per utterance and scale; far fewer texts remain, because many paths spell the
    same one."""
    path_scales: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Log-probs are multiplied by these when paths are drawn (icefall's `nbest_scale`): low ones
    find many different texts where a model is sure; where it is not, or V is large, paths of low
    scales wander among unlikely tokens, and high ones stay near the best path."""

    def __post_init__(self) -> None:
        for name in ("num_texts", "num_paths"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, but is {getattr(self, name)}")
        if not self.text_beam > 0:
            raise ValueError(f"`text_beam` must be positive, but is {self.text_beam}")
        if not self.path_scales or not min(self.path_scales) > 0:
            raise ValueError(
                f"`path_scales` must be positive, at least one, but are {self.path_scales}"
            )


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """Options of the search."""

    beam: float = 16.0
    """Hypotheses further below the best one are dropped (natural log)."""
    max_active: int = 200
    """Hypotheses kept at most at each frame."""
    token_beam: float = 12.0
    """Tokens whose log-prob at a frame is further below the best one's are not tried there."""
    max_tokens: int = 50
    """Tokens tried at most at a frame, the most likely ones."""

    def __post_init__(self) -> None:
        for name in ("beam", "max_active", "token_beam", "max_tokens"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, but is {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class LmLatticeConfig:
    """What is rescored."""

    lattice: SearchConfig = field(default_factory=SearchConfig)
    """What is kept of the lattice."""
    max_active: int = 1000
    """Pairs of a lattice state and a state of the language model that are kept at most at a frame:
    those with the best CTC scores up to there. The model has no say in that, because its weight is
    not known yet; so the bound is for memory, far above what a sure lattice needs.
    """

    def __post_init__(self) -> None:
        if self.max_active < 1:
            raise ValueError(f"`max_active` must be at least 1, but is {self.max_active}")


@dataclass(frozen=True, kw_only=True)
class IntersecterConfig:
    """Options of the search; the beams are those of icefall's recipes."""

    search_beam: float = 20.0
    """Paths further below the best one are dropped while searching (natural log)."""
    output_beam: float = 8.0
    """Arcs whose best path is further below the best path are left out (natural log)."""
    min_active: int = 30
    """States kept at each frame even outside the search beam."""
    max_active: int = 10000
    """States kept at most at each frame."""
    max_vocab: int = 512
    """Largest vocabulary: 262 656 arcs, about 45 ms per stream and chunk of 320 ms."""
    segment_frames: int = 25
    """Encoder frames before a segment may be committed (25 frames of 40 ms = 1 s)."""

    def __post_init__(self) -> None:
        for name in ("search_beam", "output_beam"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, but is {getattr(self, name)}")
        if not 0 <= self.min_active <= self.max_active or self.max_active < 1:
            raise ValueError(
                "0 <= `min_active` <= `max_active` and 1 <= `max_active` must hold, "
                f"but they are {self.min_active} and {self.max_active}"
            )
        if self.segment_frames < 1:
            raise ValueError(f"`segment_frames` must be at least 1, but is {self.segment_frames}")


@dataclass(frozen=True, kw_only=True)
class FastBeamConfig:
    """Options of k2's search of a transducer."""

    beam: float | None = None
    """States further below the best one are dropped (natural log). None: 4, and 12 with a graph,
    whose costs count here, too."""
    max_states: int = 32
    """States kept at most at each frame of an utterance."""
    max_contexts: int = 4
    """Different contexts kept at most at each frame of an utterance."""

    def __post_init__(self) -> None:
        if self.beam is not None and not self.beam > 0:
            raise ValueError(f"`beam` must be positive, but is {self.beam}")
        for name in ("max_states", "max_contexts"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, but is {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class FastBeamStreamConfig(FastBeamConfig):
    """The same on running streams."""

    segment_frames: int = 250
    """Encoder frames of a segment (250 frames of 40 ms = 10 s): k2's cost per chunk grows within a
    segment, and each cut may lose a hypothesis."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.segment_frames < 16:
            raise ValueError(
                f"`segment_frames` must be at least 16 frames, but is {self.segment_frames}"
            )
