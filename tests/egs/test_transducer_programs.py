"""Every search of a transducer in decode.py and streaming_decode.py: models have just one."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("lhotse")
pytest.importorskip("_kaldifeat")
pytest.importorskip("k2")
pytest.importorskip("kaldingram")
pytest.importorskip("sentencepiece")

import torch
from random_experiment import experiment, recogs_of, summary_of

from dualasr_lib.core.checkpoint import load, save
from dualasr_lib.core.program import run_program
from dualasr_lib.recognition.methods.registry import METHODS
from egs.csj import decode, streaming_decode

TRANSDUCER = [name for name, method in METHODS.items() if method.heads[0] == "transducer"]
Program = Callable[..., None]


@pytest.fixture(scope="module")
def exp(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of random weights."""
    return experiment(data, tmp_path_factory.mktemp("random") / "exp", ("transducer",))


@pytest.fixture
def run(data: Path, exp: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Runs a program on split eval1 of the tiny data."""

    def call(module: ModuleType, *options: object) -> None:
        arguments = ["--exp-dir", exp, "--data-dir", data, "--split", "eval1"]
        words = [*arguments, "--device", "cpu", *options]
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, words)])
        run_program(module.main)

    return call


@pytest.mark.parametrize("method", TRANSDUCER)
def test_transducers_search_both_branches_and_streams(
    run: Program, data: Path, exp: Path, method: str
) -> None:
    """Chunk by chunk they say what they say of whole utterances."""
    run(decode, "--branch", "streaming", "full", "--method", method)
    found = [exp / "decode" / f"{branch}-{method}" for branch in ("streaming", "full")]
    for folder in found:
        summary = summary_of(folder)
        assert summary["num_utterances"] == 24
        assert len({tuple(item.hyp) for item in recogs_of(folder)}) > 20
    assert recogs_of(found[0]) != recogs_of(found[1])
    if METHODS[method].lists_texts:
        run(decode, "--branch", "full", "--method", method, "--write-nbest")
        lists = json.loads((found[1] / "nbest-eval1.json").read_text(encoding="utf-8"))
        recogs = {item.id: "".join(item.hyp) for item in recogs_of(found[1])}
        assert {name: texts[0]["text"] for name, texts in lists.items()} == recogs
        for texts in lists.values():
            assert all(text["total"] == pytest.approx(text["transducer"]) for text in texts)
    if METHODS[method].lm == "optional":
        arpa = min((data / "lang").glob("G_*gram.arpa"))
        lm = ("--lm", arpa, "--scales", "lm=0.7", "--beam", "beam=2")
        run(decode, "--branch", "full", "--method", method, *lm)
        (folder,) = (exp / "decode").glob(f"full-{method}-lm-*")
        assert summary_of(folder)["params"]["scales"] == {"lm": 0.7}
        assert recogs_of(folder) != recogs_of(found[1])
    if METHODS[method].stream is None:
        return
    run(streaming_decode, "--method", method, "--num-streams", 5)
    online = exp / "decode" / f"streaming-online-{method}-streams5"
    same = [a == b for a, b in zip(recogs_of(found[0]), recogs_of(online))]
    assert sum(same) >= 12  # stored features are compressed, those of streams are not
    assert summary_of(online)["cer"] == pytest.approx(summary_of(found[0])["cer"], rel=0.05)


ONLY = 'scores=["transducer"]'


def test_a_second_pass_rescores_by_the_transducer(run: Program, exp: Path) -> None:
    """Among the first pass's texts, too; without time its text stands, which is counted."""
    streams = ("--method", "transducer-beam", "--num-streams", 5)
    run(streaming_decode, *streams)
    first = recogs_of(exp / "decode" / "streaming-online-transducer-beam-streams5")
    lists = 'lists=["transducer-beam","first-pass"]'
    second = ("--two-pass", "--second-method", "rescore", "--second-beam", lists, ONLY)
    run(streaming_decode, *streams, *second)
    run(streaming_decode, *streams, *second, "--second-budget-ms", 0.000001)
    plain, hurried = sorted(
        (exp / "decode").glob("full-two-pass-second=rescore-*"), key=lambda p: len(p.name)
    )
    assert "second_budget_ms=1e-06" in hurried.name
    assert summary_of(plain)["second_pass_left_out"] == {}
    assert summary_of(hurried)["second_pass_left_out"] == {"stacks": 24}
    assert recogs_of(hurried) == first != recogs_of(plain)
    run(decode, "--branch", "full", "--method", "rescore", "--beam", lists, ONLY)
    (whole,) = (exp / "decode").glob("full-rescore-*")
    listed = {item.id: item.hyp for item in recogs_of(whole)}
    same = [listed[item.id] == item.hyp for item in recogs_of(plain)]
    assert sum(same) >= 12  # the first pass adds texts, and stored features are compressed


ARPA = """\\data\\
ngram 1=3

\\1-grams:
-99\t<s>
-1.0\t</s>
-0.5\tЖ

\\end\\
"""


@pytest.mark.parametrize("method", ["transducer-beam", "fast-beam"])
@pytest.mark.parametrize(
    ("lexicon", "message"),
    [(None, "1 words are not among the symbols: 'Ж'"), ("Ж Ж\n", "'Ж' in the spelling of 'Ж' is")],
)
def test_a_language_of_another_vocabulary_is_one_line(
    run: Program,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    method: str,
    lexicon: str | None,
    message: str,
) -> None:
    (tmp_path / "other.arpa").write_text(ARPA, encoding="utf-8")
    options = ["--method", method, "--lm", tmp_path / "other.arpa"]
    if lexicon is not None:
        (tmp_path / "lexicon.txt").write_text(lexicon, encoding="utf-8")
        options += ["--lexicon", tmp_path / "lexicon.txt"]
    assert message in refused(run, capfd, decode, "--branch", "full", *options)


@pytest.mark.parametrize("method", TRANSDUCER)
def test_a_model_that_says_nan_is_one_line(
    run: Program, exp: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], method: str
) -> None:
    """Nothing is written under the name of a result."""
    (path,) = exp.glob("*.pt")
    broken = load(path)
    start = "heads.transducer.streaming."
    (bias,) = (n for n in broken.model if n.startswith(start) and n.endswith("encoder.bias"))
    broken.model[bias][3] = torch.nan
    save(broken, tmp_path / path.name)
    for module, more in ((decode, ("--branch", "streaming")), (streaming_decode, ())):
        line = refused(run, capfd, module, *more, "--method", method, "--exp-dir", tmp_path)
        assert "must be finite" in line and "NaN" in line
    assert not list(tmp_path.glob("decode/*/*"))


def refused(
    run: Program, capfd: pytest.CaptureFixture[str], module: ModuleType, *options: object
) -> str:
    """The one line that a program ends with."""
    with pytest.raises(SystemExit) as stop:
        run(module, *options)
    assert stop.value.code == 1
    *_, line = capfd.readouterr().err.splitlines()
    assert line.startswith(f"{module.__name__}.py: error: ")
    return line
