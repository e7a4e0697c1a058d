"""sp-KD against a slow float64 reference that follows the paper's formulas item by item."""

import pytest
import torch
from torch import Tensor

from dualasr_lib.model.distillation import DistillationConfig, similarity_loss


def slow_loss(teacher: list[Tensor], student: list[Tensor], centre: bool) -> float:
    """||G_T - G_S||_F^2 / b^2 of b items, each a vector."""

    def rows(items: list[Tensor]) -> Tensor:
        a = torch.stack(items).double()
        if centre:
            a = a - a.mean(0)
        gram = torch.tensor([[float(x @ y) for y in a] for x in a], dtype=torch.float64)
        return torch.stack([row / row.norm() for row in gram])

    return float((rows(teacher) - rows(student)).pow(2).sum() / len(teacher) ** 2)


@pytest.mark.parametrize("centre", [False, True])
def test_utterance_items(centre: bool) -> None:
    torch.manual_seed(1)
    lens = torch.tensor([3, 5, 1, 4])
    teacher, student = torch.randn(4, 5, 6), torch.randn(4, 5, 3)
    expected = slow_loss(
        [teacher[i, :n].mean(0) for i, n in enumerate(lens)],
        [student[i, :n].mean(0) for i, n in enumerate(lens)],
        centre,
    )
    got = similarity_loss(teacher, student, lens, DistillationConfig(centre=centre))
    assert float(got) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("centre", [False, True])
def test_frame_items(centre: bool) -> None:
    torch.manual_seed(2)
    lens = torch.tensor([3, 5])
    teacher, student = torch.randn(2, 5, 6), torch.randn(2, 5, 3)
    each = [
        slow_loss(list(teacher[i, :n]), list(student[i, :n]), centre) for i, n in enumerate(lens)
    ]
    config = DistillationConfig(items="frame", centre=centre)
    got = similarity_loss(teacher, student, lens, config)
    assert float(got) == pytest.approx(sum(each) / 2, rel=1e-5)


@pytest.mark.parametrize("items", ["utterance", "frame"])
def test_padding_detaching_and_equality(items: str) -> None:
    config = DistillationConfig(items=items)  # type: ignore[arg-type]
    lens = torch.tensor([2, 4, 3])
    teacher = torch.randn(3, 4, 6, requires_grad=True)
    student = torch.randn(3, 4, 6, requires_grad=True)
    loss = similarity_loss(teacher, student, lens, config)
    loss.backward()
    assert teacher.grad is None and student.grad is not None and student.grad.abs().sum() > 0
    padded = student.detach().clone()
    padded[0, 2:] = float("nan")
    assert torch.equal(similarity_loss(teacher, padded, lens, config), loss.detach())
    assert float(similarity_loss(teacher, teacher, lens, config)) == 0.0


def test_one_item_teaches_nothing() -> None:
    config = DistillationConfig()
    loss = similarity_loss(torch.randn(1, 4, 6), torch.randn(1, 4, 6), torch.tensor([4]), config)
    assert float(loss) == pytest.approx(0.0, abs=1e-12)
