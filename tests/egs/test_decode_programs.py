"""Every search method of decode.py and streaming_decode.py: what they write, scales that are tuned
once, and options that make no sense.

The model has random weights, so that it says many different things of noise, where one that was
trained for seconds is silent. The programs run inside the test's process: each start of Python
would take seconds.
"""

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("lhotse")
pytest.importorskip("_kaldifeat")
pytest.importorskip("k2")
pytest.importorskip("kaldingram")
pytest.importorskip("sentencepiece")

from random_experiment import experiment, recogs_of, summary_of

from dualasr_lib.core.program import run_program
from dualasr_lib.decoding.confidence_files import read_confidence
from dualasr_lib.programs import bundle
from dualasr_lib.recognition.methods.registry import METHODS
from egs.csj import decode, streaming_decode

TRANSDUCER = [name for name, method in METHODS.items() if "transducer" in method.heads]
PLAIN = [name for name in METHODS if name not in TRANSDUCER]
WEIGHTED = ("hlg", "nbest-lm", "lattice-lm", "attention")

NARROW = {
    "hlg": ("max_active=8", "max_tokens=3"),
    "lattice-lm": ("lattice.output_beam=2",),
    "nbest-lm": ("num_paths=10", "num_texts=5"),
    "attention": ("num_paths=10", "num_texts=4"),
}
"""Options that make searches quick; some must still disagree with others."""

VARIANT = {
    "hlg": "-max_active=8-max_tokens=3",
    "lattice-lm": "-lattice.output_beam=2",
    "nbest-lm": "-num_texts=5-num_paths=10",
    "attention": "-num_texts=4-num_paths=10",
}
"""What these options make of the names of results."""

Program = Callable[..., None]


@pytest.fixture(scope="module")
def exp(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of random weights."""
    return experiment(data, tmp_path_factory.mktemp("random") / "exp", ("ctc", "attention"))


@pytest.fixture
def program(data: Path, exp: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Runs a program on split eval1 of the tiny data."""

    def run(
        module: ModuleType,
        *options: object,
        split: str = "eval1",
        model: Sequence[object] = (),
    ) -> None:
        arguments = [*(model or ("--exp-dir", exp)), "--data-dir", data, "--split", split]
        words = [*arguments, "--device", "cpu", *options]
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, words)])
        run_program(module.main)

    return run


def results(exp: Path, branch: str, method: str, more: str = "") -> Path:
    """The folder of a method with its `NARROW` options."""
    return exp / "decode" / f"{branch}-{method}{VARIANT.get(method, '')}{more}"


def scales_of(exp: Path, folder: Path) -> Path:
    return exp / "scales" / f"{folder.name}.json"


def beam(method: str) -> tuple[str, ...]:
    return ("--beam", *NARROW[method]) if method in NARROW else ()


@pytest.mark.parametrize("branch", ["streaming", "full"])
def test_every_method(program: Program, exp: Path, branch: str) -> None:
    """All summaries tell of the same utterances; an oracle is no worse than its list, the greedy
    text is that of the best path, and scales beat or equal none on the data they are tuned on.
    """
    found = {}
    for method in PLAIN:
        folder = results(exp, branch, method)
        program(decode, "--branch", branch, "--method", method, *beam(method))
        summary = found[method] = summary_of(folder)
        assert [summary[key] for key in ("split", "branch", "method")] == ["eval1", branch, method]
        errors = summary["ins"] + summary["del"] + summary["sub"]
        assert summary["cer"] == pytest.approx(errors / summary["num_ref_chars"])
        assert summary["num_utterances"] == len(recogs_of(folder)) == 24
        assert summary["fallbacks"] == 0
        assert (folder / "errs-eval1.txt").stat().st_size > 0
        assert scales_of(exp, folder).is_file() == (method in WEIGHTED)
        assert summary["variant"] == VARIANT.get(method, "").removeprefix("-")
        assert ("scales" in summary["params"]) == (method in WEIGHTED)
    folders = {method: results(exp, branch, method) for method in PLAIN}
    assert recogs_of(folders["greedy"]) == recogs_of(folders["1best"])
    assert len({tuple(item.hyp) for item in recogs_of(folders["1best"])}) > 20
    assert found["nbest-oracle"]["cer"] < found["nbest"]["cer"]
    for method in WEIGHTED:
        kept = json.loads(scales_of(exp, folders[method]).read_text(encoding="utf-8"))
        cers = {tuple(v for k, v in p.items() if k != "cer"): p["cer"] for p in kept["grid"]}
        assert cers[tuple(kept["scales"].values())] == min(cers.values())
        assert found[method]["params"]["scales"] == kept["scales"]


@pytest.mark.parametrize("branch", ["streaming", "full"])
def test_a_bundle_gives_the_same_texts(
    program: Program, data: Path, exp: Path, branch: str, tmp_path: Path
) -> None:
    """By every method, with the scales and n-grams in the file: there is no tuning."""
    for method in PLAIN:
        if not (results(exp, branch, method) / "summary-eval1.json").is_file():
            program(decode, "--branch", branch, "--method", method, *beam(method))
    path, lms = tmp_path / "x.dualasr", sorted((data / "lang").glob("G_*gram.arpa"))
    arguments = [exp, "--data-dir", data, "--out", path, "--lm", *lms]
    bundle.main(list(map(str, arguments)))
    model = ("--bundle", path, "--out-dir", tmp_path / "out")
    for method in PLAIN:
        program(decode, "--branch", branch, "--method", method, *beam(method), model=model)
        folder = results(exp, branch, method)
        same = results(tmp_path / "out", branch, method)
        assert recogs_of(same) == recogs_of(folder), method
        before, after = summary_of(folder)["params"], summary_of(same)["params"]
        assert after.get("scales") == before.get("scales")
        assert after.get("scales_from", "of the bundle, tuned on valid").startswith("of the bundle")
        assert after["weights"] == before["weights"]
    assert not (tmp_path / "out" / "scales").exists()


def test_streams_of_a_bundle(program: Program, data: Path, exp: Path, tmp_path: Path) -> None:
    program(streaming_decode, "--method", "greedy")
    bundle.main([str(exp), "--data-dir", str(data), "--out", str(tmp_path / "x.dualasr")])
    model = ("--bundle", tmp_path / "x.dualasr", "--out-dir", tmp_path / "out")
    program(streaming_decode, "--method", "greedy", model=model)
    name = "decode/streaming-online-greedy"
    assert recogs_of(tmp_path / "out" / name) == recogs_of(exp / name)


def test_several_branches_and_methods_at_once(program: Program, exp: Path) -> None:
    folders = [
        exp / "decode" / f"{branch}-{method}"
        for branch in ("streaming", "full")
        for method in ("greedy", "1best")
    ]
    for folder in folders:
        (folder / "summary-eval1.json").unlink(missing_ok=True)
    program(decode, "--branch", "streaming", "full", "--method", "greedy", "1best")
    found = [summary_of(folder) for folder in folders]
    assert [f"{s['branch']}-{s['method']}" for s in found] == [folder.name for folder in folders]


@pytest.mark.parametrize("method", ["nbest-lm", "hlg"])
def test_scales_are_tuned_once_kept_and_overridden(
    program: Program, exp: Path, capfd: pytest.CaptureFixture[str], method: str
) -> None:
    plain = ("--branch", "full", "--method", method)
    options = (*plain, *beam(method))
    folder = results(exp, "full", method)
    program(decode, *options)
    first, kept = recogs_of(folder), scales_of(exp, folder)
    stamp = kept.stat().st_mtime_ns
    capfd.readouterr()
    program(decode, *options)
    output = capfd.readouterr()
    assert "tuning" not in output.out + output.err
    assert recogs_of(folder) == first
    assert kept.stat().st_mtime_ns == stamp
    assert summary_of(folder)["params"]["scales_from"] == f"scales/{kept.name}, tuned on valid"

    program(decode, *options, "--scales", "lm=0")
    params = summary_of(results(exp, "full", method, "-lm_scale=0"))["params"]
    assert params["scales"] == {"lm": 0.0}
    assert params["scales_from"] == "given"
    assert kept.stat().st_mtime_ns == stamp

    other = ("num_paths=10", "num_paths=9")
    if method == "hlg":
        other = ("max_active=8", "max_active=7")
    program(decode, *options, other[1])
    summary = summary_of(folder.with_name(folder.name.replace(*other)))
    assert summary["params"]["scales_from"] == "tuned on valid"
    assert recogs_of(folder) == first


def test_nbest_lists_are_written(program: Program, exp: Path) -> None:
    options = ("--branch", "full", "--method", "attention", "--scales", "attention=0.7")
    program(decode, *options, "--beam", "num_texts=7", "num_paths=20", "--write-nbest")
    folder = exp / "decode" / "full-attention-num_texts=7-num_paths=20-attention_scale=0.7"
    lists = json.loads((folder / "nbest-eval1.json").read_text(encoding="utf-8"))
    recogs = {item.id: "".join(item.hyp) for item in recogs_of(folder)}
    assert lists.keys() == recogs.keys()
    for name, texts in lists.items():
        assert texts[0]["text"] == recogs[name]
        assert 1 <= len(texts) <= 7
        totals = [text["total"] for text in texts]
        assert totals == sorted(totals, reverse=True)
        for text in texts:
            assert text["total"] == pytest.approx(text["ctc"] + 0.7 * text["attention"])
    assert max(map(len, lists.values())) > 1


def test_valid_calibrates_the_confidence_of_what_comes_after(program: Program, exp: Path) -> None:
    """By decode.py for its own splits, for streams of the same search, and for two passes."""
    folder, online = exp / "decode" / "streaming-1best", exp / "decode" / "streaming-online-1best"
    program(streaming_decode)
    assert summary_of(online)["confidence"]["calibrated"] is False
    program(decode, "--branch", "streaming", "--split", "valid")
    kept = json.loads((exp / "calibration" / "streaming-1best.json").read_text(encoding="utf-8"))
    told = {split: summary_of(folder, split)["confidence"] for split in ("valid", "eval1")}
    assert told["valid"]["calibrated"] and told["eval1"]["calibrated"]
    assert told["valid"]["num_tokens"] == kept["fitted_on"]["tokens"] > 100
    assert told["valid"]["out_of_domain"] == 0
    # of a random model nothing is right, and that is what it says
    assert told["valid"]["mean"] == pytest.approx(told["valid"]["accuracy"], abs=0.02)
    bare = read_confidence(folder / "confidence-eval1.json")
    assert max(value for text in bare for value in text.posteriors) > 0.5

    program(streaming_decode)
    assert summary_of(online)["confidence"]["calibrated"] is True
    streamed = summary_of(online)["confidence"]["mean"]
    assert streamed == pytest.approx(told["eval1"]["mean"], rel=0.05)
    second = ("--second-scales", "attention=0.6", "--second-beam", *NARROW["attention"])
    program(streaming_decode, "--two-pass", *second, "--split", "valid")
    parts = "num_texts=4-num_paths=10-attention_scale=0.6"
    assert (exp / "calibration" / f"full-two-pass-{parts}.json").is_file()
    assert summary_of(exp / "decode" / f"full-two-pass-{parts}")["confidence"]["calibrated"] is True


def test_a_lexicon_makes_results_of_its_own(program: Program, data: Path, exp: Path) -> None:
    lexicon = data / "lang" / "lexicon.txt"
    words = ("--method", "hlg", "--lexicon", lexicon, "--scales", "lm=0.5", *beam("hlg"))
    program(decode, "--branch", "streaming", *words)
    folder = exp / "decode" / "streaming-hlg-words-max_active=8-max_tokens=3-lm_scale=0.5"
    summary = summary_of(folder)
    assert summary["params"]["lexicon"].startswith("lexicon.txt ")
    assert summary["params"]["lm"].startswith("words_3gram.arpa ")
    assert summary["method"] == "hlg-words"
    assert summary["num_utterances"] == 24


@pytest.mark.parametrize("method", ["greedy", "1best", "hlg"])
def test_streams_give_the_texts_of_whole_utterances(
    program: Program, exp: Path, method: str
) -> None:
    scales = ("--scales", "lm=0.4", *beam("hlg")) if method == "hlg" else ()
    program(decode, "--branch", "streaming", "--method", method, *scales)
    program(streaming_decode, "--method", method, "--num-streams", 5, *scales)
    given = "-lm_scale=0.4" if method == "hlg" else ""
    offline = results(exp, "streaming", method, given)
    online = exp / "decode" / f"streaming-online-{method}{VARIANT.get(method, '')}{given}-streams5"
    same = [a == b for a, b in zip(recogs_of(offline), recogs_of(online))]
    assert len(same) == 24
    assert sum(same) >= 20  # stored features are compressed, those of streams are not
    assert summary_of(online)["cer"] == pytest.approx(summary_of(offline)["cer"], rel=0.02)
    assert summary_of(online)["method"] == f"online-{method}"
    assert summary_of(online)["latency"]["num_streams"] == 5


def test_two_passes_give_the_texts_of_the_full_branch(program: Program, exp: Path) -> None:
    scales = ("--scales", "attention=0.6")
    program(decode, "--branch", "full", "--method", "attention", *scales, *beam("attention"))
    program(streaming_decode, "--method", "greedy")
    second = ("--second-beam", "text_beam=8", *NARROW["attention"])
    second = ("--second-scales", "attention=0.6", *second)
    program(streaming_decode, "--method", "greedy", "--two-pass", *second)
    parts = "num_texts=4-text_beam=8-num_paths=10-attention_scale=0.6"
    folder = exp / "decode" / f"full-two-pass-{parts}-first=greedy"
    summary = summary_of(folder)
    attention = results(exp, "full", "attention", "-attention_scale=0.6")
    whole = recogs_of(attention)
    # Lists drawn from flat lattices show that stored features are compressed; that the states are
    # the same is the business of test_trained_model.
    assert sum(a == b for a, b in zip(whole, recogs_of(folder))) >= 8
    expected = summary_of(attention)["cer"]
    assert summary["cer"] == pytest.approx(expected, rel=0.1)
    first = summary_of(exp / "decode" / "streaming-online-greedy")
    assert summary["first_pass_cer"] == first["cer"]
    assert (summary["branch"], summary["method"]) == ("full", "two-pass")
    assert summary["params"]["second_pass"]["scales"] == {"attention": 0.6}
    assert summary["params"]["second_pass"]["text_beam"] == 8.0
    assert summary["latency"]["second_pass_ms"]["p50"] > 0


FULL = ("--branch", "full")


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (decode, (*FULL, "--method", "1best", "--scales", "lm=1"), "--scales is for methods"),
        (decode, (*FULL, "--method", "hlg", "1best", "--scales", "lm=1"), "the method is 1best"),
        (decode, (*FULL, "--method", "nbest", "--lm", "x.arpa"), "--lm is for methods"),
        (streaming_decode, ("--scales", "lm=1"), "--scales is for methods"),
        (streaming_decode, ("--second-scales", "attention=1"), "is for --two-pass"),
        (streaming_decode, ("--two-pass", "--second-scales", "lm=1"), "given for attention, which"),
        (decode, (*FULL, "--method", "hlg", "--beam", "lm_scale=1"), "give --scales lm="),
        (
            decode,
            (*FULL, "--method", "hlg", "--scales", "ml=1"),
            "no scale 'ml'; there are attention, ctc, lm, transducer",
        ),
        *((decode, (*FULL, "--method", m), "a full branch with a head transd") for m in TRANSDUCER),
        *(
            (streaming_decode, ("--method", m), "a streaming branch with a head transducer")
            for m in TRANSDUCER
            if METHODS[m].stream is not None
        ),
        (decode, (*FULL, "--method", "hlg", "--scales", "lm=-1"), "not be negative|not negative"),
        (decode, (*FULL, "--method", "nbest", "--beam", "num_text=3"), "method nbest: .*num_texts"),
        (decode, (*FULL, "--method", "greedy", "--beam", "beam=3"), "method greedy: .*'beam'"),
        (decode, (*FULL, "--method", "hlg", "--lm", "no.arpa"), r"no\.arpa' must be a file"),
        (decode, (*FULL, "--method", "hlg", "--lexicon", "no.txt"), r"no\.txt' .*missing"),
        (decode, (*FULL, "--method", "1best", "--write-nbest"), "makes no n-best lists"),
        (streaming_decode, ("--method", "hlg", "--beam", "beem=3"), "method hlg: .*'beem'"),
        (
            streaming_decode,
            ("--method", "greedy", "--num-streams", "0"),
            "--num-streams must be at least 1",
        ),
        (streaming_decode, ("--two-pass", "--second-beam", "num_text=3"), "attention: .*num_texts"),
    ],
)
def test_user_errors_are_one_line(
    program: Program,
    capfd: pytest.CaptureFixture[str],
    module: ModuleType,
    options: tuple[str, ...],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as stop:
        program(module, *options)
    assert stop.value.code == 1
    *_, line = capfd.readouterr().err.splitlines()
    assert line.startswith(f"{module.__name__}.py: error: ")
    assert re.search(message, line), line


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (streaming_decode, ("--method", "attention")),
        (streaming_decode, ("--method", "nbest-lm")),
        (decode, (*FULL, "--method", "two-pass")),
        (decode, ("--branch", "both")),
    ],
)
def test_choices_that_are_none(
    program: Program, capfd: pytest.CaptureFixture[str], module: ModuleType, options: Any
) -> None:
    with pytest.raises(SystemExit) as stop:
        program(module, *options)
    assert stop.value.code == 2
    assert "invalid choice" in capfd.readouterr().err
