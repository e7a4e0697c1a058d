"""P-values: Student's t, and Holm's correction for the number of comparisons.

Sources: Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4 (the
distribution of t for whole degrees of freedom); Holm, "A simple sequentially rejective multiple
test procedure", Scandinavian Journal of Statistics 6 (1979).
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["holm", "student_cdf"]

_Floats = npt.NDArray[np.float64]


def student_cdf(t: npt.ArrayLike, degrees: int) -> _Floats:
    """P(T <= t) for Student's t with `degrees` degrees of freedom, element by element.

    Raises:
        ValueError: `degrees` is below 1.
    """
    if degrees < 1:
        raise ValueError(f"`degrees` must be at least 1, but is {degrees}")
    values = np.asarray(t, dtype=np.float64)
    angle = np.arctan(values / math.sqrt(degrees))
    odd = degrees % 2
    term = np.cos(angle) if odd else np.ones_like(angle)
    total = np.zeros_like(angle)
    for k in range(odd, degrees - 1, 2):  # each term is made of the one before
        total = total + term
        term = term * np.cos(angle) ** 2 * (k + 1) / (k + 2)
    inside = np.sin(angle) * total
    if odd:
        inside = 2 / math.pi * (angle + inside)
    result: _Floats = np.clip(0.5 + inside / 2, 0.0, 1.0)
    return result


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected so that the chance of any false alarm among them stays below the level
    that they are compared with. None (not tested) stays None and does not count.

    The smallest of n is multiplied by n, the next by n - 1, and so on; none becomes smaller than
    one before it, none larger than 1.
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    result: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, index) in enumerate(order):
        least = max(least, min(1.0, p * (len(order) - rank)))
        result[index] = least
    return result
