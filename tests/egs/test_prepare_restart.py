"""prepare.sh killed with SIGKILL in every stage and started again: the same bytes as without a
kill.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("lhotse")
pytest.importorskip("_kaldifeat")
pytest.importorskip("kaldingram")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}


def _hashes(data: Path) -> dict[str, str]:
    files = sorted(path for path in data.rglob("*") if path.is_file())
    return {
        str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != ".lock"
    }


@pytest.fixture(scope="module")
def uninterrupted(tiny_csj: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """sha256 of every file of a run that nobody killed."""
    data = tmp_path_factory.mktemp("whole") / "data"
    folders = ["--csj-dir", str(tiny_csj), "--data-dir", str(data)]
    subprocess.run(["bash", str(ROOT / "egs/csj/prepare.sh"), *folders, "--open"], check=True)
    hashes = _hashes(data)
    names = "lang/tokens.txt lang/G_5gram.arpa lang/words_3gram.arpa lang/lexicon.txt"
    for name in ("cuts/csj_cuts_train.jsonl.gz", "features/eval1-00000.lca", *names.split()):
        assert name in hashes
    return hashes


def test_each_stage_killed_and_restarted(
    tiny_csj: Path, tmp_path: Path, uninterrupted: dict[str, str]
) -> None:
    data = tmp_path / "data"
    program = str(Path(__file__).with_name("kill_drill.py"))
    # In prepare.sh's environment: MKL's code path decides the last bits of the features.
    command = f'source "{ROOT}/tools/env.sh" && exec "$0" "$@"'
    result = subprocess.run(
        ["bash", "-c", command, sys.executable, program, str(tiny_csj), str(data)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    kills = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert len(kills) == 20
    assert all(kill["killed"] and not kill["done"] for kill in kills), kills
    assert _hashes(data) == uninterrupted


def test_workers_die_with_a_killed_program(
    tiny_csj: Path, tmp_path: Path, uninterrupted: dict[str, str]
) -> None:
    """Killed from outside while two workers compute features; the restart finds no one else
    there.
    """
    data = tmp_path / "data"
    folders = ["--csj-dir", str(tiny_csj), "--data-dir", str(data), "--open"]
    command = ["bash", str(ROOT / "egs/csj/prepare.sh"), *folders, "--jobs", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not list(data.glob("tmp/stage-4-*/scratch/*.lca")):
            assert process.poll() is None, "prepare.sh ended before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (data / "done" / "stage-4").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert _hashes(data) == uninterrupted
