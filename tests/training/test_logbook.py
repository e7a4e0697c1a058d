"""The log after a resume: nothing lost, nothing doubled, in both of its forms."""

import io
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image

from dualasr_lib.core.picture import Picture
from dualasr_lib.training import drawing
from dualasr_lib.training.logbook import Logbook, LogbookError


def _lines(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


def test_points_texts_and_events(tmp_path: Path) -> None:
    with Logbook(tmp_path) as logbook:
        logbook.point(1, {"train/loss": 0.5, "train/odd": float("nan")})
        logbook.point(2, {"valid/cer": 0.25}, {"valid/example": "ref: あ\nhyp: い"})
        logbook.event(3, "skipped", reason="loss is nan", ids=["a", "b"])
        assert logbook.num_lines == 3
    assert _lines(tmp_path) == [
        {"step": 1, "train/loss": 0.5, "train/odd": None},
        {"step": 2, "valid/cer": 0.25, "valid/example": "ref: あ\nhyp: い"},
        {"step": 3, "event": "skipped", "reason": "loss is nan", "ids": ["a", "b"]},
    ]


def test_a_resume_cuts_off_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    with Logbook(tmp_path) as logbook:
        for step in range(1, 8):
            logbook.point(step, {"train/loss": float(step)})
    with open(tmp_path / "log.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 8, "tra')  # killed in mid-line
    with Logbook(tmp_path, step=4, num_lines=4) as logbook:
        for step in range(5, 7):
            logbook.point(step, {"train/loss": step + 0.5})
    assert [line["train/loss"] for line in _lines(tmp_path)] == [1, 2, 3, 4, 5.5, 6.5]


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path: Path) -> None:
    module = "tensorboard.backend.event_processing.event_accumulator"
    events = pytest.importorskip(module)
    with Logbook(tmp_path) as logbook:
        for step in range(1, 8):
            logbook.point(step, {"train/loss": float(step)})
    _age_event_files(tmp_path / "tensorboard")
    with Logbook(tmp_path, step=4, num_lines=4) as logbook:
        for step in range(5, 7):
            logbook.point(step, {"train/loss": step + 0.5}, {"valid/example": "あ"})
    board = events.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    points = [(point.step, point.value) for point in board.Scalars("train/loss")]
    assert points == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5.5), (6, 6.5)]
    assert "valid/example/text_summary" in board.Tags()["tensors"]


@pytest.fixture
def ramp() -> Picture:
    """Numbers from 0 to 10 in 2 rows of 3, drawn from 0 to 10."""
    values = torch.linspace(0, 10, 6).reshape(2, 3)
    return Picture(values, "ramp", "column (number)", "row (number)", "size (apples)", 0.0, 10.0)


def test_an_image_has_everything_around_it(tmp_path: Path, ramp: Picture) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pytest.importorskip("matplotlib")
    with Logbook(tmp_path) as logbook:
        logbook.point(4, {"valid/cer": 0.5}, images={"valid/ramp": ramp})
    board = events.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    [image] = board.Images("valid/ramp")
    assert (image.width, image.height) == (600, 480)
    drawn = Image.open(io.BytesIO(image.encoded_image_string)).convert("RGB")
    colours = {
        drawn.getpixel((80 + 400 * (1 + 2 * c) // 6, y)) for c in range(3) for y in (99, 350)
    }
    assert len(colours) == 6  # one for each number; what is written is in tests/tools/test_pictures


def test_without_matplotlib_images_are_bare_and_one_line_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ramp: Picture,
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setattr(drawing, "find_spec", lambda name: None)
    monkeypatch.setattr(drawing, "_can_draw", cache(drawing._can_draw.__wrapped__))
    caplog.set_level("INFO", logger="dualasr_lib.training.drawing")
    half = ramp._replace(values=ramp.values.to(torch.bfloat16))
    images = {"valid/ramp": ramp, "valid/half": half}
    with Logbook(tmp_path) as logbook:
        logbook.point(4, {"valid/cer": 0.5}, images=images)
    assert _lines(tmp_path) == [{"step": 4, "valid/cer": 0.5}]
    board = events.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    own = [record for record in caplog.records if record.name == drawing.__name__]
    assert [record.getMessage() for record in own] == [
        "matplotlib is not installed: images in TensorBoard have no axes"
    ]
    for name in images:
        [image] = board.Images(name)
        assert (image.step, image.width, image.height) == (4, 3, 2)
        pixels = Image.open(io.BytesIO(image.encoded_image_string)).convert("L").tobytes()
        assert list(pixels) == pytest.approx([0, 51, 102, 153, 204, 255], abs=1)


def test_tensorboard_says_what_a_value_is(tmp_path: Path) -> None:
    """Of a name's first point, also after a resume."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    table = {"train/loss": "What is minimised.", "train/ctc_*": "A loss of CTC."}
    with Logbook(tmp_path, descriptions=table) as logbook:
        for step in (1, 2):
            logbook.point(step, {"train/loss": 0.5, "train/ctc_full": 1.5, "train/odd": 2.0})
    board = events.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    said = {
        n: board.SummaryMetadata(n).summary_description for n in ("train/loss", "train/ctc_full")
    }
    assert said == {"train/loss": "What is minimised.", "train/ctc_full": "A loss of CTC."}
    assert [point.value for point in board.Scalars("train/loss")] == [0.5, 0.5]
    assert [point.value for point in board.Scalars("train/odd")] == [2.0, 2.0]


def _age_event_files(directory: Path) -> None:
    """Gives the files of a run an earlier time in their names, as a real resume would have."""
    for path in directory.iterdir():
        start, _, _, time, rest = path.name.split(".", 4)
        path.rename(directory / f"{start}.out.tfevents.{int(time) - 100}.{rest}")


def test_a_full_disk_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    logbook = Logbook(tmp_path)
    logbook.point(1, {"train/loss": 1.0})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LogbookError, match=r"cannot write the log .*log\.jsonl: No space left"):
        logbook.flush()
    with pytest.raises(RuntimeError, match="first"), logbook:
        raise RuntimeError("first")


_FILL = """
import resource, signal, sys, torch
from pathlib import Path
from dualasr_lib.core.picture import Picture
from dualasr_lib.training.logbook import Logbook
noise = Picture(torch.rand(90, 90), "noise", "x", "y", "c", 0.0, 1.0)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
with Logbook(Path(sys.argv[1])) as logbook:
    for step in range(1000):
        {call}
        {flush}
"""


@pytest.mark.parametrize(
    ("call", "flush", "file"),
    [
        ('logbook.event(step, "skipped", reason="x" * 100)', "", "log.jsonl"),
        ('logbook.point(step, {"a": 1.0}, {"b": "x" * 5000})', "", "(log.jsonl|tensorboard)"),
        ('logbook.point(0, {}, {}, {"a": noise})', "logbook.flush()", "tensorboard"),
    ],
)
def test_a_disk_that_fills_up_between_checkpoints_is_a_clear_error(
    tmp_path: Path, call: str, flush: str, file: str
) -> None:
    """In reality: the kernel refuses what makes a file longer than 3000 bytes."""
    program = _FILL.replace("{call}", call).replace("{flush}", flush)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, str(tmp_path)]
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    assert ended.returncode == 1
    message = rf"LogbookError: cannot write the log {tmp_path}/{file}: File too large"
    assert re.search(message, ended.stderr), ended.stderr


def test_a_log_that_was_deleted_is_begun_anew(tmp_path: Path) -> None:
    with Logbook(tmp_path, step=5, num_lines=5) as logbook:
        logbook.point(6, {"train/loss": 1.0})
        assert logbook.num_lines == 1


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    with Logbook(tmp_path / "log", enabled=False) as logbook:
        logbook.point(1, {"train/loss": 1.0})
        logbook.event(1, "skipped")
        logbook.flush()
    assert list(tmp_path.iterdir()) == []
