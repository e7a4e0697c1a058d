"""A matrix to look at, with the words that must stand around it."""

from typing import NamedTuple

from torch import Tensor

__all__ = ["Picture"]


class Picture(NamedTuple):
    """What is drawn, and what it says; who draws it is another matter."""

    values: Tensor
    """(H, W) numbers, the first row at the top."""
    title: str
    """What is shown, and of which data."""
    x: str
    """What a column is, and its unit in brackets."""
    y: str
    """What a row is, and its unit in brackets."""
    colours: str
    """What a number is, and its unit in brackets."""
    low: float
    """Number at the lower end of the colours."""
    high: float
    """Number at their upper end."""

    @property
    def grey(self) -> Tensor:
        """(H, W) float32 in [0, 1]: 0 at `low`, 1 at `high`."""
        return ((self.values.float() - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
