"""Proves an environment by using every package once; prints a table; exit code 1 if anything fails.

    python tools/setup/check_setup.py [--lane default|torch2]

Called by tools/setup.sh. Each package does a small piece of real work whose right answer is known,
and versions are compared with tools/setup/requirements/. What the packages say meanwhile is shown
only where one fails. Left out: speed, GPUs and the project's own tests.
"""

import argparse
import contextlib
import ctypes
import importlib.metadata
import math
import os
import re
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["PROOFS", "Proof", "Row", "check", "main", "pins"]

_ROOT = Path(__file__).resolve().parents[2]
_REQUIREMENTS = {
    "default": ("bootstrap.txt", "default.txt", "k2.txt", "kaldifeat.txt"),
    "torch2": ("bootstrap.txt", "torch2.txt"),
}


class Row(NamedTuple):
    """One line of the table."""

    name: str
    version: str
    proof: str
    """What was done and came out right, or "FAILED: " and why."""


def _torch(_: Path) -> str:
    import torch

    matrix = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    matrix.requires_grad_()
    (matrix @ matrix).sum().backward()
    assert matrix.grad is not None
    assert matrix.grad.tolist() == [[7.0, 11.0], [9.0, 13.0]], matrix.grad
    return f"a gradient; {torch.get_num_threads()} threads, CUDA {torch.cuda.is_available()}"


def _numpy(_: Path) -> str:
    import numpy as np
    import torch

    array = torch.arange(6.0).numpy()
    assert math.isclose(np.linalg.norm(array), math.sqrt(55), rel_tol=1e-6)
    return "shares memory with torch"


def _k2(_: Path) -> str:
    import k2
    import torch

    # Three frames over {blank, 1, 2} whose best CTC path is 1, blank, 2.
    log_probs = torch.tensor([[[0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]]).log()
    segments = torch.tensor([[0, 0, 3]], dtype=torch.int32)
    lattice = k2.intersect_dense_pruned(
        k2.create_fsa_vec([k2.ctc_topo(2)]),
        k2.DenseFsaVec(log_probs, segments),
        search_beam=20.0,
        output_beam=8.0,
        min_active_states=1,
        max_active_states=100,
    )
    best = k2.shortest_path(lattice, use_double_scores=True)
    tokens = [label for label in best.aux_labels.tolist() if label > 0]
    assert tokens == [1, 2], tokens
    assert abs(best.get_tot_scores(True, True).item() - 3 * math.log(0.8)) < 1e-5
    return f"an intersection: best path {tokens}"


def _kaldifeat(_: Path) -> str:
    import lhotse
    import torch

    from dualasr_lib.features.fbank import Fbank, FbankConfig

    samples = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    features = Fbank(FbankConfig())(samples)
    expected = torch.from_numpy(lhotse.Fbank().extract(samples.numpy(), 16000))
    difference = float((features - expected).abs().max())
    assert features.shape == (100, 80)
    assert difference < 1e-3, difference
    return f"an fbank, {difference:.0e} from lhotse's"


def _native_fbank(_: Path) -> str:
    import kaldi_native_fbank  # noqa: F401
    import torch

    from dualasr_lib.features.fbank import FbankConfig, FrameComputer

    # A tone of 1 kHz: its energy is in the mel band around it, whichever library computes.
    config = FbankConfig()
    tone = 0.1 * torch.sin(2 * math.pi * 1000 / 16000 * torch.arange(config.window))
    band = int(FrameComputer(config, "kaldi_native_fbank")(tone[None])[0].argmax())
    assert band == 27, band
    return f"a tone of 1 kHz in mel band {band}"


def _onnx(_: Path) -> str:
    import torch

    from dualasr_lib.export.graph import Signature, session, traced

    x = torch.tensor([[1.0, 2.0, 4.0]])
    graph = traced(torch.nn.Softmax(dim=1), [x], Signature(("x",), ("y",), {}), {})
    (y,) = session(graph).run(None, {"x": x.numpy()})
    difference = float((torch.from_numpy(y) - x.softmax(dim=1)).abs().max())
    assert difference < 1e-6, difference
    return f"a traced softmax, {difference:.0e} from torch's"


def _sherpa_onnx(_: Path) -> str:
    import sherpa_onnx

    buffer = sherpa_onnx.CircularBuffer(8)
    buffer.push([0.25, 0.5, 0.75])
    assert buffer.get(1, 2) == [0.5, 0.75]
    return "a buffer of samples"


def _lhotse(folder: Path) -> str:
    import lhotse
    from lhotse.dataset import SimpleCutSampler

    path = folder / "second.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(b"\x00\x10" * 16000)
    cut = lhotse.Recording.from_file(path).to_cut()
    assert cut.truncate(duration=0.5).load_audio().shape == (1, 8000)
    features = cut.compute_and_store_features(
        lhotse.Fbank(), lhotse.LilcomChunkyWriter(folder / "features")
    )
    assert features.load_features().shape == (100, 80)
    batches = list(SimpleCutSampler(lhotse.CutSet.from_cuts([cut]), max_duration=10.0))
    assert [len(batch) for batch in batches] == [1]
    return "a cut: audio, lilcom features, sampler"


def _sentencepiece(folder: Path) -> str:
    import sentencepiece

    text = "今日は良い天気です"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text] * 10),
        model_prefix=str(folder / "characters"),
        vocab_size=20,
        model_type="char",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "characters.model"))
    assert model.decode(model.encode(text)) == text
    return "a character model, there and back"


def _soxr(_: Path) -> str:
    import numpy as np
    import soxr

    stream = soxr.ResampleStream(48000, 16000, num_channels=1, dtype="float32")
    noise = np.random.default_rng(0).standard_normal(4800).astype(np.float32)
    pieces = [stream.resample_chunk(noise[:1000]), stream.resample_chunk(noise[1000:], last=True)]
    assert np.array_equal(np.concatenate(pieces), soxr.resample(noise, 48000, 16000))
    return "48 kHz to 16 kHz, in pieces as at once"


def _kaldingram(folder: Path) -> str:
    from kaldingram.cli import main as kaldingram

    text, arpa = folder / "text.txt", folder / "lm.arpa"
    text.write_text("あ い\nい あ い\nあ あ\n")
    kaldingram(["train", "--ngram-order", "2", "--text", str(text), "--lm", str(arpa)])
    assert "ngram 2=" in arpa.read_text()
    return "a bigram of three sentences"


def _kaldialign(_: Path) -> str:
    import kaldialign

    result = kaldialign.edit_distance(list("音声認識"), list("音声確認識"))
    assert (result["ins"], result["del"], result["sub"]) == (1, 0, 0), result
    return "an edit distance"


def _tensorboard(folder: Path) -> str:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "events")) as writer:
        writer.add_scalar("loss", 0.5, 7)
    events = EventAccumulator(str(folder / "events")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(7, 0.5)]
    return "a scalar, written and read"


def _pyopenjtalk(_: Path) -> str:
    import pyopenjtalk

    words = pyopenjtalk.run_frontend("三人で行く", use_sudachi_kanji_yomi=False)
    assert "".join(word["pron"] for word in words) == "サンニンデイク", words
    assert len(pyopenjtalk.make_label(words)) == 13  # silence, s a N n i N d e i k u, silence
    return "words and phones of a sentence"


def _htsengine(_: Path) -> str:
    ctypes.CDLL("libHTSEngine.so.1").HTS_Engine_initialize  # noqa: B018
    return "loads (system package libhtsengine1)"


def _scipy(_: Path) -> str:
    import numpy as np
    from scipy.signal import resample_poly

    assert resample_poly(np.ones(480), 1, 3).shape == (160,)
    return "48 kHz to 16 kHz"


def _matplotlib(folder: Path) -> str:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure()
    figure.add_subplot().plot([0, 1])
    figure.savefig(folder / "figure.png")
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    return "a figure"


def _project(_: Path) -> str:
    import dualasr_lib

    where = Path(str(dualasr_lib.__file__)).resolve().parent
    assert where == _ROOT / "dualasr_lib", where
    return "imported from this clone"


Proof = Callable[[Path], str]
_BOTH: dict[str, Proof] = {
    "torch": _torch,
    "numpy": _numpy,
    "tensorboard": _tensorboard,
    "lhotse": _lhotse,
    "sentencepiece": _sentencepiece,
    "soxr": _soxr,
    "kaldi-native-fbank": _native_fbank,
    "dualasr": _project,
}
PROOFS: dict[str, dict[str, Proof]] = {
    "default": {
        **_BOTH,
        "k2": _k2,
        "kaldifeat": _kaldifeat,
        "kaldingram": _kaldingram,
        "kaldialign": _kaldialign,
        "pyopenjtalk-plus": _pyopenjtalk,
        "libHTSEngine": _htsengine,
        "scipy": _scipy,
        "matplotlib": _matplotlib,
    },
    "torch2": {
        **_BOTH,
        "onnx": _onnx,
        "onnxruntime": _onnx,
        "sherpa-onnx": _sherpa_onnx,
    },
}
"""Per lane: distribution name -> work done in a scratch folder, which returns what it showed."""


def check(lane: str) -> list[Row]:
    """Runs every proof of a lane, and compares every installed version with its pin.

    Args:
        lane: "default" or "torch2".
    """
    rows = [_prove(name, proof) for name, proof in PROOFS[lane].items()]
    for name, pinned in sorted(pins(lane).items()):
        installed = _version(name)
        if installed != pinned:
            rows.append(Row(name, installed, f"FAILED: {pinned} is pinned"))
    return rows


def _prove(name: str, proof: Proof) -> Row:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as chatter:
        try:
            with _redirected(chatter.fileno()):
                outcome = proof(Path(folder))
        except Exception as error:  # whatever goes wrong, it is this package's line of the table
            outcome = f"FAILED: {type(error).__name__}: {error}".splitlines()[0]
            chatter.seek(0)
            sys.stderr.write(chatter.read().decode(errors="replace"))
    return Row(name, _version(name), outcome)


@contextlib.contextmanager
def _redirected(target: int) -> Iterator[None]:
    """Sends standard output and error, those of C++ code too, to file descriptor `target`."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    os.dup2(target, 1)
    os.dup2(target, 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, original in enumerate(kept, start=1):
            os.dup2(original, descriptor)
            os.close(original)


def pins(lane: str) -> dict[str, str]:
    """Package -> version, as the lane's requirement files say."""
    pins: dict[str, str] = {}
    for file in _REQUIREMENTS[lane]:
        text = (_ROOT / "tools" / "setup" / "requirements" / file).read_text(encoding="utf-8")
        pins.update(re.findall(r"^([\w.-]+)==([\w.]+)", text, flags=re.MULTILINE))
    return pins


def _version(name: str) -> str:
    """Installed version without a local part (torch's "+cpu"), or "-"."""
    try:
        return importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "-"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--lane", choices=sorted(PROOFS), default="default")
    rows = check(parser.parse_args(arguments).lane)
    python = ".".join(str(part) for part in sys.version_info[:3])
    print(f"{'python':<18}{python:<15}{sys.executable}")
    for row in rows:
        print(f"{row.name:<18}{row.version:<15}{row.proof}")
    return 1 if any(row.proof.startswith("FAILED") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
