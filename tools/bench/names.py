"""The cases of bench_training.py; they stand apart, so that --help comes at once."""

__all__ = ["CASE_NAMES"]

CASE_NAMES = ("encoder", "joint", "long", "memory", "bf16", "transducer", "heads", "gpu")
"""In the order in which `--case all` runs them."""
