"""Ten thousand damaged files: whatever a reader is given, it gives a result or a one-line error.

Each input is a good file with pieces of it replaced by what editors, disks and networks make of
files. Hypothesis draws them from a fixed seed.
"""

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dualasr_lib.core.config import load
from dualasr_lib.core.program import USERS_ERRORS, one_line
from dualasr_lib.lattice.lexicon import LexiconLm
from dualasr_lib.lattice.ngram import NgramLm

Edits = list[tuple[int, int, bytes]]
"""Place, bytes that are taken away, what is put there."""

PIECES = [
    b"", b"\n", b"\r", b"\r\n", b"\n\n", b"\t", b" ", b"\x00", b"\xff", b"\x82", b"\x1f\x8b",
    b"\xef\xbb\xbf", "\u3000".encode(), "\u200b".encode(), "か\u3099".encode(), b"nan",
    b"-inf", b"1e999",
    b"-1", b"0", b"9" * 25, b"(", b")", b"[", b"{", b"}", b'"', b"'", b"=", b",", b";", b":", b"\\",
]  # fmt: skip

fuzzed = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def edits(more: list[bytes] | None = None, number: int = 4) -> st.SearchStrategy[Edits]:
    edit = st.tuples(
        st.integers(0, 1 << 16), st.integers(0, 6), st.sampled_from([*PIECES, *(more or [])])
    )
    return st.lists(edit, max_size=number)


def edited(content: bytes, changes: Edits) -> bytes:
    for place, size, piece in changes:
        place %= len(content) + 1
        content = content[:place] + piece + content[place + size :]
    return content


def survives(read: Callable[[], object]) -> bool:
    """Whether there was a result; anything but an error of the user's, in one line, fails."""
    message = ""
    try:
        read()
    except USERS_ERRORS as error:
        message = one_line(error)
    assert len(message.splitlines()) <= 1
    return not message


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "A01M0097.sdb"


def _sdb() -> bytes:
    words = ["(F えー)", "それ", "(A 二;２)", "(M は", "です)", "<笑>"]
    rows = [
        f"{i:06d}\t\tA01M0097\t{i // 2:04d} {i // 2:05d}.100-{i // 2:05d}.900 L:-001-001\t\t{word}"
        "\t\t\t\t\tヨミ\t名詞\n"
        for i, word in enumerate(words, start=2)
    ]
    return "".join(rows).encode("shift_jis")


@settings(fuzzed, max_examples=2500)
@given(edits([b"(F ", b"<", b"A01M0097", "×".encode("shift_jis"), b"L:", b"R:"]))
@example([])
def test_sdb(file: Path, changes: Edits) -> None:
    """Every fault is a named defect; there is no exception at all."""
    pytest.importorskip("lhotse")
    from egs.csj.local.sdb import check_sdb

    file.write_bytes(edited(_sdb(), changes))
    report = check_sdb(file, "A01M0097")
    for item in (*report.defects, *report.warnings):
        assert "\n" not in str(item)
        assert str(item).startswith("A01M0097: ")
    if not changes:
        assert not report.defects
        assert [span.text for span in report.spans] == ["えーそれ", "二はです"]


SYMBOLS = {"<blk>": 0, "東": 3, "京": 4, "が": 5}
ARPA = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-99\t<s>\t-0.5
-1.0\t</s>
-0.7\t東\t-0.3
-0.9\t京\t-0.2
-0.8\tが\t-0.1

\\2-grams:
-0.4\t<s> 東
-0.6\t東 京

\\end\\
"""


@settings(fuzzed, max_examples=2000)
@given(edits(["東".encode(), b"<unk>", b"\\end\\", b"ngram 3=1"]), st.booleans())
@example([], True)
@example([], False)
def test_arpa(file: Path, changes: Edits, packed: bool) -> None:
    content = ARPA.encode()
    file.write_bytes(edited(gzip.compress(content, mtime=0) if packed else content, changes))
    result = survives(lambda: NgramLm.load(file, SYMBOLS))
    assert result or changes


@settings(fuzzed, max_examples=2000)
@given(edits(["東".encode(), "今".encode()]), st.booleans())
@example([], True)
@example([], False)
def test_lexicon(file: Path, changes: Edits, packed: bool) -> None:
    arpa = file.with_suffix(".arpa")
    if not arpa.is_file():
        arpa.write_text(ARPA, encoding="utf-8")
    content = "東京 東 京\n東 東\nが が\n".encode()
    file.write_bytes(edited(gzip.compress(content, mtime=0) if packed else content, changes))
    result = survives(lambda: LexiconLm.load(file, arpa, SYMBOLS))
    assert result or changes


@dataclass(frozen=True, kw_only=True)
class Inner:
    dims: tuple[int, ...] = (1, 2)
    rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Config:
    name: str = "a"
    flag: bool = False
    limit: float | None = None
    inner: Inner = field(default_factory=Inner)


@settings(fuzzed, max_examples=1500)
@given(edits([b"inf", b"true", b"[inner]", b"[[inner]]", b"include = 'A01M0097.sdb'\n", b"#"]))
@example([])
def test_toml(file: Path, changes: Edits) -> None:
    content = 'name = "東京"\nflag = true\nlimit = 2\n[inner]\ndims = [1, 2, 3]\nrate = 1e-3\n'
    file.write_bytes(edited(content.encode(), changes))
    result = survives(lambda: load(Config, file))
    assert result or changes


def _cut(number: int) -> dict[str, object]:
    times = {"start": 0.0, "duration": 1.5}
    features = {"type": "fbank", "num_frames": 150, "num_features": 80, "frame_shift": 0.01,
                "sampling_rate": 16000, "storage_type": "lilcom_chunky", "storage_key": "0,10",
                "storage_path": "features/a.lca", "channels": 0, **times}  # fmt: skip
    supervision = {"id": "s", "recording_id": "r", "channel": 0, "text": "東京", **times}
    return {"id": f"c{number}", "channel": 0, "type": "MonoCut", "features": features,
            "supervisions": [supervision], **times}  # fmt: skip


@settings(fuzzed, max_examples=1500)
@given(edits([b"null", b"true", b"[]", b"{}", b"1e5", b'"id"']), st.booleans())
@example([], True)
@example([], False)
def test_manifest(file: Path, changes: Edits, inside: bool) -> None:
    """Damage to the packed file, and to what is packed; lhotse can read what passes."""
    pytest.importorskip("lhotse")
    from lhotse.serialization import deserialize_item

    from dualasr_lib.data.manifest import read_entries

    lines = "".join(json.dumps(_cut(i), ensure_ascii=False) + "\n" for i in range(3)).encode()
    packed = gzip.compress(edited(lines, changes) if inside else lines, mtime=0)
    file.write_bytes(packed if inside else edited(packed, changes))
    result = survives(lambda: list(read_entries(file)))
    assert result or changes
    if result and inside:
        with gzip.open(file, "rb") as passed:
            assert all(deserialize_item(json.loads(line)).id for line in passed if line.strip())


def _audio(kind: str) -> bytes:
    import numpy as np
    import soundfile

    target = io.BytesIO()
    tone = 0.1 * np.sin(np.arange(800) / 7)
    soundfile.write(target, np.stack([tone, tone / 2], axis=1), 16000, format=kind)
    return target.getvalue()


@settings(fuzzed, max_examples=800)
@given(st.sampled_from(["WAV", "FLAC", "OGG"]), edits([b"RIFF", b"data", b"\xff\xff\xff\xff"], 3),
       st.integers(0, 120))  # fmt: skip
def test_audio_headers(file: Path, kind: str, changes: Edits, limit: int) -> None:
    """Damage to the first bytes, and files that are cut short."""
    pytest.importorskip("soundfile")
    pytest.importorskip("soxr")
    from dualasr_lib.data.audio import open_audio

    whole = _audio(kind)
    head = 20 + limit
    path = file.with_suffix(f".{kind.lower()}")
    path.write_bytes(edited(whole[:head], changes) + (whole[head:] if limit % 4 else b""))

    def read() -> None:
        total = 0
        for block in open_audio(path).blocks(1600):
            total += len(block)
            assert np.isfinite(block).all()
            if total > 1 << 22:  # a rate of a few Hz makes hours of it
                break

    survives(read)
