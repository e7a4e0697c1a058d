#!/usr/bin/env python3
"""An export beside torch: the same utterances, the same searches, in the real client.

    .venv-torch2/bin/python tools/bench_export.py --exp-dir EXP --data-dir DATA --export DIR
        --split eval1 [--limit 100] [--tail-ms 480]

Decodes with torch and with every model of DIR (sherpa-onnx, one thread each), one utterance at a
time; streams with the silence behind them that DIR's README asks for, for torch and the client
alike. "as torch" counts texts that are the same to the character. `beam` is the client's
modified_beam_search beside our transducer-beam, which is another search of the same scores. RTF is
CPU seconds per second of audio, features and search included.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import markdown
from dualasr_lib.export.names import HEADS, PARTS, TOKENS, graph_name

if TYPE_CHECKING:
    from torch import Tensor

    from dualasr_lib.recognition.trained_model import TrainedModel

_HEAD = ("branch", "head", "search", "runtime", "MB", "CER %", "as torch", "RTF")
_SEARCHES = {"ctc": ("greedy",), "transducer": ("greedy", "beam")}

Hear = Callable[["Tensor"], str]


class _Task(NamedTuple):
    trained: "TrainedModel"
    export: Path
    branch: str
    head: str
    search: str

    def tail(self, milliseconds: int | None) -> int:
        """Samples of silence behind a stream."""
        from dualasr_lib.export.states import layout_of

        if self.branch != "streaming":
            return 0
        contract = layout_of(self.trained.model.streaming, self.trained.chunk()).contract
        return 16 * (contract.tail_ms if milliseconds is None else milliseconds)


def main() -> None:
    arguments = _read()
    import torch

    from dualasr_lib.recognition.trained_model import TrainedModel

    torch.set_num_threads(1)
    trained = TrainedModel.from_checkpoint(
        arguments.exp_dir, arguments.data_dir, torch.device("cpu"), arguments.epoch, arguments.avg
    )
    samples, refs = _utterances(trained, arguments)
    seconds = sum(map(len, samples)) / trained.config.features.sample_rate
    print(f"{len(samples)} utterances, {seconds:.0f} s; {trained.source}")
    rows = []
    for task in _tasks(trained, arguments.export):
        silence = torch.zeros(task.tail(arguments.tail_ms))
        torchs: list[str] = []
        for name, size, hear in _ways(task):
            begun = time.process_time()
            texts = [hear(torch.cat([audio, silence])) for audio in samples]
            spent = time.process_time() - begun
            torchs = torchs or texts
            same = sum(map(str.__eq__, texts, torchs))
            rows.append((task.branch, task.head, task.search, name, size,
                         f"{_error_rate(refs, texts):.2f}", f"{same}/{len(texts)}",
                         f"{spent / seconds:.4f}"))  # fmt: skip
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
    add("--tail-ms", type=int, help="silence behind a stream; default: what the README asks for")
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


def _tasks(trained: "TrainedModel", export: Path) -> Iterator[_Task]:
    for branch in ("full", "streaming"):  # a model set for steps is slower at wholes
        for head in HEADS:
            if any(export.glob(f"{graph_name(branch, head)}*.onnx")):
                for search in _SEARCHES[head]:
                    yield _Task(trained, export, branch, head, search)


def _ways(task: _Task) -> Iterator[tuple[str, str, Hear]]:
    """(name, megabytes, what hears) of each runtime, torch first."""
    yield "torch", "", _torch(task)
    for kind in ("", ".int8"):
        files = _files(task, kind)
        if files:
            size = sum(path.stat().st_size for path in files.values()) / 1e6
            yield f"sherpa-onnx{kind.replace('.', ' ')}", f"{size:.1f}", _client(task, files)


def _files(task: _Task, kind: str) -> dict[str, Path]:
    """What the client is given by name of its argument; nothing if there is no such model."""
    parts = {"model": ""} if task.head == "ctc" else {part: part for part in PARTS}
    found = {}
    for argument, part in parts.items():
        name = graph_name(task.branch, task.head, part)
        path = task.export / f"{name}{kind if part != 'decoder' else ''}.onnx"
        found[argument] = path
    return found if all(path.is_file() for path in found.values()) else {}


class _Recording(NamedTuple):
    """An utterance as the frame loop of streams wants it."""

    samples: "Tensor"
    id: str = ""
    text: str = ""
    words: tuple[()] = ()

    def audio(self) -> "Tensor":
        return self.samples


def _torch(task: _Task) -> Hear:
    from dualasr_lib.data.batch import Example, collate
    from dualasr_lib.decoding.one_head import OneHead
    from dualasr_lib.decoding.streaming import StreamingConfig, decode_streams
    from dualasr_lib.features.fbank import Fbank

    trained, chunk = task.trained, task.trained.chunk()
    search = _search(task)
    if task.branch == "streaming":
        path = trained.streaming(chunk)

        def stream(audio: "Tensor") -> str:
            run = decode_streams(
                [_Recording(audio)], path, OneHead(search, task.head), trained.detokenise,
                StreamingConfig(num_streams=1),
            )  # fmt: skip
            return run.hypotheses[0].text

        return stream
    fbank = Fbank(trained.config.features)

    def whole(audio: "Tensor") -> str:
        heard = trained.hear(collate([Example("", "", 0.0, fbank(audio), ())]), "full", chunk)
        (step,) = search.step(heard.rows(task.head), [search.open()])
        return trained.detokenise(search.finish(step.state).tokens)

    return whole


def _search(task: _Task) -> Any:
    from dualasr_lib.decoding.greedy import OnlineGreedy
    from dualasr_lib.decoding.transducer.beam import TransducerBeam
    from dualasr_lib.decoding.transducer.greedy import TransducerGreedy
    from dualasr_lib.decoding.transducer.options import BeamConfig, GreedyConfig

    if task.head == "ctc":
        return OnlineGreedy()
    tables = task.trained.tables("transducer", task.branch)  # type: ignore[arg-type]
    if task.search == "greedy":
        return TransducerGreedy(tables, GreedyConfig())
    return TransducerBeam(tables, BeamConfig())


def _client(task: _Task, paths: dict[str, Path]) -> Hear:
    import sherpa_onnx

    trained = task.trained
    ids = {token: number for number, token in enumerate(trained.tokenizer.tokens)}
    files = {name: str(path) for name, path in paths.items()}
    options: dict[str, Any] = {"tokens": str(task.export / TOKENS), "num_threads": 1}
    if task.search == "beam":
        options["decoding_method"] = "modified_beam_search"

    def text(tokens: Sequence[str]) -> str:
        return trained.detokenise([ids[token] for token in tokens])

    if task.branch == "streaming":
        kind = sherpa_onnx.OnlineRecognizer
        make = kind.from_transducer if task.head == "transducer" else kind.from_zipformer2_ctc
        return partial(_stream, make(**files, **options), text)
    kind = sherpa_onnx.OfflineRecognizer
    make = kind.from_transducer if task.head == "transducer" else kind.from_zipformer_ctc
    return partial(_whole, make(**files, **options), text)


def _stream(recogniser: Any, text: Callable[[Sequence[str]], str], audio: "Tensor") -> str:
    heard = recogniser.create_stream()
    heard.accept_waveform(16000, audio.numpy())
    while recogniser.is_ready(heard):
        recogniser.decode_stream(heard)
    return text(recogniser.tokens(heard))


def _whole(recogniser: Any, text: Callable[[Sequence[str]], str], audio: "Tensor") -> str:
    heard = recogniser.create_stream()
    heard.accept_waveform(16000, audio.numpy())
    recogniser.decode_stream(heard)
    return text(heard.result.tokens)


def _error_rate(refs: Sequence[str], texts: Sequence[str]) -> float:
    from dualasr_lib.metrics.error_rate import count_errors

    counts = [count_errors(ref, text) for ref, text in zip(refs, texts)]
    return 100 * sum(c.errors for c in counts) / max(1, sum(c.num_ref for c in counts))


if __name__ == "__main__":
    run_program(main)
