"""How batches are made and augmented: settings alone, so that whoever reads a configuration does
not import lhotse.
"""

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["AugmentConfig", "DataConfig"]


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is done to training features. The defaults are those of published CSJ recipes."""

    spec_augment_prob: float = 0.9
    """Share of the utterances that SpecAugment changes; 0 turns it off."""
    time_warp: int = 80
    """Largest shift of the warped frame; 0 turns warping off."""
    num_feature_masks: int = 2
    feature_mask_size: int = 27
    """Mel bins a mask covers at most."""
    num_frame_masks: int = 10
    frame_mask_size: int = 100
    """Frames a mask covers at most."""
    max_frames_fraction: float = 0.15
    """Share of an utterance's frames that frame masks cover at most."""
    noise_cuts: str = ""
    """Cut manifest of noise to mix in (with features, if those are stored), relative to the data
    folder; empty: no noise."""
    noise_prob: float = 0.5
    """Share of the utterances that get noise."""
    noise_snr: tuple[float, ...] = field(default=(10.0, 20.0))
    """Lowest and highest signal-to-noise ratio, dB."""

    def __post_init__(self) -> None:
        for name in ("spec_augment_prob", "noise_prob", "max_frames_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"'{name}' must be in 0..1, is {getattr(self, name)}")
        if len(self.noise_snr) != 2 or self.noise_snr[0] > self.noise_snr[1]:
            raise ValueError(f"'noise_snr' must be (lowest, highest), is {self.noise_snr}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How batches are made."""

    max_duration: float = 200.0
    """Seconds of audio in a batch at most, padding not counted."""
    num_buckets: int = 10
    """Buckets of similar duration that batches are drawn from."""
    buffer_size: int = 20000
    """Utterances among which a batch is drawn."""
    num_workers: int = 2
    """Processes that load features; 0 loads in the main process. Batches are the same."""
    min_frames: int = 9
    """Shorter training utterances are left out."""
    features: Literal["stored", "computed"] = "stored"
    """Read from DATA, or computed from the recordings by whoever makes a batch (the workers):
    nothing to store, nothing lost by compression (lilcom's stored ones are off by up to 1/64), and
    noise is mixed into the audio itself."""
    storage: Literal["files", "shar"] = "files"
    """Where features (or recordings, if features are computed) are: files that are opened where an
    utterance lies, or Lhotse Shar, read in sequence (`python -m dualasr_lib.recipe.shar`). With
    shar the `buffer_size` utterances are in memory with their data."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        for name in ("max_duration", "num_buckets", "buffer_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"'{name}' must be greater than 0, is {getattr(self, name)}")
        if self.num_workers < 0:
            raise ValueError(f"'num_workers' must be at least 0, is {self.num_workers}")
