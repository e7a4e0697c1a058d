"""tools/compare.py: its numbers, its output, and each thing it refuses."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from dualasr_lib.core.program import run_program
from dualasr_lib.decoding.hypothesis import Hypothesis, TokenPath
from dualasr_lib.decoding.offline import Decoded
from dualasr_lib.decoding.summary import RunInfo, Scoring, offline_summary
from dualasr_lib.decoding.writer import write_results
from dualasr_lib.metrics.units import CHARACTER, WORD

REFS = {f"utt{index:02}": "あいうえおかきくけこ" for index in range(20)}


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    path = Path(__file__).parents[2] / "tools" / "compare.py"
    spec = importlib.util.spec_from_file_location("compare", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(
    directory: Path,
    hyps: dict[str, str],
    refs: dict[str, str] = REFS,
    scoring: Scoring = Scoring(),  # noqa: B008
) -> Path:
    hypotheses = [
        Hypothesis(id_, text, refs[id_], TokenPath((), (), 0.0), 1.0) for id_, text in hyps.items()
    ]
    summary = offline_summary(
        RunInfo("eval1", "full", "1best", {}, scoring=scoring), Decoded(hypotheses, 1, 1, 0, 1)
    )
    return write_results(directory, hypotheses, summary).summary


def damaged(num_errors: int) -> dict[str, str]:
    """Every second utterance has `num_errors` substitutions."""
    return {
        id_: "ん" * num_errors + ref[num_errors:] if number % 2 else ref
        for number, (id_, ref) in enumerate(REFS.items())
    }


def run(
    compare: ModuleType, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    code = 0
    try:
        run_program(lambda: compare.main([str(argument) for argument in arguments]))
    except SystemExit as exited:
        code = int(exited.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_numbers(compare: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", damaged(4)), write(tmp_path / "b", damaged(3))
    code, out, err = run(compare, capsys, a, b, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["baseline"]["value"] == 0.2
    assert report["system"]["value"] == 0.15
    # Each draw has 4 and 3 errors in the same utterances: the ratio never changes.
    assert report["relative_cerr"]["value"] == pytest.approx(0.25)
    assert report["relative_cerr"]["ci95"] == pytest.approx([0.25, 0.25])
    low, high = report["baseline"]["ci95"]
    assert low < 0.2 < high
    assert (report["num_utterances"], report["num_ref_chars"]) == (20, 200)
    assert report["num_equal_texts"] == 10


def test_table(compare: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", damaged(4)), write(tmp_path / "b", damaged(3))
    code, out, _ = run(compare, capsys, a, b)
    lines = out.splitlines()
    assert code == 0
    assert lines[1].split()[:2] == ["baseline", "20.00"]
    assert lines[3].split()[:3] == ["relative", "CERR", "25.00"]
    assert lines[4] == "20 utterances, 200 characters, 10 texts equal"
    assert lines[5].startswith("significant: the system makes fewer errors (the 95 % interval")
    code, out, _ = run(compare, capsys, write(tmp_path / "c", dict(REFS)), b)
    assert code == 0
    assert out.splitlines()[3].split()[2] == "-"  # no error to reduce
    assert out.splitlines()[5] == "undecided: the baseline has no errors to reduce"
    code, out, _ = run(compare, capsys, b, a)
    assert out.splitlines()[5].startswith("significant: the system makes more errors")
    code, out, _ = run(compare, capsys, a, a)
    assert out.splitlines()[5].startswith("not significant: ")


def test_words(compare: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Word errors are compared as words; not with character errors."""
    words = Scoring((WORD, CHARACTER))
    refs = {"a": "the cat sat", "b": "a hat"}
    first = write(tmp_path / "a", {"a": "the bat sat down", "b": "a hat"}, refs, words)
    second = write(tmp_path / "b", {"a": "the bat sat", "b": "a hat"}, refs, words)
    code, out, _ = run(compare, capsys, first, second)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split()[:2] == ["WER", "%"]
    assert lines[1].split()[:2] == ["baseline", "40.00"]
    assert lines[3].split()[:3] == ["relative", "WERR", "50.00"]
    assert lines[4] == "2 utterances, 5 words, 1 texts equal"
    third = write(tmp_path / "c", {"a": "the bat sat", "b": "a hat"}, refs)
    fails(compare, capsys, first, third, "the same unit, but count words and characters")


def fails(
    compare: ModuleType, capsys: pytest.CaptureFixture[str], a: Path, b: Path, message: str
) -> None:
    code, out, err = run(compare, capsys, a, b)
    assert (code, out) == (1, "")
    assert ": error: " in err
    assert "Error(" not in err
    assert len(err.splitlines()) == 1
    assert message in err


def test_refusals(compare: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a = write(tmp_path / "a", damaged(4))
    fewer = write(tmp_path / "b", dict.fromkeys(list(REFS)[:-1], ""))
    fails(compare, capsys, a, fewer, "utt19")
    fails(compare, capsys, fewer, a, "utt19")
    refs = {**REFS, "utt03": "え"}
    fails(compare, capsys, a, write(tmp_path / "c", damaged(1), refs), "utt03")
    fails(compare, capsys, a, tmp_path / "no.json", "no.json")
    broken = tmp_path / "broken.json"
    broken.write_text('{"split": "x"}', encoding="utf-8")
    fails(compare, capsys, a, broken, "'ins' is missing")
    broken.write_text("[]", encoding="utf-8")
    fails(compare, capsys, a, broken, "broken.json must be a summary-<split>.json of decode.py: wh")
    broken.write_text('{"split": ', encoding="utf-8")
    fails(compare, capsys, a, broken, "it is no JSON")
    fails(compare, capsys, a, tmp_path, "Is a directory")
    content = json.loads(a.read_text(encoding="utf-8"))
    del content["unit"]
    broken.with_name("summary-eval1.json").write_text(json.dumps(content), encoding="utf-8")
    fails(compare, capsys, broken.with_name("summary-eval1.json"), a, "decode again")
    other = write(tmp_path / "d", damaged(2))
    (tmp_path / "a" / "recogs-eval1.txt").rename(tmp_path / "d" / "recogs-eval1.txt")
    fails(compare, capsys, other, fewer, "must belong to")
    fails(compare, capsys, a, fewer, "does not exist")
