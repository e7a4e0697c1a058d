"""Levels of samples that all who read audio agree on. Full scale is 1."""

__all__ = ["CANCELLED", "LOUDEST"]

LOUDEST = 8.0
"""No speech is louder: resampling and lossy formats go beyond full scale by a little, mixing in
float by some times; samples of 16 bits that somebody cast to float do by thousands.
"""

CANCELLED = 0.01
"""Energy of the mean of channels, as a share of what channels without relation would leave, below
which they cancel each other."""
