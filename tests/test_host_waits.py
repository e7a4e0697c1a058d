"""Where a training step waits for its device: the whole list, on a device that is not there.

What each wait is for is told in `dualasr_lib.training.stepper`.
"""

from collections import Counter
from pathlib import Path

import pytest
import torch

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

from pretend_device import DEVICE, PretendDevice, moved, no_autocast
from test_experiment import BRANCHES, SIZES, Batches, batch, data_dir, made

from dualasr_lib.model.heads.ctc import torch_ctc_loss
from dualasr_lib.model.model_config import Branch
from dualasr_lib.training.distributed import World
from dualasr_lib.training.state import TrainState
from dualasr_lib.training.stepper import Stepper

__all__ = ["data_dir"]


@pytest.mark.parametrize("branches", BRANCHES)
def test_waits_of_a_step(
    data_dir: Path, branches: tuple[Branch, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, model = made(data_dir, branches)
    monkeypatch.setattr(torch, "autocast", no_autocast)
    with PretendDevice() as device:
        moved(model)
        state = TrainState(model, Batches(), found.run(data_dir, World()), found.config.training)
        assert state.device == DEVICE
        stepper = Stepper(state, found.objective)
        for number in range(3):  # other draws, other aids
            model.set_step(1000 * number)
            device.waits.clear()
            assert stepper.step([batch(3, number)]).skip is None
            assert Counter(device.waits) == {
                "ctc.py: torch_ctc_loss: _to_copy": len(branches),
                "experiment.py: objective: _to_copy": 1,
                "meter.py: fetched: _to_copy": 1,
                "scaled_adam.py: step: _local_scalar_dense": 1,
            }


def test_waits_of_a_validation(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its losses bring one of all batches together, beside those of CTC in each."""
    found, model = made(data_dir, ("streaming", "full"))
    monkeypatch.setattr(torch, "autocast", no_autocast)
    with PretendDevice() as device, torch.no_grad():
        moved(model)
        found.validate(model.eval())
        waits = Counter(device.waits)
    assert waits["validation.py: _validation_losses: _to_copy"] == 1
    assert waits["ctc.py: torch_ctc_loss: _to_copy"] == 2 * len(SIZES)
    assert all("losses.py" not in place for place in waits)


def test_waits_are_found() -> None:
    """What the list above could miss, one by one; and that pretending changes no number."""
    with PretendDevice() as device:
        x = torch.arange(6.0, device=DEVICE)
        assert x.device == DEVICE and (x + 1).device == DEVICE and not device.waits
        assert float(x[3]) == 3.0 and bool(x[1] > 0) and x.tolist() == list(range(6))
        assert len(x[x > 2]) == 3 and len(x.nonzero()) == 5 and x.cpu().sum() == 15.0
        torch.zeros(6).copy_(x)
        assert len(device.waits) == 7
        device.waits.clear()
        logs = torch.randn(2, 9, 5).log_softmax(2)
        lens, texts = torch.tensor([9, 8]), torch.tensor([[1, 2], [3, 3]])
        there = logs.to(DEVICE).requires_grad_()
        loss = torch.nn.functional.ctc_loss(
            there.transpose(0, 1), texts.to(DEVICE), lens.to(DEVICE), (lens // 4).to(DEVICE)
        )
        loss.backward()
        assert len(device.waits) == 4  # two tensors of lengths, forward and backward
        expected = torch_ctc_loss(logs, lens, texts, lens // 4)
        got = torch_ctc_loss(there, lens.to(DEVICE), texts.to(DEVICE), (lens // 4).to(DEVICE))
        assert got.tolist() == expected.tolist()
