"""Which frames are paired at a lag: the table of `align`, and every lag against a slow loop."""

import pytest
import torch

from dualasr_lib.model.pairing import align


@pytest.mark.parametrize(
    ("lag", "expected"),
    [(2, ["ax", "by", "cz"]), (-1, ["bv", "cw", "dx", "ey"]), (5, []), (-5, []), (9, []), (-9, [])],
)
def test_the_table(lag: int, expected: list[str]) -> None:
    teacher, student = (
        torch.tensor([ord(letter) for letter in letters]).reshape(1, 5, 1)
        for letters in ("abcde", "vwxyz")
    )
    lens = torch.tensor([5])
    pair = align(teacher, student, (lens, lens), lag)
    assert bool(pair.valid.all())
    assert [chr(a) + chr(b) for a, b in zip(pair.teacher[0], pair.student[0])] == expected


@pytest.mark.parametrize("lag", range(-8, 9))
def test_every_lag(lag: int) -> None:
    """Sizes and lengths differ between the sides."""
    teacher = torch.arange(21).reshape(3, 7, 1)
    student = 100 + torch.arange(15).reshape(3, 5, 1)
    lens = (torch.tensor([7, 2, 0]), torch.tensor([3, 5, 4]))
    pair = align(teacher, student, lens, lag)
    for n in range(3):
        expected = {
            (t, int(teacher[n, t]), int(student[n, t + lag]))
            for t in range(int(lens[0][n]))
            if 0 <= t + lag < int(lens[1][n])
        }
        got = {
            (pair.start + i, int(pair.teacher[n, i]), int(pair.student[n, i]))
            for i in range(pair.valid.shape[1])
            if pair.valid[n, i]
        }
        assert got == expected


def test_means_and_masks() -> None:
    x = torch.tensor([[[1.0], [2.0], [torch.nan]]])
    pair = align(x, x, (torch.tensor([2]), torch.tensor([3])), 0).masked()
    assert pair.teacher.flatten().tolist() == [1.0, 2.0, 0.0]
    assert float(pair.mean(torch.tensor([[1.0, 2.0, torch.nan]]))) == 1.5
    nothing = align(x, x, (torch.tensor([0]), torch.tensor([3])), 0)
    assert float(nothing.mean(x[:, :, 0])) == 0.0
