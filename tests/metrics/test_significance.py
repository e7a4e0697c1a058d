"""Student's t and Holm's correction against tables, other programs and slow ways."""

import math

import numpy as np
import pytest

from dualasr_lib.metrics.significance import holm, student_cdf


@pytest.mark.parametrize(
    ("degrees", "t"), [(1, 12.706205), (2, 4.302653), (7, 2.364624), (10, 2.228139), (99, 1.984217)]
)
def test_the_table_of_student(degrees: int, t: float) -> None:
    assert student_cdf(t, degrees) == pytest.approx(0.975, abs=1e-7)
    assert student_cdf(-t, degrees) == pytest.approx(0.025, abs=1e-7)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 8, 9, 30])
def test_student_is_the_integral_of_its_density(degrees: int) -> None:
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2))
    grid = np.linspace(0, 3, 30001)
    density = scale / math.sqrt(degrees * math.pi) * (1 + grid**2 / degrees) ** (-(degrees + 1) / 2)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(grid))])
    np.testing.assert_allclose(student_cdf(grid, degrees), 0.5 + area, atol=1e-8)


def test_student_needs_a_degree_of_freedom() -> None:
    assert student_cdf([-np.inf, 0.0, np.inf], 4).tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(ValueError, match="must be at least 1, but is 0"):
        student_cdf(0.0, 0)


def test_holm_by_hand() -> None:
    # 0.01 * 4, 0.02 * 3, 0.03 * 2 (not below the one before), 0.5
    assert holm([0.03, 0.01, None, 0.5, 0.02]) == pytest.approx([0.06, 0.04, None, 0.5, 0.06])
    assert holm([0.04]) == [0.04]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_alarm() -> None:
    """Of ten comparisons with nothing in them, some are below 0.05 in 40 % of all cases, but after
    the correction in 5 %."""
    draws = np.random.default_rng(1).uniform(size=(4000, 10))
    plain = np.mean((draws < 0.05).any(axis=1))
    corrected = np.mean([min(p for p in holm(list(row)) if p is not None) < 0.05 for row in draws])
    assert 0.35 < plain < 0.45
    assert 0.03 < corrected < 0.07
