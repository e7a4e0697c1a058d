"""The names of the steps of a run; they stand apart, so that --help comes at once."""

__all__ = ["STEPS"]

STEPS = ("train", "decode", "stream", "similarity")
