"""What the repository holds: little audio, and no large file but the model that it ships."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = Path("dualasr_lib/recognition/default.dualasr")
AUDIO = {".wav", ".flac", ".ogg", ".mp3", ".opus", ".m4a", ".sph", ".aac"}
MOST_AUDIO = LARGEST = 1_000_000


def kept() -> dict[Path, int]:
    """The bytes of each file that git knows."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no clone: nobody says which files belong to it")
    paths = [Path(name) for name in listed.stdout.split("\0") if name]
    return {path: (ROOT / path).stat().st_size for path in paths if (ROOT / path).is_file()}


def faults(sizes: dict[Path, int]) -> list[str]:
    """What is too much of these files."""
    audio = sum(size for path, size in sizes.items() if path.suffix.lower() in AUDIO)
    found = [f"{audio} bytes of audio"] if audio > MOST_AUDIO else []
    return found + [
        f"{path}: {size} bytes"
        for path, size in sizes.items()
        if size > LARGEST and path != SHIPPED
    ]


def test_the_repository_stays_small() -> None:
    sizes = kept()
    assert SHIPPED in sizes and faults(sizes) == []


def test_what_is_too_large_is_found() -> None:
    few = {Path(f"tests/{n}.WAV"): 300_000 for n in range(3)}
    assert faults({**few, SHIPPED: 9_000_000}) == []
    assert faults({**few, Path("a.flac"): 200_000}) == ["1100000 bytes of audio"]
    assert faults({Path("egs/b.dualasr"): 1_000_001}) == ["egs/b.dualasr: 1000001 bytes"]
