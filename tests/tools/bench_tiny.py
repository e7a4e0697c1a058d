"""A joint model of a few thousand parameters for the tests of the bench programs."""

from pathlib import Path

__all__ = ["TINY", "write_tiny"]

_LAYER = (
    "feedforward = 16, kernel = 7, attention = "
    "{ heads = 2, query_head_dim = 8, value_head_dim = 4, position_dim = 8 }"
)
TINY = f"""
[model]
num_features = 20

[model.subsampling]
channels = [2, 3, 4]

[[model.streaming]]
layers = 1
layer = {{ dim = 16, {_LAYER} }}

[[model.streaming]]
layers = 1
downsampling = 2
layer = {{ dim = 24, {_LAYER} }}

[[model.full]]
layers = 1
layer = {{ dim = 24, {_LAYER} }}

[model.heads.attention]
layers = 1
dim = 16
heads = 2
feedforward = 16

[loss.distillation]
encoder_weight = 1.0
head_weights = {{ attention = 1.0 }}
"""


def write_tiny(folder: Path) -> Path:
    """Writes the configuration; returns its file."""
    path = folder / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return path
