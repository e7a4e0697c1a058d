"""Steps that cannot be used: not finite (kept in a file), or out of memory (a real allocation)."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from torch import Tensor, nn

from dualasr_lib.core import archive
from dualasr_lib.core import checkpoint as checkpoints
from dualasr_lib.core.memory import is_memory_error
from dualasr_lib.training.contract import NonFiniteError, OutOfMemoryError, StepResult
from dualasr_lib.training.randomness import seed_all


def _log(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


def _events(directory: Path) -> list[dict[str, Any]]:
    return [line for line in _log(directory) if line.get("event") == "skipped"]


def _series(directory: Path, name: str) -> dict[int, float]:
    return {line["step"]: line[name] for line in _log(directory) if name in line}


def _bad(names: set[str], value: float = math.nan, where: str = "loss") -> Any:
    """The tiny objective, spoilt for the batches named."""

    def objective(model: nn.Module, batch: tiny_run.TinyBatch) -> StepResult:
        result = tiny_run.objective(model, batch)
        if batch.ids[0] not in names:
            return result
        if where == "loss":
            return result._replace(loss=result.loss * value)
        # a finite loss whose gradient is not: d sqrt(x) / dx at 0
        return result._replace(loss=result.loss + (result.loss * 0.0).sqrt())

    return objective


def _greedy(names: set[str], where: str) -> Any:
    """The tiny objective, which wants more memory than there can be for the batches named."""

    def objective(model: nn.Module, batch: tiny_run.TinyBatch) -> StepResult:
        result = tiny_run.objective(model, batch)
        if batch.ids[0] not in names:
            return result
        if where == "forward":
            tiny_run.exhaust_memory()
        if where == "host":
            bytearray(tiny_run.TOO_MUCH)
        return result._replace(loss=tiny_run.GreedyBackward.apply(result.loss))

    return objective


@pytest.mark.parametrize(
    ("value", "where"), [(math.nan, "loss"), (math.inf, "loss"), (math.nan, "gradient")]
)
def test_a_bad_step_is_skipped_named_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float, where: str
) -> None:
    bad = _bad({"epoch0-batch2", "epoch1-batch0"}, value, where)
    model = tiny_run.tiny_model()
    result = tiny_run.tiny_fit(tmp_path, model=model, objective=bad, max_bad_steps=1, max_steps=12)
    assert result.finished
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert [(event["step"], event["ids"], event["files"]) for event in _events(tmp_path)] == [
        (3, ["epoch0-batch2"], ["bad/step-00000003-rank-0.pt"]),
        (8, ["epoch1-batch0"], ["bad/step-00000008-rank-0.pt"]),
    ]
    assert ("gradient norm" if where == "gradient" else "loss") in _events(tmp_path)[0]["reason"]
    told = capsys.readouterr().err
    assert "step 3 skipped" in told
    assert "kept in bad/step-00000003-rank-0.pt" in told
    assert _series(tmp_path, "train/skipped_steps")[7] == 1
    assert all(math.isfinite(loss) for loss in _series(tmp_path, "train/loss").values())


def test_the_bad_batch_can_be_computed_again(tmp_path: Path) -> None:
    """The file has the batch, and the key under which dropout draws the same."""
    losses = []

    def objective(model: nn.Module, batch: tiny_run.TinyBatch) -> StepResult:
        result = tiny_run.objective(model, batch)
        if batch.ids[0] == "epoch0-batch1":
            losses.append(float(result.loss.detach()))
            return result._replace(loss=result.loss * math.nan)
        return result

    model = tiny_run.tiny_model()
    tiny_run.tiny_fit(tmp_path, model=model, objective=objective, accumulate=2, max_steps=1)
    path = tmp_path / "bad" / "step-00000001-rank-0.pt"
    torch.load(path, weights_only=True)  # no code in it
    found = archive.read(path)
    assert (found["step"], found["epoch"], found["rank"]) == (1, 0, 0)
    assert found["reason"] == "the loss is nan"
    [batch] = found["batches"]  # not the good one of the same step
    assert math.isnan(batch["loss"])
    again = tiny_run.TinyBatch(**batch["fields"])
    assert again.ids == ("epoch0-batch1",)
    seed_all(*batch["key"])
    fresh = tiny_run.tiny_model()
    fresh.load_state_dict(model.state_dict())  # its weights are those of the start still
    seed_all(*batch["key"])
    assert float(tiny_run.objective(fresh, again).loss.detach()) == pytest.approx(losses[0])


def test_a_bad_gradient_keeps_all_batches_of_its_step(tmp_path: Path) -> None:
    bad = _bad({"epoch0-batch1"}, where="gradient")
    tiny_run.tiny_fit(tmp_path, objective=bad, accumulate=2, max_steps=1)
    found = archive.read(tmp_path / "bad" / "step-00000001-rank-0.pt")
    names = [batch["fields"]["ids"] for batch in found["batches"]]
    assert names == [("epoch0-batch0",), ("epoch0-batch1",)]
    assert all(math.isfinite(batch["loss"]) for batch in found["batches"])


@pytest.mark.parametrize(("keep", "kept"), [(2, [4, 5]), (0, [])])
def test_only_the_newest_bad_batches_are_kept(tmp_path: Path, keep: int, kept: list[int]) -> None:
    bad = _bad({f"epoch0-batch{n}" for n in range(5)})
    tiny_run.tiny_fit(tmp_path, objective=bad, keep_bad=keep, max_steps=7)
    names = sorted(path.name for path in tmp_path.glob("bad/*"))
    assert names == [f"step-{step:08d}-rank-0.pt" for step in kept]
    assert len(_events(tmp_path)) == 5


def test_a_bad_batch_that_cannot_be_kept_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad").write_text("in the way")
    tiny_run.tiny_fit(tmp_path, objective=_bad({"epoch0-batch1"}), max_steps=4)
    assert "cannot keep the batch in" in capsys.readouterr().err
    assert [event["files"] for event in _events(tmp_path)] == [[]]


def test_a_skipped_step_changes_no_weight(tmp_path: Path) -> None:
    model = nn.Linear(5, 1)
    before = model.weight.detach().clone()
    bad = _bad({f"epoch0-batch{n}" for n in range(3)})
    tiny_run.tiny_fit(tmp_path, model=model, objective=bad, max_steps=3)
    assert torch.equal(model.weight, before)


def test_too_many_bad_steps_end_the_run_with_the_batch_named(tmp_path: Path) -> None:
    bad = _bad({f"epoch0-batch{n}" for n in range(2, 7)})
    message = r"3 steps of epoch 0 .*`max_bad_steps` is 2; .*step 5 .*loss is nan.*epoch0-batch4"
    with pytest.raises(NonFiniteError, match=message):
        tiny_run.tiny_fit(tmp_path, objective=bad, max_bad_steps=2)
    path = checkpoints.newest(tmp_path)
    assert path is not None
    state = checkpoints.load(path).model
    assert all(torch.isfinite(value).all() for value in state.values())


@pytest.mark.parametrize("where", ["forward", "backward", "host"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_that_does_not_fit_is_skipped_named_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str, accumulate: int
) -> None:
    greedy = _greedy({"epoch0-batch3"}, where)
    settings = {"accumulate": accumulate, "max_steps": 6, "max_oom_steps": 1}
    result = tiny_run.tiny_fit(tmp_path, objective=greedy, **settings)
    assert result.finished
    step = 4 // accumulate
    [event] = _events(tmp_path)
    assert (event["step"], event["ids"], event["files"]) == (step, ["epoch0-batch3"], [])
    said = "MemoryError" if where == "host" else "you tried to allocate 1125899906842624 bytes"
    assert event["reason"].startswith("out of memory (")
    assert said in event["reason"]
    assert f"step {step} skipped: out of memory" in capsys.readouterr().err
    assert _series(tmp_path, "train/out_of_memory_steps")[step + 1] == 1
    assert _series(tmp_path, "train/skipped_steps")[step + 1] == 0
    assert step not in _series(tmp_path, "train/loss")
    assert not (tmp_path / "bad").exists()


def test_the_rest_of_a_run_is_as_if_the_greedy_step_had_not_been(tmp_path: Path) -> None:
    """Nothing of the failed pass is left: weights equal those of a run that skips it otherwise."""
    models = []
    for name, objective in (
        ("memory", _greedy({"epoch0-batch3"}, "backward")),
        ("nan", _bad({"epoch0-batch3"})),
    ):
        models.append(tiny_run.tiny_model())
        tiny_run.tiny_fit(tmp_path / name, model=models[-1], objective=objective, max_steps=9)
    for one, other in zip(models[0].parameters(), models[1].parameters()):
        assert torch.equal(one, other)


def test_a_run_that_skipped_for_memory_resumes_with_its_count(tmp_path: Path) -> None:
    greedy = _greedy({"epoch0-batch1", "epoch0-batch4"}, "forward")
    tiny_run.tiny_fit(tmp_path, objective=greedy, max_oom_steps=1, max_steps=3)
    with pytest.raises(OutOfMemoryError, match="2 steps of epoch 0"):
        tiny_run.tiny_fit(tmp_path, objective=greedy, max_oom_steps=1, max_steps=6)


def test_too_many_batches_that_do_not_fit_end_the_run(tmp_path: Path) -> None:
    greedy = _greedy({f"epoch0-batch{n}" for n in range(2, 7)}, "forward")
    message = (
        r"3 steps of epoch 0 .*`max_oom_steps` is 2: make batches smaller .*epoch-0-step-.*; "
        r"last: step 5 .*out of memory.*epoch0-batch4"
    )
    with pytest.raises(OutOfMemoryError, match=message):
        tiny_run.tiny_fit(tmp_path, objective=greedy, max_oom_steps=2)


def test_other_errors_are_not_caught(tmp_path: Path) -> None:
    def broken(model: nn.Module, batch: tiny_run.TinyBatch) -> StepResult:
        model(batch.inputs.T)  # shapes do not go together
        raise AssertionError

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        tiny_run.tiny_fit(tmp_path, objective=broken)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("DefaultCPUAllocator: can't allocate memory"), False),
        (KeyError("out of memory"), False),
    ],
)
def test_memory_errors_are_told_from_others(error: Exception, expected: bool) -> None:
    assert is_memory_error(error) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_that_is_full_is_survived(tmp_path: Path) -> None:
    """Real allocations of twice the memory; afterwards it has been given back."""
    device = torch.device("cuda")
    total = torch.cuda.get_device_properties(device).total_memory

    def objective(model: nn.Module, batch: tiny_run.TinyBatch) -> StepResult:
        result = tiny_run.objective(model, batch)
        if batch.ids[0] == "epoch0-batch2":
            held: list[Tensor] = []
            for _ in range(8):
                held.append(torch.empty(total // 4, dtype=torch.uint8, device=device))
        return result

    model = tiny_run.tiny_model().to(device)
    assert tiny_run.tiny_fit(tmp_path, model=model, objective=objective, validate=None).finished
    [event] = _events(tmp_path)
    assert (event["step"], event["ids"]) == (3, ["epoch0-batch2"])
    assert torch.cuda.memory_reserved(device) < total // 8
