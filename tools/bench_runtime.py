#!/usr/bin/env python3
"""The runtime without torch beside torch: time of a streaming step, or texts of recordings.

    .venv-torch2/bin/python tools/bench_runtime.py --config egs/conf/sizes/small.toml
    .venv-torch2/bin/python tools/bench_runtime.py --bundle FILE --set DIR [--set DIR] WAV ...

The first makes a model of random weights and its sets (float32, int8), and gives CPU milliseconds
of a step, features and CTC head included, on one thread, in turn; "at 90 GF/s" is scaled by the
rate of matrix products between them. The second counts final texts that are torch's to the
character, both passes greedy; RTF is CPU seconds per second of audio. Loading and memory are of a
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
from typing import TYPE_CHECKING, Any

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

    theirs = Recogniser.load(arguments.bundle, method="greedy", device="cpu")
    expected, rtf = _finals(theirs, arguments.wav)
    rows = [("torch", "", "", f"{rtf:.3f}")]
    for folder in arguments.set:
        found, rtf = _finals(Recogniser.load(folder), arguments.wav)
        aligned = len(found) == len(expected)
        for_all = [sum(map(str.__eq__, *pair)) for pair in zip(zip(*found), zip(*expected))]
        first, last = for_all if aligned else ("other ends",) * 2
        rows.append((folder.name, f"{first} of {len(expected)}", f"{last} of {len(expected)}",
                     f"{rtf:.3f}"))  # fmt: skip
    head = ("what", "first pass as torch", "final as torch", "RTF")
    return f"{markdown([head, *rows])}\n\n{_loading(arguments.set)}"


def _finals(recogniser: "Recogniser", files: Sequence[Path]) -> tuple[list[Any], float]:
    """(first pass, final text) of every sentence, and CPU seconds per second of audio."""
    begun, found, seconds = time.process_time(), [], 0.0
    for path in files:
        transcript = recogniser.transcribe(path)
        seconds += transcript.duration
        found += [(final.first_pass_text, final.text) for final in transcript.segments]
    return found, (time.process_time() - begun) / seconds


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
    add("wav", type=Path, nargs="*", metavar="WAV")
    arguments = reader.parse_args()
    if (arguments.config is None) == (arguments.bundle is None):
        raise ValueError("either --config or --bundle with --set and recordings must be given")
    if arguments.bundle is not None and not (arguments.set and arguments.wav):
        raise ValueError("--bundle needs --set, what was exported of it, and recordings")
    return arguments


if __name__ == "__main__":
    run_program(main)
