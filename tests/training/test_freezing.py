"""What is frozen stays as it is to the bit, costs nothing, and does nothing that only training
does.
"""

from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from torch import nn

from dualasr_lib.core import checkpoint as checkpoints
from dualasr_lib.core.weights import load_weights
from dualasr_lib.training.freezing import Frozen, check_prefixes, is_under

LAST = [str(number) for number in (0, 1)]  # linear layer and batch normalisation of the tiny model


def newest(directory: Path) -> checkpoints.Checkpoint:
    path = checkpoints.newest(directory)
    assert path is not None
    return checkpoints.load(path)


@pytest.mark.parametrize("optimizer", ["scaled_adam", "adamw"])
def test_frozen_weights_stay_to_the_bit_and_have_no_state(tmp_path: Path, optimizer: Any) -> None:
    before = tiny_run.tiny_model().state_dict()
    optim = tiny_run.OptimConfig(name=optimizer)
    tiny_run.tiny_fit(tmp_path, freeze=("0", "1"), optim=optim, max_steps=15)
    after = newest(tmp_path)
    for name, value in before.items():
        frozen = name.split(".")[0] in LAST  # statistics of the normalisation, too
        assert torch.equal(after.model[name], value) == frozen, name
    state = after.training["optimizer"]
    groups = [state["names"]] if optimizer == "adamw" else [b["names"] for b in state["batches"]]
    names = [name for group in groups for name in group]
    assert sorted(names) == ["4.bias", "4.weight"]


@pytest.mark.parametrize("avg", [1, 2])
def test_averages_hold_what_is_frozen_to_the_bit(tmp_path: Path, avg: int) -> None:
    before = tiny_run.tiny_model().state_dict()
    tiny_run.tiny_fit(tmp_path, freeze=("0",), average_period=3)
    plain, mean = (load_weights(tmp_path, None, k).state_dict for k in (0, avg))
    for name in ("0.weight", "0.bias"):
        assert torch.equal(mean[name], before[name])
    assert not torch.equal(mean["4.weight"], plain["4.weight"])


@pytest.mark.parametrize("stop_at", [2, 8, 13, 20])
def test_a_resume_is_exact(tmp_path: Path, stop_at: int) -> None:
    def on_step(step: int) -> None:
        if step == stop_at:
            raise InterruptedError

    settings: dict[str, Any] = {"freeze": ("0",), "max_steps": 25}
    tiny_run.tiny_fit(tmp_path / "whole", **settings)
    with pytest.raises(InterruptedError):
        tiny_run.tiny_fit(tmp_path / "parts", on_step=on_step, **settings)
    tiny_run.tiny_fit(tmp_path / "parts", **settings)
    whole, parts = newest(tmp_path / "whole"), newest(tmp_path / "parts")
    assert all(torch.equal(parts.model[name], value) for name, value in whole.model.items())


def test_a_run_cannot_thaw(tmp_path: Path) -> None:
    tiny_run.tiny_fit(tmp_path, freeze=("0",), max_steps=3)
    with pytest.raises(ValueError, match=r"`training.freeze` .*is \[\] and was \['0'\].*init-from"):
        tiny_run.tiny_fit(tmp_path, max_steps=5)
    tiny_run.tiny_fit(tmp_path, freeze=("0",), max_steps=5)


def test_nothing_to_train_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one trainable parameter"):
        tiny_run.tiny_fit(tmp_path / "all", freeze=("0", "1", "4"))

    class Unused(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self[0](x)

    with pytest.raises(ValueError, match=r"the loss must depend on some parameter .*freeze less"):
        tiny_run.tiny_fit(tmp_path, model=Unused(nn.Linear(5, 1), nn.Linear(5, 1)), freeze=("0",))


def test_only_what_is_frozen_as_a_whole_leaves_training_mode() -> None:
    inner = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    model = nn.ModuleDict({"a": inner, "b": nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))})
    frozen = Frozen(model, ["a", "b.0.bias"])
    model.eval()
    frozen.train()
    modes = {name: module.training for name, module in model.named_modules()}
    assert {name for name, mode in modes.items() if not mode} == {"a", "a.0", "a.1"}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"b.0.weight"}
    assert frozen.describe() == "0.0 of 0.0 M values: a, b.0.bias"


def test_parts_that_are_frozen_bit_by_bit_are_whole_too() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    Frozen(model, ["a.weight", "a.bias"]).train()
    assert not model["a"].training and model["b"].training


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("subsampling", "'encoders.streaming.subsampling'"),
        ("encoders.streming", "'encoders.streaming'"),
        ("encoders.streaming.subsampl", "'encoders.streaming.subsampling'"),
        ("", "there are encoders, heads"),
        ("xyz", "there are encoders, heads"),
    ],
)
def test_a_prefix_of_nothing_is_an_error_that_names_the_nearest(prefix: str, expected: str) -> None:
    names = ["encoders.streaming.subsampling.weight", "encoders.full.weight", "heads.ctc.weight"]
    with pytest.raises(ValueError, match="nothing is called") as caught:
        check_prefixes("training.freeze", [prefix], names)
    assert expected in str(caught.value)
    check_prefixes("training.freeze", ["encoders.full", "heads.ctc.weight"], names)


def test_prefixes_are_whole_parts_of_names() -> None:
    assert is_under("a.b.c", ["x", "a.b"]) and is_under("a.b", ["a.b"])
    assert not is_under("a.bc", ["a.b"]) and not is_under("a", ["a.b"]) and not is_under("a", [])
