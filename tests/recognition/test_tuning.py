"""Scales: tuned once, kept, used again, tuned anew when something changed, and never on other data
than `valid`; with a fake method.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("sentencepiece")  # `searches` knows tokenizers, through `language`

import torch

from dualasr_lib.decoding.hypothesis import ScoredText
from dualasr_lib.decoding.offline import Heard
from dualasr_lib.decoding.rescoring import NbestCandidates, Proposals, Scales, rescored
from dualasr_lib.recognition.searches import OfflineMethod
from dualasr_lib.recognition.tuning import TuningData, parse_scales, scales_for

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

    def __init__(self) -> None:
        self.reads = 0

    def batches(self) -> Iterator[FakeBatch]:
        self.reads += 1
        yield FakeBatch()

    @property
    def data(self) -> TuningData:
        return TuningData(self.batches, _hear, _detokenise)


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
    first = scales_for(method(beam=8.0, sizes=(1, 2)), tmp_path, MODEL, valid.data)
    assert first == (Scales(lm=2.0), "tuned on valid")
    assert valid.reads == 1
    again = scales_for(method(beam=8.0, sizes=(1, 2)), tmp_path, MODEL, valid.data)
    assert again == (Scales(lm=2.0), "scales.json, tuned on valid")
    assert valid.reads == 1


def test_the_file_says_what_was_tried(tmp_path: Path) -> None:
    scales_for(method(beam=8.0), tmp_path / "new", MODEL, Valid().data)
    kept = json.loads((tmp_path / "new" / "scales.json").read_text(encoding="utf-8"))
    assert kept["scales"] == {"lm": 2.0}
    assert kept["tuned_on"] == "valid"
    assert kept["made_for"] == {**MODEL, "beam": 8.0}
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
    scales_for(method(beam=8.0, lm="G.arpa 01"), tmp_path, MODEL, valid.data)
    other = scales_for(method(**params), tmp_path, model, valid.data)
    assert other.source == "tuned on valid"
    assert valid.reads == 2
    assert scales_for(method(**params), tmp_path, model, valid.data).source.startswith(
        "scales.json"
    )
    assert valid.reads == 2


def test_given_scales_are_taken_and_not_kept(tmp_path: Path) -> None:
    valid = Valid()
    given = scales_for(method(), tmp_path, MODEL, valid.data, {"lm": 0.3})
    assert given == (Scales(lm=0.3), "given")
    assert list(tmp_path.iterdir()) == []
    scales_for(method(), tmp_path, MODEL, valid.data)
    before = (tmp_path / "scales.json").read_bytes()
    scales_for(method(), tmp_path, MODEL, valid.data, {"lm": 0.3})
    assert (tmp_path / "scales.json").read_bytes() == before
    assert valid.reads == 1


@pytest.mark.parametrize("given", [{}, {"attention": 1.0}, {"lm": 1.0, "attention": 1.0}])
def test_given_scales_are_just_those_that_are_weighed(
    tmp_path: Path, given: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match="scales must be given for lm, which"):
        scales_for(method(), tmp_path, MODEL, Valid().data, given)


def test_another_grid_is_tuned_again(tmp_path: Path) -> None:
    valid = Valid()
    scales_for(method(), tmp_path, MODEL, valid.data)
    wider = method()._replace(grid=(*GRID, Scales(lm=4.0)))
    assert scales_for(wider, tmp_path, MODEL, valid.data).source == "tuned on valid"
    assert valid.reads == 2


def test_a_method_without_scales(tmp_path: Path) -> None:
    valid = Valid()
    plain = OfflineMethod({}, method().search)
    assert scales_for(plain, tmp_path, MODEL, valid.data) == (Scales(), "none to choose")
    assert (valid.reads, list(tmp_path.iterdir())) == (0, [])
    with pytest.raises(ValueError, match="takes no scales"):
        scales_for(plain, tmp_path, MODEL, valid.data, {"lm": 0.3})


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"made_for": {}, "scales": 3}', '{"made_for": {}, "scales": {"x": 1}}']
    + ['{"made_for": {}, "scales": {"lm": -1.0, "attention": 0.0}}', '{"scales": {"lm": 1.0}}'],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "scales.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"scales\.json is damaged .* remove it"):
        scales_for(method(), tmp_path, MODEL, Valid().data)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "scales.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"scales\.json is damaged"):
        scales_for(method(), tmp_path, MODEL, Valid().data)


def test_parse_scales() -> None:
    assert parse_scales(None) is None
    assert parse_scales(["lm=0.3", "attention=2"]) == {"lm": 0.3, "attention": 2.0}
    assert parse_scales(["attention=0"]) == {"attention": 0.0}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("ml=0.3", "scales have the names lm, ctc, attention, but 'ml' is none"),
        ("lm=much", "scale lm must be a number, but is 'much'"),
        ("lm=true", "scale lm must be a number, but is True"),
        ("lm=-1", "lm=-1.0"),
        ("lm=nan", "nan"),
        ("lm", "lm"),
    ],
)
def test_refused_scales(option: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_scales([option])
