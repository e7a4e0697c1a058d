"""Transducers in the real client: sherpa-onnx says what torch says, in both of its searches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("kaldi_native_fbank", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnx", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnxruntime", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("sherpa_onnx", reason="tools/setup.sh --torch2 installs it")

import onnx
import sherpa_onnx
from small_models import (
    CHUNK,
    PUBLISHED,
    noise,
    torch_frames,
    transducer_model,
    transducer_tables,
    write_tokens,
)

from dualasr_lib.core.rates import encoder_frames
from dualasr_lib.decoding.transducer.greedy import TransducerGreedy
from dualasr_lib.decoding.transducer.options import GreedyConfig
from dualasr_lib.export.contract import contract_of
from dualasr_lib.export.graph import quantised
from dualasr_lib.export.transducer import TransducerGraphs, full_transducer, streaming_transducer
from dualasr_lib.model.heads.transducer import TransducerHead
from dualasr_lib.model.joint import Branch

RATE = 16000
MODEL = transducer_model(future=PUBLISHED, channels=(8, 32, 128))


@pytest.fixture(scope="module")
def online() -> TransducerGraphs:
    return streaming_transducer(MODEL, CHUNK)


@pytest.fixture(scope="module")
def offline() -> TransducerGraphs:
    return full_transducer(MODEL, CHUNK)


def files(graphs: TransducerGraphs, folder: Path, int8: bool = False) -> dict[str, str]:
    """What the client is told."""
    for name, graph in graphs._asdict().items():
        small = int8 and name != "decoder"
        onnx.save(quantised(graph.model) if small else graph.model, folder / f"{name}.onnx")
    named = {name: str(folder / f"{name}.onnx") for name in graphs._asdict()}
    return {**named, "tokens": str(write_tokens(MODEL, folder))}


class Online:
    """sherpa-onnx's recogniser of streams."""

    def __init__(self, graphs: TransducerGraphs, folder: Path, **options: Any) -> None:
        self._recogniser = sherpa_onnx.OnlineRecognizer.from_transducer(
            **files(graphs, folder), num_threads=1, **options
        )
        metadata = {entry.key: entry.value for entry in graphs.encoder.model.metadata_props}
        self.tail = torch.zeros(16 * contract_of(metadata).tail_ms)

    def hear(self, *audio: Tensor, feed: int = 10**9) -> list[tuple[list[int], int]]:
        """(tokens, encoder frames) of streams that are decoded together; `feed` samples a time."""
        streams = [self._recogniser.create_stream() for _ in audio]
        counts = [0] * len(audio)
        for begin in range(0, max(map(len, audio)) + len(self.tail), feed):
            for stream, samples in zip(streams, audio):
                part = torch.cat([samples, self.tail])[begin : begin + feed]
                if len(part):
                    stream.accept_waveform(RATE, part.numpy())
            while ready := [s for s in streams if self._recogniser.is_ready(s)]:
                self._recogniser.decode_streams(ready)
                counts = [n + (s in ready) for n, s in zip(counts, streams)]
        return [
            (ids(self._recogniser.tokens(stream)), n * CHUNK.frames // 2)
            for stream, n in zip(streams, counts)
        ]

    def frames(self, audio: Tensor, count: int) -> Tensor:
        """What torch hears in that many encoder frames of the audio and the silence after it."""
        padded = torch.cat([audio, self.tail, torch.zeros(RATE)])
        return torch_frames(MODEL, padded, "streaming", CHUNK)[:count]


class Offline:
    """sherpa-onnx's recogniser of whole utterances."""

    def __init__(self, graphs: TransducerGraphs, folder: Path, **options: Any) -> None:
        self._recogniser = sherpa_onnx.OfflineRecognizer.from_transducer(
            **files(graphs, folder), num_threads=1, **options
        )

    def hear(self, *audio: Tensor) -> list[list[int]]:
        """Tokens of utterances that are decoded together."""
        streams = [self._recogniser.create_stream() for _ in audio]
        for stream, samples in zip(streams, audio):
            stream.accept_waveform(RATE, samples.numpy())
        self._recogniser.decode_streams(streams)
        return [ids(stream.result.tokens) for stream in streams]


def ids(tokens: Sequence[str]) -> list[int]:
    numbers = {token: number for number, token in enumerate(MODEL.tokenizer.tokens)}
    return [numbers[token] for token in tokens]


def greedy(frames: Tensor, branch: Branch) -> list[int]:
    """Our own search of the same frames (S, D)."""
    search = TransducerGreedy(transducer_tables(MODEL, branch), GreedyConfig())
    (step,) = search.step([frames], [search.open()])
    return list(search.finish(step.state).tokens)


def clients_beam(frames: Tensor, branch: Branch, beam: int = 4) -> list[int]:
    """The client's other search, as it is described: at each frame the `beam` best of all
    continuations, equal texts added up, and in the end the best mean over a text's tokens, where
    the context before the first one counts.
    """
    head = MODEL.model.head("transducer", branch)
    assert isinstance(head, TransducerHead)
    joiner, network = head.transducer.joiner, head.transducer.prediction
    specials = [MODEL.tokenizer.sos_eos_id, MODEL.tokenizer.unk_id]
    start = [0] * network.context
    kept = {(): 0.0}
    for frame in frames:
        grown = []
        for text, score in kept.items():
            context = torch.tensor([[*start, *text][-network.context :]])
            logits = joiner(frame, joiner.prediction(network.of_contexts(context))[0])
            logits[specials] = -1e4
            grown += [
                (score + logp, text + (token,) * (token != 0))
                for token, logp in enumerate(logits.log_softmax(0).tolist())
            ]
        kept = {}
        for score, text in sorted(grown, reverse=True)[:beam]:
            kept[text] = torch.logaddexp(
                torch.tensor(kept.get(text, -torch.inf)), torch.tensor(score)
            ).item()
    return list(max(kept, key=lambda text: kept[text] / (len(text) + network.context)))


def test_every_length_modulo_the_chunk_gives_torchs_tokens(
    online: TransducerGraphs, tmp_path: Path
) -> None:
    client, said = Online(online, tmp_path), set()
    for residue in range(2 * CHUNK.frames):
        (audio,) = noise(9600 + 167 * residue)
        ((tokens, count),) = client.hear(audio)
        assert count >= encoder_frames(round(len(audio) / 160)) + CHUNK.frames // 2, "a whole chunk"
        assert tokens == greedy(client.frames(audio, count), "streaming")
        said.update(tokens)
    assert len(said) > 5, "the model says too little to prove anything"
    assert not said & {0, MODEL.tokenizer.sos_eos_id, MODEL.tokenizer.unk_id}


def test_streams_of_a_batch_do_not_touch_each_other(
    online: TransducerGraphs, tmp_path: Path
) -> None:
    client = Online(online, tmp_path)
    audio = noise(16000, 4800, 30000, 12345)
    for samples, (tokens, count) in zip(audio, client.hear(*audio, feed=1600)):
        ((alone, _),) = client.hear(samples)
        assert tokens == alone == greedy(client.frames(samples, count), "streaming")


def test_whole_utterances_give_torchs_tokens(offline: TransducerGraphs, tmp_path: Path) -> None:
    client, said = Offline(offline, tmp_path), set()
    for residue in range(2 * CHUNK.frames):
        (audio,) = noise(6400 + 167 * residue)
        (tokens,) = client.hear(audio)
        assert tokens == greedy(torch_frames(MODEL, audio, "full", CHUNK), "full")
        said.update(tokens)
    assert len(said) > 5, "the model says too little to prove anything"
    audio = noise(16000, 1600, 70000, 12345)
    for samples, tokens in zip(audio, client.hear(*audio)):
        assert [tokens] == client.hear(samples)
        assert tokens == greedy(torch_frames(MODEL, samples, "full", CHUNK), "full")


def test_the_clients_beam_search_finds_what_its_definition_finds(
    online: TransducerGraphs, offline: TransducerGraphs, tmp_path: Path
) -> None:
    options = {"decoding_method": "modified_beam_search", "max_active_paths": 4}
    (audio,) = noise(24000)
    client = Online(online, tmp_path, **options)
    ((tokens, count),) = client.hear(audio)
    assert tokens == clients_beam(client.frames(audio, count), "streaming")
    (tokens,) = Offline(offline, tmp_path, **options).hear(audio)
    assert tokens == clients_beam(torch_frames(MODEL, audio, "full", CHUNK), "full")


def test_int8_in_the_client(
    online: TransducerGraphs, offline: TransducerGraphs, tmp_path: Path
) -> None:
    """Of random weights, rounded, no text can be expected: only that it runs and says something."""
    (audio,) = noise(48000)
    small = sherpa_onnx.OfflineRecognizer.from_transducer(**files(offline, tmp_path, int8=True))
    heard = small.create_stream()
    heard.accept_waveform(RATE, audio.numpy())
    small.decode_stream(heard)
    assert len(heard.result.tokens) > 5
    online_small = sherpa_onnx.OnlineRecognizer.from_transducer(
        **files(online, tmp_path, int8=True)
    )
    stream = online_small.create_stream()
    stream.accept_waveform(RATE, audio.numpy())
    while online_small.is_ready(stream):
        online_small.decode_stream(stream)
    assert len(online_small.tokens(stream)) > 5
