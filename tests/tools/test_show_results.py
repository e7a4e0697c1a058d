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


def write_result(exp: Path, split: str, ref: str, hyp: str) -> None:
    """Two utterances with `ref` and `hyp` each; only deletions are counted here."""
    chars = 2 * len(ref)
    errors = 2 * (len(ref) - len(hyp))
    summary = {
        "split": split, "branch": "full", "method": "1best", "num_utterances": 2,
        "num_ref_chars": chars, "ins": 0, "del": errors, "sub": 0, "cer": errors / chars,
        "unit": "character", "normalisation": "as it is", "pooled": split.startswith("eval"),
        "cer_ci95": [0.0, 0.5], "rtf": 0.25, "audio_seconds": 8.0, "fallbacks": 2,
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
    assert rows[1][:9] == [
        *("full", "1best", "eval1", "2", "10", "20.00", "0.00-50.00", "0.250", "2")
    ]
    assert rows[4][:9] == [
        *("full", "1best", "eval1+eval2", "4", "40", "20.00", "20.00-20.00", "0.250", "4")
    ]
    markdown = show(tmp_path, "--markdown").stdout.splitlines()
    assert markdown[0].startswith("| branch")
    assert set(markdown[1]) <= set("|- ")


def test_nothing_to_show_is_an_error(tmp_path: Path) -> None:
    result = show(tmp_path)
    assert result.returncode == 1
    assert "no decode/*/summary-*.json" in result.stderr
    assert "Traceback" not in result.stderr
