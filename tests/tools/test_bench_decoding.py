"""tools/bench_decoding.py: complete output, equal arcs, verdicts that can fail, refusals."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("k2")

import bench_decoding
from bench.posteriors import describe, log_probs, write_bigram
from bench.report import Row, cells
from bench_tiny import write_tiny

from dualasr_lib.lattice.ngram import NgramLm


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Runs the program on a tiny model and vocabulary; returns its rows."""
    report = tmp_path / "out.json"
    options = ["--config", write_tiny(tmp_path), "--vocab", 40, "--rounds", 1, "--minutes", 2]

    def start(*arguments: object) -> list[dict[str, Any]]:
        words = ["bench_decoding.py", *options, "--json", report, *arguments]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        bench_decoding.main()
        rows: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["rows"]
        return rows

    return start


def test_lattices_have_the_arcs_of_k2(run: Callable[..., list[dict[str, Any]]]) -> None:
    rows = {row["what"]: row for row in run("--only", "lattice")}
    assert rows["arcs, difference"]["passed"] is True
    assert rows["total score, difference"]["passed"] is True
    for name in ("lattice", "1best", "k2, full topology"):
        assert rows[name]["value"] > 0


def test_streams_and_second_pass_are_measured(
    run: Callable[..., list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run("--only", "online", "second-pass")
    names = [row["what"] for row in rows]
    ratios = ("1best, chunks / at once", "hlg, chunks / at once", "attention / encoder")
    for name in (*ratios, "confidence, a chunk"):
        assert names.count(name) == 1
    judged = [row for row in rows if row["at_most"] is not None]
    assert len(judged) == 6
    for name in ("plain, worst end", "begun early, worst end", "begun before the endpoint"):
        assert names.count(name) == 1
    for row in judged:
        assert row["passed"] == (row["value"] <= row["at_most"])
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(rows)


def test_a_long_stream_is_cut_into_tenths(run: Callable[..., list[dict[str, Any]]]) -> None:
    rows = run("--only", "hour", "transducer-hour")
    searches = ("transducer-greedy", "transducer-beam", "fast-beam")
    transducers = [name for name in searches for _ in range(5)]
    assert [r["what"].split(",")[0] for r in rows] == ["1best"] * 3 + ["hlg"] * 3 + transducers
    for first in (0, 3, 6, 11, 16):
        start, end, ratio = rows[first : first + 3]
        assert ratio["value"] == pytest.approx(end["value"] / start["value"])
    assert rows[10]["value"] == 0 < rows[15]["value"] < 20 < rows[20]["value"] < 100


def test_steps_are_the_models_and_the_searches(run: Callable[..., list[dict[str, Any]]]) -> None:
    rows = {row["what"]: row for row in run("--only", "transducer-step")}
    model, ctc = (rows[name]["value"] for name in ("encoder and heads", "1best (CTC)"))
    for name in ("transducer-greedy", "transducer-beam", "fast-beam"):
        ratio = rows[f"step with {name} / step with 1best"]
        assert ratio["value"] == pytest.approx((model + rows[name]["value"]) / (model + ctc))
        assert (ratio["at_most"] is None) == (name != "transducer-beam")


def test_transducers_are_searched_by_all(run: Callable[..., list[dict[str, Any]]]) -> None:
    """Ours and k2's say what the frames are made of; targets are for large vocabularies."""
    rows = {row["what"]: row["value"] for row in run("--only", "transducer")}
    for name in (
        "transducer-greedy",
        "transducer-beam, beam=4",
        "k2, beam 4, states 32, contexts 4",
    ):
        assert rows[f"{name}, N=10"] > 0 < rows[f"{name}, N=1"]
        assert rows[f"{name}, utterances of 10 without any error"] >= 8
    assert rows["transducer-beam, beam=4, in chunks, N=1"] > 0
    assert 1.0 < rows["sureness: hypotheses per frame, of 4"] <= 4.0


def test_refusals(run: Callable[..., list[dict[str, Any]]]) -> None:
    for option, message in (("--rounds", "rounds"), ("--minutes", "minutes"), ("--vocab", "vocab")):
        with pytest.raises(ValueError, match=message):
            run(option, 0)


def test_posteriors_are_as_described() -> None:
    frames = log_probs(500, 60, seed=3)
    assert frames.exp().sum(dim=1).allclose(frames.new_ones(500), atol=1e-4)
    blank = float((frames.argmax(dim=1) == 0).float().mean())
    assert 0.6 < blank < 0.85
    assert f"{100 * blank:.0f} % of frames" in describe(frames, 8.0)
    assert frames.equal(log_probs(500, 60, seed=3)) and not frames.equal(log_probs(500, 60, seed=4))


def test_the_bigram_is_a_distribution(tmp_path: Path) -> None:
    symbols = write_bigram(tmp_path / "lm.arpa", 12, per_token=3, seed=0)
    lm = NgramLm.load(tmp_path / "lm.arpa", symbols)
    assert lm.order == 2 and sorted(symbols.values()) == list(range(1, 12))


def test_a_miss_is_said() -> None:
    assert cells(Row("a", "b", 2.0, at_most=1.0))[-1] == "MISS"
