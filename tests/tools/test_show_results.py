"""The table of results: read from summary files, pooled over splits, errors named."""

import json
import subprocess
import sys
from pathlib import Path

from dualasr_lib.decoding.recogs import Recognised, format_recogs

ROOT = Path(__file__).parents[2]


def show(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools/show_results.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def write_result(exp: Path, split: str, ref: str, hyp: str, **changes: object) -> None:
    """Two utterances with `ref` and `hyp` each; only deletions are counted here.

    Args:
        changes: to the summary.
    """
    chars = 2 * len(ref)
    errors = 2 * (len(ref) - len(hyp))
    summary = {
        "split": split, "branch": "full", "method": "1best", "num_utterances": 2,
        "num_ref_chars": chars, "ins": 0, "del": errors, "sub": 0, "cer": errors / chars,
        "unit": "character", "normalisation": "as it is", "pooled": split.startswith("eval"),
        "cer_ci95": [0.0, 0.5], "rtf": 0.25, "audio_seconds": 8.0, "fallbacks": 2, **changes,
    }  # fmt: skip
    folder = exp / "decode" / "full-1best"
    folder.mkdir(parents=True, exist_ok=True)
    items = [Recognised(key, list(ref), list(hyp)) for key in ("a", "b")]
    (folder / f"recogs-{split}.txt").write_text(format_recogs(items), encoding="utf-8")
    (folder / f"summary-{split}.json").write_text(json.dumps(summary), encoding="utf-8")


def test_rows_and_pooled_rate(tmp_path: Path) -> None:
    write_result(tmp_path, "eval1", "あいうえお", "あいうえ")
    write_result(tmp_path, "eval2", "あいうえおかきくけこさしすせそ", "あいうえおかきくけこさし")
    write_result(tmp_path, "valid", "あい", "あ")
    rows = [line.split() for line in show(tmp_path).stdout.splitlines()]
    assert rows[1][:11] == [
        *("full", "1best", "eval1", "2", "10", "CER", "20.00", "0.00-50.00", "-", "0.250", "2")
    ]
    assert rows[4][:10] == [
        *("full", "1best", "eval1+eval2", "4", "40", "CER", "20.00", "20.00-20.00", "0.250", "4")
    ]
    markdown = show(tmp_path, "--markdown").stdout.splitlines()
    assert markdown[0].startswith("| branch")
    assert set(markdown[1]) <= set("|- ")


def test_both_units_are_said(tmp_path: Path) -> None:
    also = [{"unit": "character", "normalisation": "no white space", "cer": 0.125}]
    words = {"unit": "word", "num_ref_words": 10, "wer": 0.2, "wer_ci95": [0.0, 0.5], "also": also}
    write_result(tmp_path, "eval1", "abcde", "abcd", **words)
    shown = show(tmp_path)
    assert shown.returncode == 0, shown.stderr
    cells = [cell for cell in shown.stdout.splitlines()[1].split("  ") if cell.strip()]
    assert [cell.strip() for cell in cells[4:9]] == [
        "10",
        "WER",
        "20.00",
        "0.00-50.00",
        "CER 12.50",
    ]
    assert "rate: WER (as it is)" in shown.stdout


def test_what_a_stream_took_back_is_shown(tmp_path: Path) -> None:
    """Of systems that stream; others have no such number."""
    write_result(tmp_path, "eval1", "あい", "あ", latency={"partial_revision_rate": 0.125})
    write_result(tmp_path, "eval2", "あい", "あ")
    header, first, second = (
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in show(tmp_path, "--markdown").stdout.splitlines()[:4]
        if "---" not in line
    )
    column = header.index("revised %")
    assert (first[column], second[column]) == ("12.50", "-")


def test_nothing_to_show_is_an_error(tmp_path: Path) -> None:
    result = show(tmp_path)
    assert result.returncode == 1
    assert "no decode/*/summary-*.json" in result.stderr
    assert "Traceback" not in result.stderr


def model(weights: str, **others: object) -> dict[str, object]:
    return {"params": {"model": "epoch-3.pt", "weights": weights, **others}}


def test_splits_of_different_models_are_not_pooled(tmp_path: Path) -> None:
    """Of one file name, even: the newest checkpoint is another one after more training."""
    write_result(tmp_path, "eval1", "あいうえお", "あいうえ", **model("a1"))
    write_result(tmp_path, "eval2", "あいうえお", "あいうえ", **model("b2"))
    found = show(tmp_path)
    assert found.returncode == 1
    assert "eval1+eval2" not in found.stdout
    assert len(found.stdout.splitlines()) == 8  # header, two splits, five lines of notes
    assert "not pooled" in found.stderr
    assert "full 1best: eval1, eval2 differ in weights (a1, b2)" in found.stderr
    assert "Traceback" not in found.stderr


def test_what_says_nothing_of_the_system_does_not_hinder_pooling(tmp_path: Path) -> None:
    first = model("a1", num_threads=1, scales_from="tuned on valid", second_pass={"x": 1})
    second = model("a1", num_threads=8, scales_from="scales/x.json", second_pass={"x": 1})
    write_result(tmp_path, "eval1", "あいうえお", "あいうえ", **first)
    write_result(tmp_path, "eval2", "あいうえお", "あいうえ", **second)
    found = show(tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    assert "eval1+eval2" in found.stdout
    other = model("a1", num_threads=8, second_pass={"x": 2})
    write_result(tmp_path, "eval2", "あいうえお", "あいうえ", **other)
    assert "differ in second_pass.x (1, 2)" in show(tmp_path).stderr


def test_splits_of_different_data_folders_are_not_pooled(tmp_path: Path) -> None:
    write_result(tmp_path, "eval1", "あいうえお", "あいうえ", data="aa", **model("a1"))
    write_result(tmp_path, "eval2", "あいうえお", "あいうえ", data="bb", **model("a1"))
    found = show(tmp_path)
    assert found.returncode == 1
    assert "eval1+eval2" not in found.stdout
    assert "full 1best: eval1, eval2 differ in data folder (aa, bb)" in found.stderr
    write_result(tmp_path, "eval2", "あいうえお", "あいうえ", data="aa", **model("a1"))
    found = show(tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    assert "eval1+eval2" in found.stdout


def test_variants_have_lines_of_their_own(tmp_path: Path) -> None:
    write_result(tmp_path, "eval1", "あいうえお", "あいうえ", variant="chunk160-avg3")
    assert show(tmp_path).stdout.splitlines()[1].startswith("full    1best chunk160-avg3  eval1")


def test_recogs_of_another_run_are_refused(tmp_path: Path) -> None:
    write_result(tmp_path, "eval1", "あいうえお", "あいうえ")
    recogs = tmp_path / "decode/full-1best/recogs-eval1.txt"
    recogs.write_text(format_recogs([Recognised("a", list("あ"), list("あ"))]), encoding="utf-8")
    found = show(tmp_path)
    assert found.returncode == 1
    assert "recogs-eval1.txt must belong to" in found.stderr
