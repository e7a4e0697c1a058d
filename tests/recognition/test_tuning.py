"""Scales: tuned once, kept, used again, tuned anew when something changed, and never on other data
than `valid`; with a fake method.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from dualasr_lib.decoding.hypothesis import ScoredText
from dualasr_lib.decoding.offline import Heard
from dualasr_lib.decoding.rescoring import NbestCandidates, Proposals, Scales, rescored
from dualasr_lib.recognition.methods.method import OfflineMethod
from dualasr_lib.recognition.tuning import NoScalesError, TuningData, scales_for

GRID = (Scales(), Scales(lm=0.5), Scales(lm=1.0), Scales(lm=2.0))
TEXTS = (
    ScoredText((1,), {"ctc": -1.0, "lm": -3.0}),
    ScoredText((2,), {"ctc": -2.0, "lm": -2.0}),
)  # equal at lm=1


class FakeBatch(NamedTuple):
    ids: tuple[str, ...] = ("a",)
    texts: tuple[str, ...] = ("い",)


class Valid:
    """Split `valid`, and a count of how often it was read."""

    def __init__(self, fingerprint: str | None = "of valid") -> None:
        self.reads = 0
        self.fingerprint = fingerprint

    def batches(self) -> Iterator[FakeBatch]:
        self.reads += 1
        yield FakeBatch()

    @property
    def data(self) -> TuningData:
        return TuningData(self.batches, _hear, _detokenise, self.fingerprint)


def _hear(batch: FakeBatch) -> Heard:
    return Heard({"ctc": torch.zeros(1, 1, 3)}, torch.ones(1, dtype=torch.int64), texts=batch.texts)


def _detokenise(tokens: Sequence[int]) -> str:
    return "".join("_あい"[token] for token in tokens)


def method(**params: Any) -> OfflineMethod:
    def propose(heard: Heard) -> Proposals:
        return Proposals([NbestCandidates(TEXTS, lambda tokens: (0,))], 0)

    return OfflineMethod(params, lambda scales: rescored(propose, scales), propose, GRID)


MODEL = {"model": "epoch 3", "left_frames": 32}


def test_tuned_once_then_read(tmp_path: Path) -> None:
    valid = Valid()
    first = scales_for(method(beam=8.0, sizes=(1, 2)), tmp_path / "scales.json", MODEL, valid.data)
    assert first == (Scales(lm=2.0), "tuned on valid")
    assert valid.reads == 1
    again = scales_for(method(beam=8.0, sizes=(1, 2)), tmp_path / "scales.json", MODEL, valid.data)
    assert again == (Scales(lm=2.0), "scales/scales.json, tuned on valid")
    assert valid.reads == 1


def test_the_file_says_what_was_tried(tmp_path: Path) -> None:
    scales_for(method(beam=8.0), tmp_path / "new" / "scales.json", MODEL, Valid().data)
    kept = json.loads((tmp_path / "new" / "scales.json").read_text(encoding="utf-8"))
    assert kept["scales"] == {"lm": 2.0}
    assert kept["tuned_on"] == "valid"
    assert kept["made_for"] == {**MODEL, "beam": 8.0, "valid": "of valid"}
    assert [(point["lm"], point["cer"]) for point in kept["grid"]] == [
        (0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (2.0, 0.0),
    ]  # fmt: skip
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scales.json"]


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ({**MODEL, "model": "epoch 4"}, {"beam": 8.0, "lm": "G.arpa 01"}),
        ({"model": "epoch 3"}, {"beam": 8.0, "lm": "G.arpa 01"}),
        (MODEL, {"beam": 9.0, "lm": "G.arpa 01"}),
        (MODEL, {"beam": 8.0, "lm": "G.arpa 02"}),
        (MODEL, {"beam": 8.0}),
    ],
)
def test_tuned_again_when_something_changed(
    tmp_path: Path, model: dict[str, Any], params: dict[str, Any]
) -> None:
    valid = Valid()
    scales_for(method(beam=8.0, lm="G.arpa 01"), tmp_path / "scales.json", MODEL, valid.data)
    other = scales_for(method(**params), tmp_path / "scales.json", model, valid.data)
    assert other.source == "tuned on valid"
    assert valid.reads == 2
    assert scales_for(
        method(**params), tmp_path / "scales.json", model, valid.data
    ).source.startswith("scales/")
    assert valid.reads == 2


def test_given_scales_are_taken_and_not_kept(tmp_path: Path) -> None:
    valid = Valid()
    given = scales_for(method(), tmp_path / "scales.json", MODEL, valid.data, {"lm": 0.3})
    assert given == (Scales(lm=0.3), "given")
    assert list(tmp_path.iterdir()) == []
    scales_for(method(), tmp_path / "scales.json", MODEL, valid.data)
    before = (tmp_path / "scales.json").read_bytes()
    scales_for(method(), tmp_path / "scales.json", MODEL, valid.data, {"lm": 0.3})
    assert (tmp_path / "scales.json").read_bytes() == before
    assert valid.reads == 1


def test_another_grid_is_tuned_again(tmp_path: Path) -> None:
    valid = Valid()
    scales_for(method(), tmp_path / "scales.json", MODEL, valid.data)
    wider = method()._replace(grid=(*GRID, Scales(lm=4.0)))
    assert scales_for(wider, tmp_path / "scales.json", MODEL, valid.data).source == "tuned on valid"
    assert valid.reads == 2


def test_a_method_without_scales(tmp_path: Path) -> None:
    valid = Valid()
    plain = OfflineMethod({}, method().search)
    assert scales_for(plain, tmp_path / "scales.json", MODEL, valid.data) == (
        Scales(),
        "none to choose",
    )
    assert (valid.reads, list(tmp_path.iterdir())) == (0, [])


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"made_for": {}, "scales": 3}', '{"made_for": {}, "scales": {"x": 1}}']
    + ['{"made_for": {}, "scales": {"lm": -1.0, "attention": 0.0}}', '{"scales": {"lm": 1.0}}'],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "scales.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"scales\.json is damaged .* remove it"):
        scales_for(method(), tmp_path / "scales.json", MODEL, Valid().data)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "scales.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"scales\.json is damaged"):
        scales_for(method(), tmp_path / "scales.json", MODEL, Valid().data)


def test_other_validation_data_are_tuned_on_again(tmp_path: Path) -> None:
    path = tmp_path / "scales.json"
    scales_for(method(), path, MODEL, Valid().data)
    other = Valid("of other data")
    assert scales_for(method(), path, MODEL, other.data).source == "tuned on valid"
    assert other.reads == 1


def test_kept_scales_serve_where_there_is_no_validation_set(tmp_path: Path) -> None:
    path, nothing = tmp_path / "scales.json", Valid(None)
    with pytest.raises(
        ValueError, match=r"no split valid to tune them on, or an empty one: give --scales"
    ):
        scales_for(method(), path, MODEL, nothing.data)
    scales_for(method(), path, MODEL, Valid().data)
    found = scales_for(method(), path, MODEL, nothing.data)
    assert found == (Scales(lm=2.0), "scales/scales.json, tuned on valid")
    with pytest.raises(ValueError, match=r"no split valid"):  # of another model they are none
        scales_for(method(), path, {**MODEL, "model": "epoch 4"}, nothing.data)
    assert nothing.reads == 0


BROUGHT = {"scales": {"lm": 0.5}, "made_for": {**MODEL, "beam": 8.0, "valid": "far away"}}


def test_scales_that_came_with_the_model(tmp_path: Path) -> None:
    """They serve whatever `valid` is, before what is kept, and a newer program's options too."""
    valid, path = Valid(), tmp_path / "scales.json"
    scales_for(method(beam=8.0), path, MODEL, valid.data)
    for params in ({"beam": 8.0}, {"beam": 8.0, "new": True}):
        for data in (valid.data, Valid(None).data):
            found = scales_for(method(**params), path, MODEL, data, brought=[BROUGHT])
            assert found == (Scales(lm=0.5), "of the bundle, tuned on valid")
    assert valid.reads == 1
    given = scales_for(method(beam=8.0), path, MODEL, valid.data, {"lm": 0.3}, [BROUGHT])
    assert given.source == "given"


@pytest.mark.parametrize(
    ("params", "brought"),
    [
        ({"beam": 9.0}, BROUGHT),
        ({"beam": 8.0}, {**BROUGHT, "made_for": {**MODEL, "left_frames": 64}}),
        ({"beam": 8.0}, {**BROUGHT, "scales": {"attention": 1.0}}),
        ({"beam": 8.0}, {**BROUGHT, "scales": {"lm": 0.5, "attention": 1.0}}),
    ],
)
def test_scales_of_something_else_do_not_serve(
    params: dict[str, Any], brought: dict[str, Any]
) -> None:
    with pytest.raises(NoScalesError, match="the bundle holds none"):
        scales_for(method(**params), None, MODEL, Valid(None).data, brought=[brought])
    tuned = scales_for(method(**params), None, MODEL, Valid().data, brought=[brought])
    assert tuned == (Scales(lm=2.0), "tuned on valid")  # and kept nowhere


@pytest.mark.parametrize("brought", [{}, {"scales": 3, "made_for": {}}, {"scales": {"lm": -1}}])
def test_damaged_scales_of_a_bundle(brought: dict[str, Any]) -> None:
    kept = {"made_for": {}, **brought}
    with pytest.raises(ValueError, match="scales that came with the model are damaged"):
        scales_for(method(), None, MODEL, Valid().data, brought=[kept])
