"""The programs of egs/csj on a tiny tree: train, kill -9, go on, decode both branches, stream."""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import ENVIRONMENT, ROOT, run, train_arguments

from dualasr_lib.core.checkpoint import find, load

for library in (
    "lhotse",
    "_kaldifeat",
    "k2",
    "kaldingram",
    "matplotlib",
    "sentencepiece",
):
    pytest.importorskip(library)


def losses(exp: Path) -> dict[int, float]:
    """Logged training loss by step; each step is there once."""
    lines = (exp / "log.jsonl").read_text().splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be partial
    trained = [
        (record["step"], record["train/loss"]) for record in records if "train/loss" in record
    ]
    assert len(dict(trained)) == len(trained)
    return dict(trained)


def test_killed_run_goes_on_to_the_same_losses(data: Path, trained: Path, tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    arguments = [sys.executable, str(ROOT / "egs/csj/train.py")]
    arguments += [str(argument) for argument in train_arguments(data, exp)]
    process = subprocess.Popen(arguments, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (exp / "log.jsonl").is_file() or max(losses(exp), default=0) < 20:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run("train.py", *train_arguments(data, exp))
    assert losses(exp) == losses(trained)
    newest = [find(folder, None).name for folder in (exp, trained)]
    assert newest[0] == newest[1]
    last = [load(folder / name).model for folder, name in zip((exp, trained), newest)]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])


def test_a_stopped_run_says_so(data: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, str(ROOT / "egs/csj/train.py")]
    arguments += [str(argument) for argument in train_arguments(data, tmp_path)]
    process = subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not (tmp_path / "log.jsonl").is_file() or not losses(tmp_path):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 130
    step = load(tmp_path / find(tmp_path, None).name).step
    assert f"stopped and saved at step {step}; the same command goes on" in output


def test_two_processes_train_the_joint_model(data: Path, tmp_path: Path) -> None:
    """Started by train.py itself, with distillation from step 2 on."""
    changes = ["loss.distillation.items=utterance", "loss.distillation.warm_up=2"]
    changes += ["training.max_steps=6", "training.log_every=1", "--device", "cpu"]
    run("train.py", *train_arguments(data, tmp_path), *changes, "--processes", 2)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    points = [record for record in records if "train/loss" in record]
    assert [point["step"] for point in points] == [1, 2, 3, 4, 5, 6]
    for point in points:
        assert point["train/loss"] is not None and math.isfinite(point["train/loss"])
        assert point["train/skipped_steps"] == 0
    for term in ("train/distillation_encoder", "train/distillation_attention"):
        assert all(point[term] > 0 for point in points[3:])


@pytest.mark.parametrize("method", ["greedy", "1best"])
@pytest.mark.parametrize("branch", ["streaming", "full"])
def test_decode_writes_what_the_design_says(
    data: Path, trained: Path, branch: str, method: str
) -> None:
    run("decode.py", "--exp-dir", trained, "--data-dir", data, "--split", "eval1", "--branch",
        branch, "--method", method)  # fmt: skip
    folder = trained / "decode" / f"{branch}-{method}"
    summary = read_summary(folder, "eval1")
    assert (summary["branch"], summary["method"], summary["split"]) == (branch, method, "eval1")
    errors = summary["ins"] + summary["del"] + summary["sub"]
    assert summary["cer"] == pytest.approx(errors / summary["num_ref_chars"])
    low, high = summary["cer_ci95"]
    assert low <= summary["cer"] <= high
    recogs = (folder / "recogs-eval1.txt").read_text(encoding="utf-8")
    assert recogs.count("ref=") == recogs.count("hyp=") == summary["num_utterances"] == 24
    assert (folder / "errs-eval1.txt").stat().st_size > 0


def test_streaming_equals_offline_search_of_the_same_chunk(data: Path, trained: Path) -> None:
    common = ["--exp-dir", trained, "--data-dir", data, "--split", "eval1", "--chunk-ms", 320]
    run("decode.py", *common, "--branch", "streaming", "--method", "1best")
    run("streaming_decode.py", *common, "--num-streams", 3)
    offline = read_summary(trained / "decode/streaming-1best", "eval1")
    online = read_summary(trained / "decode/streaming-online-1best-streams3", "eval1")
    for key in ("num_utterances", "num_ref_chars"):
        assert online[key] == offline[key]
    assert abs(online["cer"] - offline["cer"]) <= 0.001
    latency = online["latency"]
    assert latency["algorithmic_ms"] == pytest.approx(327.5)
    assert latency["num_streams"] == 3
    assert latency["chunk_compute_ms"]["p99"] >= latency["chunk_compute_ms"]["p50"] > 0


def test_user_errors_are_one_line(data: Path, trained: Path, tmp_path: Path) -> None:
    arguments = train_arguments(data, tmp_path / "exp")
    cases = (
        ("train.py", [*arguments, "modl.x=1"], "unknown config key 'modl'; did you mean 'model'?"),
        ("train.py", [*arguments, "chunk.ms=330"], "multiple of 20 ms, but is 330 ms"),
        ("decode.py", ["--exp-dir", tmp_path, "--data-dir", data, "--split", "eval1", "--branch",
                       "full"], str(tmp_path)),
        ("decode.py", ["--exp-dir", trained, "--data-dir", data, "--split", "eval9", "--branch",
                       "full"], "there is no split 'eval9'"),
        ("streaming_decode.py", ["--exp-dir", trained, "--data-dir", data, "--split", "eval1",
                                 "--chunk-ms", "60"], "multiple of each stack's downsampling"),
    )  # fmt: skip
    for program, given, message in cases:
        result = run(program, *given, check=False)
        assert result.returncode == 1
        assert message in result.stderr
        assert "Traceback" not in result.stderr


def read_summary(folder: Path, split: str) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / f"summary-{split}.json").read_text())
    return summary
