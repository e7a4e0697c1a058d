"""Options of the filterbank, for whole utterances and running audio alike; no torch."""

from dataclasses import dataclass

from dualasr_lib.core.rates import FRAME_SHIFT_MS

__all__ = ["FbankConfig"]


@dataclass(frozen=True, kw_only=True)
class FbankConfig:
    """Options of the filterbank, offline and online alike.

    Not options, because lhotse's defaults fix them: Povey window, pre-emphasis 0.97, DC offset
    removed, FFT length rounded up to a power of two, power spectrum, no energy coefficient.
    """

    sample_rate: int = 16000
    """Samples per second of the audio; nothing is resampled."""
    num_mel_bins: int = 80
    """Triangular filters, the size F of a frame."""
    frame_shift_ms: float = float(FRAME_SHIFT_MS)
    """Distance of neighbouring frames; must be that on which chunks, latencies and models count
    (`core.rates`)."""
    frame_length_ms: float = 25.0
    """Length of one analysis window, a whole number of samples."""
    low_freq: float = 20.0
    """Lower edge of the first filter in Hz."""
    high_freq: float = -400.0
    """Upper edge of the last filter in Hz; zero or less counts down from half the sample rate."""
    dither: float = 0.0
    """Must be 0: features are a function of the audio alone."""
    snip_edges: bool = False
    """Must be False: frames are centred on multiples of the shift and the edges are reflected."""

    def __post_init__(self) -> None:
        for name in ("sample_rate", "num_mel_bins", "frame_shift_ms", "frame_length_ms"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, but is {getattr(self, name)}")
        if self.frame_shift_ms != FRAME_SHIFT_MS:
            raise ValueError(
                f"`frame_shift_ms` must be {FRAME_SHIFT_MS}: chunks, latencies and word times "
                f"count on it (core/rates.py); but is {self.frame_shift_ms}"
            )
        for name in ("frame_shift_ms", "frame_length_ms"):
            samples = getattr(self, name) * self.sample_rate / 1000
            if samples != round(samples) or round(samples) % 2:
                raise ValueError(
                    f"`{name}` must be an even number of samples, but is {samples} at "
                    f"{self.sample_rate} Hz"
                )
        if self.frame_length_ms < 2 * self.frame_shift_ms:
            raise ValueError(
                f"`frame_length_ms` must be at least twice `frame_shift_ms` "
                f"({self.frame_shift_ms}), but is {self.frame_length_ms}"
            )
        if self.dither != 0.0 or self.snip_edges:
            raise ValueError(
                "`dither` must be 0 and `snip_edges` False, but they are "
                f"{self.dither} and {self.snip_edges}"
            )
        nyquist = self.sample_rate / 2
        high = self.high_freq if self.high_freq > 0 else nyquist + self.high_freq
        if not 0 <= self.low_freq < high <= nyquist:
            raise ValueError(
                f"`low_freq` and `high_freq` must hold 0 <= low < high <= {nyquist} Hz, "
                f"but are {self.low_freq} and {self.high_freq} (that is {high})"
            )

    @property
    def shift(self) -> int:
        """Samples from one frame to the next (160)."""
        return round(self.frame_shift_ms * self.sample_rate / 1000)

    @property
    def window(self) -> int:
        """Samples W of one analysis window (400)."""
        return round(self.frame_length_ms * self.sample_rate / 1000)

    @property
    def overhang(self) -> int:
        """Samples by which a window reaches beyond its own shift, on each side (120).

        Frame t is centred: it covers samples [t * shift - overhang, (t + 1) * shift + overhang).
        """
        return (self.window - self.shift) // 2

    @property
    def min_samples(self) -> int:
        """Shortest audio whose edges can be reflected (200 samples, 12.5 ms).

        The last window reaches up to shift / 2 + overhang beyond the last sample, the first one
        overhang before the first.
        """
        return self.shift // 2 + self.overhang

    def num_frames(self, num_samples: int) -> int:
        """Frames T of an utterance of n samples: n / shift, rounded to nearest, half up."""
        return (num_samples + self.shift // 2) // self.shift
