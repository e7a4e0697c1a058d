"""`fit` in one process: what it trains, logs, saves, skips and refuses."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import tiny_run
import torch
from torch import nn

from dualasr_lib.core import checkpoint as checkpoints
from dualasr_lib.core.checkpoint import CheckpointError
from dualasr_lib.core.picture import Picture
from dualasr_lib.training.contract import Share, StepResult, Term, Validation
from dualasr_lib.training.fit_config import FitConfig
from dualasr_lib.training.logbook import Logbook
from dualasr_lib.training.schedule import ScheduleConfig


def _log(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


def _series(directory: Path, name: str) -> dict[int, float]:
    return {line["step"]: line[name] for line in _log(directory) if name in line}


def test_it_learns_and_leaves_the_promised_files(tmp_path: Path) -> None:
    steps_seen: list[int] = []
    result = tiny_run.tiny_fit(tmp_path, max_steps=0, num_epochs=12, on_step=steps_seen.append)
    assert (result.step, result.epoch, result.finished) == (84, 12, True)
    assert steps_seen[:3] == [0, 1, 2]
    losses = list(_series(tmp_path, "train/loss").values())
    assert sum(losses[-7:]) < 0.7 * sum(losses[:7])
    names = {path.name for path in tmp_path.iterdir() if path.suffix == ".pt"}
    ends = {f"epoch-{n}.pt" for n in range(1, 13)}
    assert names == ends | {"epoch-11-step-81.pt", "epoch-11-step-84.pt"}


def test_the_log_holds_each_term_and_the_state_of_the_optimiser(tmp_path: Path) -> None:
    tiny_run.tiny_fit(tmp_path, log_every=4, max_steps=12)
    points = [line for line in _log(tmp_path) if "train/loss" in line]
    assert [point["step"] for point in points] == [4, 8, 12]
    assert set(points[0]) == {
        "step",
        "train/loss",
        "train/error",
        "train/grad_norm",
        "train/learning_rate",
        "train/clipped_fraction",
        "train/skipped_steps",
        "train/out_of_memory_steps",
        "train/epoch",
        "train/steps_per_second",
        "train/data_wait",
        "train/signal_seconds_per_second",
    }
    assert points[0]["train/error"] == pytest.approx(points[0]["train/loss"], rel=1e-6)
    speed = points[1]["train/signal_seconds_per_second"]
    assert speed == pytest.approx(1.5 * points[1]["train/steps_per_second"])
    valid = [line for line in _log(tmp_path) if "valid/error" in line]
    assert [point["step"] for point in valid] == [7, 12]
    assert valid[0]["valid/example"] == "あいう"


def test_the_checkpoint_says_what_the_run_was(tmp_path: Path) -> None:
    tiny_run.tiny_fit(tmp_path, max_steps=5, config={"name": "tiny", "lr": 0.1})
    path = checkpoints.newest(tmp_path)
    assert path == tmp_path / "epoch-0-step-5.pt"
    found = checkpoints.load(path)
    assert (found.step, found.epoch, found.average_count) == (5, 0, 2)
    assert found.config == {"name": "tiny", "lr": 0.1}
    assert found.fingerprints == {"tokenizer": "abc"}


@pytest.mark.parametrize(("every", "expected"), [(0, [7, 14, 15]), (4, [4, 8, 12, 15])])
def test_validation_comes_when_it_is_due_and_at_the_end(
    tmp_path: Path, every: int, expected: list[int]
) -> None:
    modes: list[bool] = []

    turns: list[int] = []

    def validate(model: nn.Module, turn: int, share: Share) -> Validation:
        turns.append(turn)
        modes.append(model.training or torch.is_grad_enabled())
        return Validation({"error": 1.0})

    model = tiny_run.tiny_model()
    tiny_run.tiny_fit(tmp_path, model=model, validate=validate, max_steps=15, validate_every=every)
    assert list(_series(tmp_path, "valid/error")) == expected
    assert modes == [False] * len(expected)
    assert turns == [*range(1, len(expected) + 1)]
    assert model.training


def test_what_a_validation_found_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = []
    monkeypatch.setattr(Logbook, "point", lambda self, *values: points.append(values))
    picture = Picture(torch.rand(2, 3), "title", "x (s)", "y (s)", "c (s)", 0.0, 1.0)

    def validate(model: nn.Module, turn: int, share: Share) -> Validation:
        return Validation({"cer": 0.5}, {"first": "あ"}, {"similarity": picture})

    tiny_run.tiny_fit(tmp_path, validate=validate, log_every=5, max_steps=2)
    assert points == [
        (2, ANY),
        (2, {"valid/cer": 0.5}, {"valid/first": "あ"}, {"valid/similarity": picture}),
    ]


def test_validation_does_not_change_the_training(tmp_path: Path) -> None:
    tiny_run.tiny_fit(tmp_path / "with", max_steps=15, validate_every=1)
    tiny_run.tiny_fit(tmp_path / "without", max_steps=15, validate=None)
    losses = _series(tmp_path / "with", "train/loss")
    assert losses == _series(tmp_path / "without", "train/loss")


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    tiny_run.tiny_fit(tmp_path / "0", max_steps=3)
    tiny_run.tiny_fit(tmp_path / "1", max_steps=3, seed=1)
    assert _series(tmp_path / "0", "train/loss") != _series(tmp_path / "1", "train/loss")


def test_accumulation_equals_the_joined_batch(tmp_path: Path) -> None:
    """Two batches of unequal size, weighted by their items, without dropout."""

    class Halves(tiny_run.TinyBatches):
        def __iter__(self) -> Any:
            for batch in super().__iter__():
                yield batch._replace(inputs=batch.inputs[:2], targets=batch.targets[:2])
                yield batch._replace(inputs=batch.inputs[2:], targets=batch.targets[2:])

    def plain() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)).double()

    def objective(model: nn.Module, batch: tiny_run.TinyBatch) -> StepResult:
        inputs = batch.inputs.double()  # noise-free targets, for both runs fetch differently
        errors = (model(inputs) - inputs[:, :1]).square()
        count = float(errors.numel())
        return StepResult(errors.mean(), {"e": Term(errors.sum(), count)}, weight=count)

    models = {name: plain() for name in ("joined", "halves")}
    for name, model in models.items():
        tiny_run.tiny_fit(
            tmp_path / name,
            model=model,
            objective=objective,
            batches=Halves() if name == "halves" else tiny_run.TinyBatches(),
            accumulate=2 if name == "halves" else 1,
            max_steps=10,
            validate=None,
        )
    for one, other in zip(models["joined"].parameters(), models["halves"].parameters()):
        torch.testing.assert_close(one, other)
    joined, halves = (_series(tmp_path / name, "train/e") for name in models)
    assert joined == pytest.approx(halves)


def test_a_damaged_checkpoint_is_refused_and_moving_it_away_helps(tmp_path: Path) -> None:
    tiny_run.tiny_fit(tmp_path, max_steps=9)
    newest = tmp_path / "epoch-1-step-9.pt"
    tiny_run.flip_a_bit(newest)
    with pytest.raises(CheckpointError, match=r"step-9\.pt is damaged.*; epoch-1\.pt is good"):
        tiny_run.tiny_fit(tmp_path, max_steps=12)
    newest.rename(tmp_path / "damaged")
    assert tiny_run.tiny_fit(tmp_path, max_steps=12).step == 12
    assert list(_series(tmp_path, "train/loss")) == list(range(1, 13))


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    tiny_run.tiny_fit(tmp_path, max_steps=2)
    with pytest.raises(ValueError, match=r"step-2\.pt must have the tokenizer of this run \(xyz\)"):
        tiny_run.tiny_fit(tmp_path, max_steps=4, fingerprints={"tokenizer": "xyz"})


def test_another_model_is_refused(tmp_path: Path) -> None:
    tiny_run.tiny_fit(tmp_path, max_steps=2)
    with pytest.raises(CheckpointError, match=r"step-2\.pt does not fit this model"):
        tiny_run.tiny_fit(tmp_path, max_steps=4, model=nn.Linear(5, 1))


def test_a_changed_config_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_run.tiny_fit(tmp_path, max_steps=2, config={"training": {"max_steps": 2}, "same": 1})
    tiny_run.tiny_fit(tmp_path, max_steps=3, config={"training": {"max_steps": 3}, "same": 1})
    told = capsys.readouterr().err
    assert "config training.max_steps was 2 and is now 3" in told
    assert "same" not in told


def test_an_empty_epoch_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="epoch 0 has none"):
        tiny_run.tiny_fit(tmp_path, batches=tiny_run.TinyBatches(num_batches=0))


def test_a_position_that_cannot_be_saved_is_named(tmp_path: Path) -> None:
    class Odd(tiny_run.TinyBatches):
        def state_dict(self) -> dict[str, Any]:
            return {"seen": {1, 2}}

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            raise AssertionError

    with pytest.raises(ValueError, match="'training/positions/0/seen' is a set"):
        tiny_run.tiny_fit(tmp_path, batches=Odd(), max_steps=3)


def test_a_weight_of_0_is_refused(tmp_path: Path) -> None:
    def weightless(model: nn.Module, batch: tiny_run.TinyBatch) -> StepResult:
        return tiny_run.objective(model, batch)._replace(weight=0.0)

    with pytest.raises(ValueError, match=r"must be above 0, but is 0\.0"):
        tiny_run.tiny_fit(tmp_path, objective=weightless)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "`num_epochs` or `max_steps` must be above 0"),
        ({"max_steps": -3}, "`num_epochs` or `max_steps` must be above 0"),
        ({"max_steps": 5, "accumulate": 0}, "`accumulate` must be at least 1, but is 0"),
        ({"max_steps": 5, "keep_epochs": -1}, "`keep_epochs` must not be negative"),
        (
            {"num_epochs": 5, "schedule": ScheduleConfig(decay_fraction=0.5)},
            "`schedule.decay_fraction` needs `max_steps`",
        ),
    ],
)
def test_settings_are_checked(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FitConfig(**bad)
