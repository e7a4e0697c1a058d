"""Averages of weights against the plain mean of all snapshots."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dualasr_lib.core import checkpoint as checkpoints
from dualasr_lib.core.checkpoint import Checkpoint, CheckpointError
from dualasr_lib.core.weights import average_between, load_weights
from dualasr_lib.training.averaging import RunningAverage


def _walk(steps: int, period: int, keep: list[int]) -> tuple[list[Tensor], dict[int, Checkpoint]]:
    """A model on a random walk: its weights after each step, and checkpoints at `keep`."""
    torch.manual_seed(0)
    model, average = nn.BatchNorm1d(4), RunningAverage(period)
    weights, saved = [], {}
    for step in range(1, steps + 1):
        model.weight.data += torch.randn(4)
        model.num_batches_tracked += 1
        average.update(model, step)
        weights.append(model.weight.detach().double().clone())
        if step in keep:
            state = {name: value.clone() for name, value in model.state_dict().items()}
            mean = {name: value.clone() for name, value in average.mean.items()}
            epoch = len(saved) + 1
            saved[step] = Checkpoint(step, epoch, state, mean, average.count, {}, {"t": "x"}, {})
    return weights, saved


def test_the_running_mean_is_the_mean_of_snapshots() -> None:
    weights, saved = _walk(20, 3, [20])
    expected = torch.stack(weights[2::3]).mean(0)
    assert saved[20].average["weight"].dtype == torch.float64
    torch.testing.assert_close(saved[20].average["weight"], expected, rtol=1e-12, atol=1e-12)
    assert "num_batches_tracked" not in saved[20].average


def test_the_mean_between_two_checkpoints_is_exact() -> None:
    weights, saved = _walk(40, 3, [10, 29])
    state = average_between(saved[29], saved[10])
    expected = torch.stack(weights[11:29:3]).mean(0)  # snapshots at 12, 15, ..., 27
    torch.testing.assert_close(state["weight"], expected.float(), rtol=1e-6, atol=1e-7)
    assert state["weight"].dtype == torch.float32
    assert int(state["num_batches_tracked"]) == 29
    nn.BatchNorm1d(4).load_state_dict(state)


def test_no_snapshot_between_is_an_error() -> None:
    _, saved = _walk(12, 10, [10, 12])
    with pytest.raises(ValueError, match="step 12 and step 10 have none"):
        average_between(saved[12], saved[10])


def test_load_weights(tmp_path: Path) -> None:
    weights, saved = _walk(30, 1, [10, 20, 30])
    for checkpoint in saved.values():
        checkpoints.save(checkpoint, tmp_path / f"epoch-{checkpoint.epoch}.pt")
    plain = load_weights(tmp_path)
    assert (plain.source, plain.fingerprints) == ("epoch-3.pt", {"t": "x"})
    torch.testing.assert_close(plain.state_dict["weight"].double(), weights[29])
    last = load_weights(tmp_path, epoch=2, avg=1)
    assert last.source == "epoch-2.pt, mean over steps (10, 20], since epoch-1.pt"
    expected = torch.stack(weights[10:20]).mean(0).float()
    torch.testing.assert_close(last.state_dict["weight"], expected)
    everything = load_weights(tmp_path, epoch=3, avg=3)
    expected = torch.stack(weights).mean(0).float()
    torch.testing.assert_close(everything.state_dict["weight"], expected)
    with pytest.raises(ValueError, match=r"must lie in 0\.\.3.*but is 4"):
        load_weights(tmp_path, avg=4)
    (tmp_path / "epoch-1.pt").unlink()
    with pytest.raises(CheckpointError, match=r"epoch-1\.pt does not exist"):
        load_weights(tmp_path, epoch=2, avg=1)


def test_a_mean_goes_up_to_the_newest_checkpoint_of_mid_epoch(tmp_path: Path) -> None:
    """It was left out silently, with all that the model had learnt since the end of the epoch."""
    weights, saved = _walk(30, 1, [10, 20, 25])
    between = saved[25]._replace(epoch=2)
    checkpoints.save(between, tmp_path / "epoch-2-step-25.pt")
    for step, name in ((10, "epoch-1.pt"), (20, "epoch-2.pt")):
        checkpoints.save(saved[step], tmp_path / name)
    for avg, first in ((1, 10), (2, 0)):
        mean = load_weights(tmp_path, avg=avg)
        assert mean.label == f"avg{avg}-step25"
        expected = torch.stack(weights[first:25]).mean(0).float()
        torch.testing.assert_close(mean.state_dict["weight"], expected)
    assert load_weights(tmp_path, avg=1).source == (
        "epoch-2-step-25.pt, mean over steps (10, 25], since epoch-1.pt"
    )
    end = load_weights(tmp_path, epoch=2, avg=1)
    assert (end.label, end.source) == (
        "avg1", "epoch-2.pt, mean over steps (10, 20], since epoch-1.pt"
    )  # fmt: skip
    plain = load_weights(tmp_path)
    assert (plain.source, plain.label) == ("epoch-2-step-25.pt", "")
    torch.testing.assert_close(plain.state_dict["weight"].double(), weights[24])


def test_a_mean_in_the_first_epoch_is_over_all_steps(tmp_path: Path) -> None:
    weights, saved = _walk(8, 1, [8])
    checkpoints.save(saved[8]._replace(epoch=0), tmp_path / "epoch-0-step-8.pt")
    mean = load_weights(tmp_path, avg=1)
    assert mean.source == "epoch-0-step-8.pt, mean over steps (0, 8], since the start"
    torch.testing.assert_close(mean.state_dict["weight"], torch.stack(weights).mean(0).float())
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1.*has 0 whole epochs.*but is 2"):
        load_weights(tmp_path, avg=2)


def test_period_is_checked() -> None:
    with pytest.raises(ValueError, match="`average_period` must be at least 1"):
        RunningAverage(0)
