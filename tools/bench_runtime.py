#!/usr/bin/env python3
"""The runtime without torch beside torch: time of a streaming step, or texts of recordings.

    .venv-torch2/bin/python tools/bench_runtime.py --config egs/conf/sizes/small.toml
    .venv-torch2/bin/python tools/bench_runtime.py --bundle FILE --set DIR [--set DIR] WAV ...
    .venv-torch2/bin/python tools/bench_runtime.py --bundle FILE --set DIR [--set DIR] \
        --data-dir DATA --split eval1 eval2 eval3

The first makes a model of random weights and its sets (float32, int8), and gives CPU milliseconds
of a step, features and CTC head included, on one thread, in turn; "at 90 GF/s" is scaled by the
rate of matrix products between them. The others count texts that are torch's to the character,
each second pass that a set can, torch greedily, and on splits the errors, with 95 % intervals by
bootstrap over utterances; RTF is CPU seconds per second of audio. Loading and memory are of a
process of its own.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import markdown

if TYPE_CHECKING:
    from dualasr_lib.decoding.contract import StreamingModel
    from dualasr_lib.recognition.recogniser import Recogniser
    from dualasr_lib.recognition.trained_model import TrainedModel

_REFERENCE = 90e9
_TOKENS = 3266
_LOAD = """
import sys, time
begun = time.perf_counter()
from dualasr_lib.recognition.recogniser import Recogniser
imported = time.perf_counter()
recogniser = Recogniser.load(sys.argv[1], two_pass=None)
loaded = time.perf_counter()
import numpy as np
recogniser.transcribe(np.random.default_rng(1).normal(0, 0.1, 160000), 16000)
# not ru_maxrss, which a process inherits from the one that started it
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
print(f"{imported - begun:.2f} {loaded - imported:.2f} {time.process_time():.2f} {peak:.0f}")
"""


def main() -> None:
    arguments = _read()
    import torch

    torch.set_num_threads(1)
    if arguments.config is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(_speed(arguments, Path(folder)))
    else:
        print(_texts(arguments))


def _speed(arguments: argparse.Namespace, folder: Path) -> str:
    """A table of steps, and one of loading."""
    import torch
    from bench.timing import Gemm, measure, median

    from dualasr_lib.export.runtime import SetOptions, write_runtime_set
    from dualasr_lib.model.zipformer.streaming import ChunkSpec
    from dualasr_lib.recognition.recogniser import Recogniser

    trained, chunk = _random_model(arguments.config), ChunkSpec(frames=arguments.chunk, left=128)
    models: dict[str, StreamingModel] = {}
    for name in ("float32", "int8"):
        write_runtime_set(trained, chunk, SetOptions(), folder / name, int8=name == "int8")
        models[f"runtime {name}"] = Recogniser.load(folder / name).rules.model
    models = {"torch float32": trained.streaming(chunk), **models}
    device = torch.device("cpu")
    gemm, rows, rates = Gemm(device, torch.float32), [], []
    steps = {
        (name, streams): _stepper(model, streams)
        for streams in arguments.streams
        for name, model in models.items()
    }
    times: dict[Any, list[float]] = {key: [] for key in steps}
    with torch.inference_mode():
        for _ in range(arguments.rounds):
            for key, step in steps.items():
                step()
                times[key] += [1000 * measure(step, device).cpu for _ in range(5)]
                rates.append(gemm.square().cpu)
    scale = median(rates) / _REFERENCE
    for (name, streams), found in times.items():
        rows.append((name, str(streams), f"{median(found):.1f}", f"{median(found) * scale:.1f}"))
    head = ("what", "streams", "CPU ms a step", "at 90 GF/s")
    loading = _loading([folder / name for name in ("float32", "int8")])
    rate = f"chunk {chunk.frames}, {_size(trained)}; {median(rates) / 1e9:.0f} GF/s"
    return f"{rate}\n\n{markdown([head, *rows])}\n\n{loading}"


def _stepper(model: "StreamingModel", streams: int) -> Callable[[], None]:
    """Feeds noise, chunk by chunk."""
    import numpy as np

    from dualasr_lib.core.arrays import as_kind
    from dualasr_lib.core.tree import leaves

    state = model.init_state(streams)
    _, like = next(leaves(state))
    size = model.chunk_samples + model.lookahead_samples
    noise = np.random.default_rng(1).normal(0, 0.1, (streams, size)).astype(np.float32)
    window, left = as_kind(noise, like), as_kind(np.full(streams, 10**9), like)

    def step() -> None:
        nonlocal state
        state = model.step(window, left, state).state

    return step


def _random_model(config_file: Path) -> "TrainedModel":
    import torch

    from dualasr_lib.configuration import ExperimentConfig, build_model
    from dualasr_lib.core.config import from_dict, override, read_toml
    from dualasr_lib.data.tokenizer import Tokenizer
    from dualasr_lib.model.inference import prepare_for_inference
    from dualasr_lib.recognition.trained_model import TrainedModel

    values = override(read_toml(config_file), ['model.branches=["streaming"]'])
    config = from_dict(ExperimentConfig, {"training": {"num_epochs": 1}, **values})
    tokenizer = Tokenizer.train(["".join(chr(0x4E00 + i) for i in range(_TOKENS))])
    torch.manual_seed(0)
    model = build_model(config, tokenizer).eval()
    prepare_for_inference(model)
    return TrainedModel(config, model, tokenizer, torch.device("cpu"), "random weights")


def _size(trained: "TrainedModel") -> str:
    return f"{sum(p.numel() for p in trained.model.parameters()) / 1e6:.1f} M numbers"


def _texts(arguments: argparse.Namespace) -> str:
    from dualasr_lib.recognition.recogniser import Recogniser
    from dualasr_lib.runtime.layout import read_description

    recordings = _recordings(arguments)
    theirs = Recogniser.load(arguments.bundle, method="greedy", device="cpu")
    expected = _heard(theirs, recordings)
    rows = [("torch", "greedy", "", "", *_errors(recordings, expected), f"{expected.rtf:.3f}")]
    for folder in arguments.set:
        able = ["attention"] if "attention" in read_description(folder) else []
        for second in ("greedy", *able):
            found = _heard(_by(folder, second), recordings)
            same = [
                f"{sum(map(str.__eq__, ours, theirs))} of {len(theirs)}"
                for ours, theirs in zip(found[:2], expected[:2])
            ]
            rows.append((folder.name, second, *same, *_errors(recordings, found),
                         f"{found.rtf:.3f}"))  # fmt: skip
    head = ("what", "second pass", "first pass as torch", "final as torch", "first pass CER %",
            "final CER %", "RTF")  # fmt: skip
    return f"{markdown([head, *rows])}\n\n{_loading(arguments.set)}"


def _by(folder: Path, second: str) -> "Recogniser":
    from dualasr_lib.recognition.recogniser import Recogniser
    from dualasr_lib.runtime.opening import Wanted, open_rules

    return Recogniser(*open_rules(folder, Wanted(second=second)))


class _Recording(NamedTuple):
    """Something to hear."""

    audio: Any
    """A path, or a function that gives samples at 16 kHz."""
    text: str | None
    """What is said; None: not known."""


class _Texts(NamedTuple):
    """Of each recording."""

    first: list[str]
    final: list[str]
    rtf: float
    """CPU seconds per second of audio."""


def _recordings(arguments: argparse.Namespace) -> list[_Recording]:
    if arguments.data_dir is None:
        return [_Recording(path, None) for path in arguments.wav]
    import torch

    from dualasr_lib.programs.data import open_data
    from dualasr_lib.recognition.decode_config import DecodeConfig
    from dualasr_lib.recognition.origin import open_origin

    origin = open_origin(DecodeConfig(bundle=arguments.bundle), torch.device("cpu"))
    data = open_data(origin.trained, arguments.data_dir)
    return [
        _Recording(cut.audio, cut.text)
        for split in arguments.split
        for cut in data.split_cuts(split)[: arguments.limit]
    ]


def _heard(recogniser: "Recogniser", recordings: Sequence[_Recording]) -> _Texts:
    spent, seconds, texts = 0.0, 0.0, list[tuple[str, str]]()
    for audio, _ in recordings:
        given = (audio,) if isinstance(audio, Path) else (audio().numpy(), 16000)
        begun = time.process_time()
        transcript = recogniser.transcribe(*given)
        spent += time.process_time() - begun
        seconds += transcript.duration
        first = "".join(final.first_pass_text for final in transcript.segments)
        texts.append((first, "".join(final.text for final in transcript.segments)))
    first_pass, final = (list(each) for each in zip(*texts))
    return _Texts(first_pass, final, spent / seconds)


def _errors(recordings: Sequence[_Recording], texts: _Texts) -> tuple[str, str]:
    """CER of first and final texts with its interval; empty where what is said is not known."""
    from dualasr_lib.metrics.bootstrap import cer_interval
    from dualasr_lib.metrics.error_rate import count_errors

    refs = [recording.text for recording in recordings]
    if any(ref is None for ref in refs):
        return "", ""
    shown = []
    for found in texts[:2]:
        counts = [count_errors(ref or "", text) for ref, text in zip(refs, found)]
        found_rate = cer_interval([c.errors for c in counts], [c.num_ref for c in counts])
        value, low, high = (100 * (x or 0.0) for x in found_rate)
        shown.append(f"{value:.2f} [{low:.2f}, {high:.2f}]")
    return shown[0], shown[1]


def _loading(folders: Sequence[Path]) -> str:
    head = ("set", "import s", "load s", "CPU s with 10 s of audio", "peak MB")
    # tools/env.sh asks for memory that is never given back, for training
    plain = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    rows = []
    for folder in folders:
        done = subprocess.run(
            [sys.executable, "-c", _LOAD, str(folder)], capture_output=True, text=True, check=True,
            env=plain,
        )  # fmt: skip
        rows.append((folder.name, *done.stdout.split()))
    return markdown([head, *rows])


def _read() -> argparse.Namespace:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = reader.add_argument
    add("--config", type=Path, help="sizes of a model of random weights: times of steps")
    add("--chunk", type=int, default=32, help="frames of 20 ms; default: 32")
    add("--streams", type=int, nargs="+", default=[1, 8])
    add("--rounds", type=int, default=5)
    add("--bundle", type=Path, help="a model whose texts are compared")
    add("--set", type=Path, action="append", default=[], metavar="DIR", help="may be repeated")
    add("--data-dir", type=Path, help="what prepare.sh wrote: splits in place of recordings")
    add("--split", nargs="+", default=["eval1", "eval2", "eval3"])
    add("--limit", type=int, help="utterances of a split; default: all")
    add("wav", type=Path, nargs="*", metavar="WAV")
    arguments = reader.parse_args()
    if (arguments.config is None) == (arguments.bundle is None):
        raise ValueError("either --config or --bundle with --set and recordings must be given")
    if arguments.bundle is not None and not (arguments.set and _has_audio(arguments)):
        raise ValueError("--bundle needs --set, exported of it, and recordings or --data-dir")
    return arguments


def _has_audio(arguments: argparse.Namespace) -> bool:
    return bool(arguments.wav) != (arguments.data_dir is not None)


if __name__ == "__main__":
    run_program(main)
