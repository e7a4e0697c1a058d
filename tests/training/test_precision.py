"""Autocast types and the float16 loss scale, in the loop; the running average stays float64."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from torch import nn

from dualasr_lib.core import checkpoint as checkpoints
from dualasr_lib.training import stepper
from dualasr_lib.training.contract import Run, StepResult
from dualasr_lib.training.distributed import World
from dualasr_lib.training.state import TrainState


def _lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


def _series(directory: Path, name: str) -> list[float]:
    return [line[name] for line in _lines(directory) if name in line]


def test_bfloat16_trains(tmp_path: Path) -> None:
    types = set()

    def objective(model: nn.Module, batch: tiny_run.TinyBatch) -> StepResult:
        types.add(model(batch.inputs).dtype)
        return tiny_run.objective(model, batch)

    model = tiny_run.tiny_model()
    tiny_run.tiny_fit(tmp_path, model=model, objective=objective, dtype="bfloat16", max_steps=28)
    losses = _series(tmp_path, "train/loss")
    assert sum(losses[-7:]) < sum(losses[:7])
    assert types == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_float16_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float16 needs a GPU"):
        tiny_run.tiny_fit(tmp_path, dtype="float16", max_steps=3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_trains_on_a_gpu(tmp_path: Path, dtype: str) -> None:
    model = tiny_run.tiny_model().cuda()
    tiny_run.tiny_fit(tmp_path, model=model, dtype=dtype, max_steps=28, validate=None)
    losses = _series(tmp_path, "train/loss")
    assert sum(losses[-7:]) < sum(losses[:7])


@pytest.fixture
def float16_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop with its loss scale, but computed in float32."""
    monkeypatch.setattr(stepper, "autocast", lambda device, dtype: nullcontext())


def _overflowing(model: nn.Module, batch: tiny_run.TinyBatch) -> StepResult:
    """Finite losses, but 4 * 2^15 times that of one batch is beyond float32."""
    result = tiny_run.objective(model, batch)
    huge = 1e34 if batch.ids == ("epoch0-batch2",) else 1.0
    return result._replace(loss=result.loss * huge)


@pytest.mark.usefixtures("float16_without_a_gpu")
def test_the_loss_scale_does_not_change_the_update(tmp_path: Path) -> None:
    models = {dtype: tiny_run.tiny_model() for dtype in ("float16", "float32")}
    for dtype, model in models.items():
        tiny_run.tiny_fit(tmp_path / dtype, model=model, dtype=dtype, max_steps=9)
    for one, other in zip(*(model.parameters() for model in models.values())):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert _series(tmp_path / "float16", "train/loss_scale") == [2.0**15] * 9


@pytest.mark.usefixtures("float16_without_a_gpu")
def test_an_overflow_lowers_the_scale_and_is_no_bad_step(tmp_path: Path) -> None:
    """It survives a resume too: the second half starts from a checkpoint after the overflow."""
    options = {"dtype": "float16", "objective": _overflowing, "max_bad_steps": 0}
    tiny_run.tiny_fit(tmp_path / "whole", max_steps=12, **options)
    tiny_run.tiny_fit(tmp_path / "parts", max_steps=5, **options)
    tiny_run.tiny_fit(tmp_path / "parts", max_steps=12, **options)
    scales = _series(tmp_path / "whole", "train/loss_scale")
    assert scales[:2] == [2.0**15] * 2
    assert scales[2:] == [2.0**14] * 10
    assert set(_series(tmp_path / "whole", "train/skipped_steps")) == {0}
    assert not (tmp_path / "whole" / "bad").exists()
    for name in ("train/loss", "train/loss_scale"):
        assert _series(tmp_path / "parts", name) == _series(tmp_path / "whole", name)


def test_the_running_average_stays_float64_through_checkpoints(tmp_path: Path) -> None:
    """Three runs in a row: what the last one saves is the mean to the last bit of float64."""
    model = tiny_run.tiny_model()
    snapshots: list[torch.Tensor] = []

    def on_step(step: int) -> None:
        if step and step % 2 == 0:  # `average_period` is 2
            snapshots.append(model[0].weight.detach().double().clone())

    for steps in (5, 9, 13):
        tiny_run.tiny_fit(tmp_path, model=model, max_steps=steps, on_step=on_step)
    path = checkpoints.newest(tmp_path)
    assert path is not None
    found = checkpoints.load(path)
    assert (found.average_count, len(snapshots)) == (6, 6)
    assert {mean.dtype for mean in found.average.values()} == {torch.float64}
    expected = torch.stack(snapshots).mean(0)
    torch.testing.assert_close(found.average["0.weight"], expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_main_rank_keeps_the_running_average(tmp_path: Path, rank: int) -> None:
    """It is float64, so twice the model; after a resume too."""
    tiny_run.tiny_fit(tmp_path, max_steps=0, num_epochs=1)
    prints = {"tokenizer": "abc"}
    run = Run(directory=tmp_path, config={}, fingerprints=prints, world=World(rank=rank))
    config = tiny_run.tiny_config(max_steps=40)
    state = TrainState(tiny_run.tiny_model(), tiny_run.TinyBatches(), run, config)
    state.resume()
    state.end_step()
    assert (state.step, state.average.count) == (8, 4 if rank == 0 else 0)
    assert bool(state.average.mean) == (rank == 0)
