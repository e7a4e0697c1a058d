"""Levels of samples that all who read audio agree on. Full scale is 1."""

__all__ = ["LOUDEST"]

LOUDEST = 8.0
"""No speech is louder: resampling and lossy formats go beyond full scale by a little, mixing in
float by some times; samples of 16 bits that somebody cast to float do by thousands.
"""
