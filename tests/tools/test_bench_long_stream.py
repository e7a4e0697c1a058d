"""tools/bench_long_stream.py: the stream it plays, and its rows."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("lhotse")
pytest.importorskip("soundfile")
pytest.importorskip("matplotlib")
pytest.importorskip("sentencepiece")

import bench_long_stream as bench
import soundfile

from dualasr_lib.decoding.contract import Rewritten
from dualasr_lib.decoding.events import Event, Final
from dualasr_lib.decoding.hypothesis import TokenPath


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two recordings of 0.1 s and 0.05 s: ones and halves."""
    for name, value, size in (("a.wav", 0.25, 1600), ("b.wav", 0.5, 800)):
        soundfile.write(tmp_path / name, torch.full((size,), value).numpy(), 16000)
    return [tmp_path / "a.wav", tmp_path / "b.wav"]


def test_recordings_are_played_in_a_loop(files: list[Path]) -> None:
    player = bench.Player(files, 1000, 16000, None)
    blocks = list(player.blocks(7))
    assert [len(block) for block in blocks] == [1000] * 7
    expected = torch.cat([torch.full((1600,), 0.25), torch.full((800,), 0.5)]).repeat(3)
    assert torch.allclose(torch.cat(blocks), expected[:7000], atol=1e-4)
    assert len(player.seconds) == 7


def test_rows(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_MINUTES", 0.5 / 60)
    timed = bench.TimedPass(lambda hidden: Rewritten(TokenPath((), (), 0.0)))
    player = bench.Player(files, 1600, 16000, timed)

    def events() -> Iterator[Event]:
        """A second pass and a sentence at every fifth block."""
        for number, _ in enumerate(player.blocks(12), start=1):
            if number % 5 == 0:
                timed(torch.zeros(1, 1))
                yield Final(0.0, 0.5, "あ", (), "pause", "あ", 0.0)

    rows = list(bench.measure(events(), player, timed, 0.1))
    assert sum(len(row.chunk_ms) for row in rows) == 12
    assert sum(row.sentences for row in rows) == len(timed.seconds) == 2
    assert rows[-1].minutes == pytest.approx(1.2 / 60)
    assert all(row.rss_mb > 1 and row.rtf > 0 for row in rows)
    assert all(len(bench.cells(row)) == len(bench._HEADER) for row in rows)
    bench.draw(rows, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
