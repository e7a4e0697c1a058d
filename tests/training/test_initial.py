"""Trained weights go into a model where they fit; what does not fit is said in few lines."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dualasr_lib.core.files import file_hash
from dualasr_lib.training.fit_config import InitialConfig
from dualasr_lib.training.folding import Fold, fold
from dualasr_lib.training.initial import recorded, resumed, take
from dualasr_lib.training.state import check_same_configs


def model(width: int = 3, seed: int = 0) -> nn.ModuleDict:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))
    return nn.ModuleDict({"body": body, "head": nn.Sequential(nn.Linear(4, width))})


def test_what_fits_is_taken_and_the_rest_is_named() -> None:
    ours, theirs = model(5, seed=1), model(3, seed=2)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    given = {**theirs.state_dict(), "tail.weight": torch.ones(2), "step": torch.tensor(3)}
    given["body.0.weight"] = given["body.0.weight"].half()
    taken = take(ours, given, [], {})
    assert taken.anew == ("head",)
    assert taken.report == (
        "took 7 of 9 tensors, 0.0 of 0.0 M values",
        "starts anew: head (2 tensors): another shape",
        "not used: tail (1 tensor)",
    )
    for name, value in ours.state_dict().items():
        expected = before[name] if name.startswith("head") else given[name]
        assert torch.equal(value, expected.to(value.dtype)), name
    assert all(p.requires_grad and p.dtype == torch.float32 for p in ours.parameters())


def test_what_shall_start_anew_does() -> None:
    ours, theirs = model(seed=1), model(seed=2)
    taken = take(ours, theirs.state_dict(), ["body.1"], {"head": "it is another one"})
    assert taken.anew == ("body.1", "head")
    assert taken.report[1:] == (
        "starts anew: body.1 (5 tensors): as asked for",
        "starts anew: head (2 tensors): it is another one",
    )
    assert torch.equal(ours["body"][0].weight, theirs["body"][0].weight)
    assert not torch.equal(ours["head"][0].weight, theirs["head"][0].weight)


def test_a_part_of_a_module_is_no_module_that_starts_anew() -> None:
    theirs = model(seed=2).state_dict()
    del theirs["head.0.bias"]
    taken = take(model(), theirs, [], {})
    assert taken.anew == ()
    assert taken.report[1:] == ("starts anew: head.0.bias (1 tensor): not in the file",)


def test_nothing_that_fits_and_no_such_part_are_refused() -> None:
    with pytest.raises(ValueError, match=r"none of its 1 tensors fits this model \(body.0.weight"):
        take(model(), {"x": torch.ones(1)}, [], {})
    with pytest.raises(ValueError, match=r"initial.anew .* called 'haed'; did you mean 'head'"):
        take(model(), model().state_dict(), ["haed"], {})


def test_many_names_become_few_lines() -> None:
    every = [f"a.{i}.{j}.w" for i in range(10) for j in range(4)] + ["b.w"]
    assert fold(every, every) == {"a": Fold(40, 40), "b": Fold(1, 1)}
    assert fold(["a.3.1.w"], every) == {"a.3.1": Fold(1, 1)}
    some = [name for name in every if ".2.w" not in name]  # 30 complete ones, in 10 groups
    assert fold(some, every) == {
        **{f"a.{i}": Fold(3, 4) for i in range(10)}, "b": Fold(1, 1),
    }  # fmt: skip
    assert fold(some, every, limit=3) == {"a": Fold(30, 40), "b": Fold(1, 1)}
    assert [str(f) for f in fold(some, every, limit=3).values()] == ["30 of 40 tensors", "1 tensor"]
    assert fold([], every) == {}


def test_a_run_goes_on_with_what_it_began_with(tmp_path: Path) -> None:
    path, other = tmp_path / "a.pt", tmp_path / "b.pt"
    path.write_bytes(b"a")
    other.write_bytes(b"b")
    begun = recorded(InitialConfig(path=str(path)))
    assert (begun.path, begun.hash) == ("a.pt", file_hash(path))  # no folder of this machine
    own = InitialConfig(path=str(path), warm_up_done=0.5)
    for config in (own, InitialConfig(warm_up_done=0.5)):
        assert resumed(begun, config) == InitialConfig(
            path=begun.path, hash=begun.hash, warm_up_done=0.5
        )
    with pytest.raises(ValueError, match=r"began with those of .*a.pt \(hash ca978.*b.pt: leave"):
        resumed(begun, InitialConfig(path=str(other)))
    with pytest.raises(ValueError, match=r"began with random weights, not with those of .*b.pt"):
        resumed(InitialConfig(), InitialConfig(path=str(other)))
    path.unlink()
    assert resumed(begun, own).hash == begun.hash  # it is not needed any more
    older = replace(begun, path=f"/somewhere/{begun.path}")
    assert resumed(older, own).hash == begun.hash
    with pytest.raises(ValueError, match="began with those of"):
        resumed(begun, InitialConfig(path=str(tmp_path / "c.pt")))  # gone, and another's name
    path.write_bytes(b"c")
    with pytest.raises(ValueError, match="began with those of"):
        resumed(begun, own)


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="but is a folder"):
        recorded(InitialConfig(path=str(tmp_path)))
    with pytest.raises(ValueError, match=r"x.pt does not exist"):
        recorded(InitialConfig(path=str(tmp_path / "x.pt")))
    (tmp_path / "a.pt").write_bytes(b"a")
    with pytest.raises(ValueError, match=r"must have the hash 0123 \(initial.hash\), but has ca9"):
        recorded(InitialConfig(path=str(tmp_path / "a.pt"), hash="0123"))


@pytest.mark.parametrize("values", [{"warm_up_done": -0.1}, {"hash": "0123"}])
def test_settings_that_cannot_be(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        InitialConfig(**values)  # type: ignore[arg-type]


def test_ranks_that_begin_in_another_way_are_told() -> None:
    one = {"initial": {"path": "/a/x.pt", "hash": "12"}, "training": {"freeze": ("a",)}}
    same = {"initial": {"path": "/b/x.pt", "hash": "12"}, "training": {"freeze": ["a"]}}
    check_same_configs([one])
    check_same_configs([one, same])
    with pytest.raises(ValueError, match=r"initial.hash is '12' on rank 0 and '34' on rank 2"):
        check_same_configs([one, same, {**same, "initial": {"path": "/b/x.pt", "hash": "34"}}])
    with pytest.raises(
        ValueError, match=r"training.freeze is \['a'\] on rank 0 and None on rank 1"
    ):
        check_same_configs([one, {**same, "training": {}}])
