"""The table of results: read from summary files, pooled over splits, errors named."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def show(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools/show_results.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def write_summary(exp: Path, split: str, errors: int, chars: int) -> None:
    summary = {
        "split": split, "branch": "full", "method": "1best", "num_utterances": 2,
        "num_ref_chars": chars, "ins": 0, "del": errors, "sub": 0, "cer": errors / chars,
        "cer_ci95": [0.0, 0.5], "rtf": 0.25, "audio_seconds": 8.0,
    }  # fmt: skip
    folder = exp / "decode" / "full-1best"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"summary-{split}.json").write_text(json.dumps(summary), encoding="utf-8")


def test_rows_and_pooled_rate(tmp_path: Path) -> None:
    write_summary(tmp_path, "eval1", errors=1, chars=10)
    write_summary(tmp_path, "eval2", errors=5, chars=30)
    rows = [line.split() for line in show(tmp_path).stdout.splitlines()]
    assert rows[1][:8] == ["full", "1best", "eval1", "2", "10", "10.00", "0.00-50.00", "0.250"]
    assert rows[3][:6] == ["full", "1best", "all", "4", "40", "15.00"]
    markdown = show(tmp_path, "--markdown").stdout.splitlines()
    assert markdown[0].startswith("| branch")
    assert set(markdown[1]) <= set("|- ")


def test_nothing_to_show_is_an_error(tmp_path: Path) -> None:
    result = show(tmp_path)
    assert result.returncode == 1
    assert "no decode/*/summary-*.json" in result.stderr
    assert "Traceback" not in result.stderr
