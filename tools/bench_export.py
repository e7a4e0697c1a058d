#!/usr/bin/env python3
"""An export beside torch: the same utterances, the same greedy search, in the real client.

    .venv-torch2/bin/python tools/bench_export.py --exp-dir EXP --data-dir DATA --export DIR
        --split eval1 [--limit 100]

Decodes with torch and with every model of DIR (sherpa-onnx, one thread each), one utterance at a
time, with the silence after it that brings the last word out. "as torch" counts texts that are the
same to the character; torch also hears the last, incomplete chunk of that silence, which the client
leaves out, and may say a token there. RTF is CPU seconds per second of audio,
features and search included.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import markdown

if TYPE_CHECKING:
    from torch import Tensor

    from dualasr_lib.recognition.trained_model import TrainedModel

_HEAD = ("branch", "runtime", "MB", "CER %", "as torch", "RTF")

Hear = Callable[["Tensor"], str]


def main() -> None:
    arguments = _read()
    import torch

    from dualasr_lib.export.folder import FULL, STREAMING
    from dualasr_lib.recognition.trained_model import TrainedModel

    torch.set_num_threads(1)
    trained = TrainedModel.from_checkpoint(
        arguments.exp_dir, arguments.data_dir, torch.device("cpu"), arguments.epoch, arguments.avg
    )
    samples, refs = _utterances(trained, arguments)
    seconds = sum(map(len, samples)) / trained.config.features.sample_rate
    print(f"{len(samples)} utterances, {seconds:.0f} s; {trained.source}")
    rows = []
    for name, branch in (
        (FULL, "full"),
        (STREAMING, "streaming"),
    ):  # a model set for steps is slower at wholes
        ways: dict[str, tuple[str, Hear]] = {}
        for path in sorted(arguments.export.glob(f"{name}*.onnx"), key=lambda p: len(p.name)):
            ways[path.name] = (f"{path.stat().st_size / 1e6:.1f}", _client(path, trained, branch))
        if not ways:
            continue
        ways = {"torch": ("", _torch(trained, branch)), **ways}
        torchs: list[str] = []
        for runtime, (size, hear) in ways.items():
            begun = time.process_time()
            texts = [hear(audio) for audio in samples]
            spent = time.process_time() - begun
            torchs = torchs or texts
            same = sum(map(str.__eq__, texts, torchs))
            rows.append((branch, runtime, size, f"{_error_rate(refs, texts):.2f}",
                         f"{same}/{len(texts)}", f"{spent / seconds:.4f}"))  # fmt: skip
    print(markdown([_HEAD, *rows]))


def _read() -> argparse.Namespace:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = reader.add_argument
    add("--exp-dir", type=Path, required=True)
    add("--data-dir", type=Path, required=True)
    add("--export", type=Path, required=True, help="what dualasr-export wrote of this checkpoint")
    add("--epoch", type=int)
    add("--avg", type=int, default=0)
    add("--split", required=True)
    add("--limit", type=int, default=100, help="utterances; default: 100")
    arguments = reader.parse_args()
    if arguments.limit < 1:
        raise ValueError(f"--limit must be at least 1, but is {arguments.limit}")
    if not (arguments.export / "export.json").is_file():
        raise ValueError(f"{arguments.export} must be a folder that dualasr-export wrote")
    return arguments


def _utterances(
    trained: "TrainedModel", arguments: argparse.Namespace
) -> tuple[list["Tensor"], list[str]]:
    from dualasr_lib.programs.data import open_data

    found = open_data(trained, arguments.data_dir).split_cuts(arguments.split)[: arguments.limit]
    return [utterance.audio() for utterance in found], [utterance.text for utterance in found]


class _Recording(NamedTuple):
    """An utterance as the frame loop of streams wants it."""

    samples: "Tensor"
    id: str = ""
    text: str = ""
    words: tuple[()] = ()

    def audio(self) -> "Tensor":
        return self.samples


def _torch(trained: "TrainedModel", branch: str) -> Hear:
    from dualasr_lib.data.batch import Example, collate
    from dualasr_lib.decoding.greedy import OnlineGreedy, greedy
    from dualasr_lib.decoding.one_head import OneHead
    from dualasr_lib.decoding.streaming import StreamingConfig, decode_streams
    from dualasr_lib.features.fbank import Fbank

    chunk = trained.chunk()
    if branch == "streaming":
        path = trained.streaming(chunk)

        def stream(audio: "Tensor") -> str:
            recording = [_Recording(_with_silence(audio, trained))]
            config = StreamingConfig(num_streams=1)
            run = decode_streams(
                recording, path, OneHead(OnlineGreedy()), trained.detokenise, config
            )
            return run.hypotheses[0].text

        return stream
    fbank = Fbank(trained.config.features)

    def whole(audio: "Tensor") -> str:
        heard = trained.hear(collate([Example("", "", 0.0, fbank(audio), ())]), "full", chunk)
        return trained.detokenise(greedy(heard.log_probs, heard.lens)[0].tokens)

    return whole


def _client(path: Path, trained: "TrainedModel", branch: str) -> Hear:
    import sherpa_onnx

    ids = {token: number for number, token in enumerate(trained.tokenizer.tokens)}
    files = {"tokens": str(path.with_name("tokens.txt")), "model": str(path), "num_threads": 1}

    def text(tokens: Sequence[str]) -> str:
        return trained.detokenise([ids[token] for token in tokens])

    if branch == "streaming":
        online = sherpa_onnx.OnlineRecognizer.from_zipformer2_ctc(**files)

        def stream(audio: "Tensor") -> str:
            heard = online.create_stream()
            heard.accept_waveform(16000, _with_silence(audio, trained).numpy())
            while online.is_ready(heard):
                online.decode_stream(heard)
            return text(online.tokens(heard))

        return stream
    offline = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(**files)

    def whole(audio: "Tensor") -> str:
        heard = offline.create_stream()
        heard.accept_waveform(16000, audio.numpy())
        offline.decode_stream(heard)
        return text(heard.result.tokens)

    return whole


def _with_silence(audio: "Tensor", trained: "TrainedModel") -> "Tensor":
    """What the README of an export asks for at the end of a stream."""
    import torch

    from dualasr_lib.export.states import layout_of

    contract = layout_of(trained.model.streaming, trained.chunk()).contract
    return torch.cat([audio, torch.zeros(16 * contract.first_result_ms)])


def _error_rate(refs: Sequence[str], texts: Sequence[str]) -> float:
    from dualasr_lib.metrics.error_rate import count_errors

    counts = [count_errors(ref, text) for ref, text in zip(refs, texts)]
    return 100 * sum(c.errors for c in counts) / max(1, sum(c.num_ref for c in counts))


if __name__ == "__main__":
    run_program(main)
