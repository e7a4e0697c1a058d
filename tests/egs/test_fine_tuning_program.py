"""train.py --init-from on the tiny tree: one process, two, a resume, and what is refused."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import ENVIRONMENT, ROOT, run, train_arguments

from dualasr_lib.core.checkpoint import Checkpoint, find, load
from dualasr_lib.recognition.bundle import Bundle, write_bundle

for library in ("lhotse", "_kaldifeat", "kaldingram", "matplotlib", "sentencepiece"):
    pytest.importorskip(library)

FRONT = "encoders.streaming.subsampling"
SHORT = ["training.log_every=1", "training.save_every=1", "training.schedule.decay_fraction=0"]


@pytest.fixture(scope="module")
def bundle(data: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = load(find(trained, None))
    path = tmp_path_factory.mktemp("bundle") / "tiny.dualasr"
    lang = data / "lang"
    model, tokens = (lang / "sentencepiece.model").read_bytes(), (lang / "tokens.txt").read_text()
    write_bundle(Bundle(weights=found.model, config=found.config, tokenizer=model, tokens=tokens,
                        source="tiny"), path)  # fmt: skip
    return path


def arguments(data: Path, exp: Path, steps: int, *more: object) -> list[object]:
    return [*train_arguments(data, exp), *SHORT, f"training.max_steps={steps}", *more]


def losses(exp: Path) -> list[float]:
    lines = [json.loads(line) for line in (exp / "log.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


def last(exp: Path) -> Checkpoint:
    return load(find(exp, None))


def is_front_of(one: Checkpoint, two: Checkpoint) -> bool:
    names = [name for name in one.model if name.startswith(FRONT)]
    assert names
    return all(torch.equal(one.model[name], two.model[name]) for name in names)


def test_a_bundle_is_trained_on_and_the_run_goes_on(
    data: Path, trained: Path, bundle: Path, tmp_path: Path
) -> None:
    exp = tmp_path / "exp"
    frozen = f'training.freeze=["{FRONT}"]'
    said = run("train.py", *arguments(data, exp, 4, frozen, "--init-from", bundle)).stderr
    assert "tiny.dualasr: took " in said and f"M values: {FRONT}" in said
    run("train.py", *arguments(data, tmp_path / "scratch", 1))
    assert losses(exp)[0] < losses(tmp_path / "scratch")[0]
    assert is_front_of(last(exp), last(trained))

    said = run("train.py", *arguments(data, exp, 6, frozen)).stderr
    assert "going on from" in said and "took" not in said and "initial." not in said
    run("train.py", *arguments(data, tmp_path / "whole", 6, frozen, "--init-from", bundle))
    assert losses(exp) == losses(tmp_path / "whole")
    assert last(exp).config["initial"] == last(tmp_path / "whole").config["initial"]
    assert last(exp).config["initial"]["path"] == bundle.name

    newest = find(trained, None)
    refused = run("train.py", *arguments(data, exp, 8, frozen, "--init-from", newest), check=False)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "began with those of" in refused.stderr.splitlines()[-1]


def test_two_processes_begin_alike_and_freeze_alike(
    data: Path, trained: Path, bundle: Path, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    given = arguments(data, tmp_path, 4, f'training.freeze=["{FRONT}", "heads.ctc"]',
                      "--device", "cpu", "--init-from", bundle)  # fmt: skip
    command = [sys.executable, str(ROOT / "egs/csj/train.py"), *map(str, given)]
    ranks = []
    for rank in ("0", "1"):
        settings = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
        settings |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks.append(
            subprocess.Popen(command, env=ENVIRONMENT | settings, stderr=subprocess.PIPE, text=True)
        )
    errors = [process.communicate(timeout=280)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], errors
    assert ["took" in text for text in errors] == [True, False]
    assert len(losses(tmp_path)) == 4
    ours, theirs = last(tmp_path), last(trained)
    assert is_front_of(ours, theirs)
    heads = [name for name in ours.model if name.startswith("heads.")]
    assert all(
        torch.equal(ours.model[n], theirs.model[n]) == n.startswith("heads.ctc")
        for n in heads
        if n.endswith("projection.weight")
    )


def test_what_cannot_be_begun_with_is_one_line(data: Path, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pt"
    junk.write_bytes(b"not a model")
    cases = [
        (["--init-from", tmp_path / "no.pt"], "no.pt does not exist"),
        (["--init-from", junk], "junk.pt must be a bundle or a checkpoint, but is neither"),
        (["--set", 'training.freeze=["subsampling"]'], f"did you mean '{FRONT}'?"),
    ]
    for given, message in cases:
        result = run("train.py", *arguments(data, tmp_path / "exp", 1, *given), check=False)
        assert result.returncode == 1 and "Traceback" not in result.stderr
        assert message in result.stderr.splitlines()[-1], result.stderr
        assert not list((tmp_path / "exp").glob("*.pt"))
