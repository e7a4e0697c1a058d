"""A model in one file: what is written comes back, and a file that lacks a part is refused."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from dualasr_lib.core.container import Container, ContainerError, read_container, write_container
from dualasr_lib.recognition.bundle import Bundle, is_bundle, read_bundle, write_bundle

FULL = Bundle(
    weights={"heads.ctc.weight": torch.randn(4, 3), "encoder.steps": torch.tensor(7)},
    config={"model": {"branches": ["streaming", "full"]}, "chunk": {"ms": 320}},
    tokenizer=b"\x0a\x00\xff",
    tokens="<blk> 0\n<sos/eos> 1\nあ 2\n",
    source="epoch-3.pt, mean over epochs (1, 3]",
    corpus="csj",
    language="ja",
    normaliser="csj-disfluent",
    units=["character", "word"],
    endpoint={"pause_seconds": 0.6, "max_seconds": float("inf")},
    scales={"full-attention": {"scales": {"attention": 1.0}, "grid": [], "made_for": {}}},
    calibration={"full-1best": {"calibration": {"slope": 1.0}, "made_for": {}}},
    lms={"G_2gram.arpa": b"two", "G_3gram.arpa": b"three"},
    lexicon=("lexicon.txt", "あ あ\n".encode()),
    licence="Apache-2.0",
    card={"limits": "monologues", "results": [{"cer": 0.1, "cer_ci95": [0.09, 0.11]}]},
)
LEAST = Bundle(weights={}, config={}, tokenizer=b"", tokens="", source="")


@pytest.mark.parametrize("bundle", [FULL, LEAST], ids=["full", "least"])
def test_what_was_written_comes_back(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "x.dualasr"
    write_bundle(bundle, path)
    found = read_bundle(path)
    assert is_bundle(path)
    assert found.weights.keys() == bundle.weights.keys()
    for name, value in bundle.weights.items():
        assert torch.equal(found.weights[name], value)
    same = {field.name for field in fields(Bundle)} - {"weights", "units"}
    for name in same:
        assert getattr(found, name) == getattr(bundle, name), name
    assert list(found.units) == list(bundle.units)


def test_half_precision_is_kept(tmp_path: Path) -> None:
    half = {name: value.half() for name, value in FULL.weights.items()}
    write_bundle(replace(FULL, weights=half), tmp_path / "x.dualasr")
    found = read_bundle(tmp_path / "x.dualasr").weights
    assert {value.dtype for value in found.values()} == {torch.float16}


@pytest.mark.parametrize("part", ["config", "tokens", "scales", "card", "sentencepiece.model"])
def test_a_file_that_lacks_a_part_is_refused(part: str, tmp_path: Path) -> None:
    path = tmp_path / "x.dualasr"
    write_bundle(FULL, path)
    whole = read_container(path)
    plain = {name: value for name, value in whole.plain.items() if name != part}
    files = {name: value for name, value in whole.files.items() if name != part}
    write_container(path, Container(plain, whole.tensors, files))
    with pytest.raises(ContainerError, match=rf"x\.dualasr must hold a {part}, but has none"):
        read_bundle(path)
