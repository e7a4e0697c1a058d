"""Levels of samples that all who read audio agree on. Full scale is 1."""

__all__ = ["CANCELLED", "LOUDEST", "QUIET_ROOM"]

LOUDEST = 8.0
"""No speech is louder: resampling and lossy formats go beyond full scale by a little, mixing in
float by some times; samples of 16 bits that somebody cast to float do by thousands.
"""

CANCELLED = 0.01
"""Energy of the mean of channels, as a share of what channels without relation would leave, below
which they cancel each other."""

QUIET_ROOM = 2e-4
"""Root mean square of the quietest room: -74 dB of full scale, 7 steps of 16 bits. Ours: between
what the open corpus has at its quietest and what is heard as nothing; recordings of speech have
more.
"""
