"""The streaming branch in the real client: sherpa-onnx says what torch says, to the last token."""

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
    small_model,
    torch_tokens,
    write_tokens,
)

from dualasr_lib.core.rates import encoder_frames
from dualasr_lib.export.contract import contract_of
from dualasr_lib.export.ctc import streaming_ctc
from dualasr_lib.recognition.trained_model import TrainedModel

RATE = 16000
CASES = {
    "no look-ahead": ((0, 0, 0, 0), (2, 3, 4)),
    "front end as published": (PUBLISHED, (8, 32, 128)),
    "more front end than the client has place for": ((0, 0, 0, 0), (8, 32, 128)),
}


class Client:
    """sherpa-onnx's recogniser with a model of ours."""

    def __init__(self, model: TrainedModel, folder: Path) -> None:
        self.model = model
        graph = streaming_ctc(model, CHUNK).model
        onnx.save(graph, folder / "model.onnx")
        self._recogniser = sherpa_onnx.OnlineRecognizer.from_zipformer2_ctc(
            tokens=str(write_tokens(model, folder)), model=str(folder / "model.onnx"), num_threads=1
        )
        self.flush = self._first_result()
        contract = contract_of({entry.key: entry.value for entry in graph.metadata_props})
        assert self.flush <= 16 * contract.first_result_ms, "the README promises less"

    def hear(self, *audio: Tensor, feed: int = 10**9) -> list[tuple[list[int], int]]:
        """(tokens, encoder frames) of streams that are decoded together; `feed` samples a time."""
        tail = torch.zeros(self.flush)
        streams = [self._recogniser.create_stream() for _ in audio]
        counts = [0] * len(audio)
        for begin in range(0, max(map(len, audio)) + self.flush, feed):
            for stream, samples in zip(streams, audio):
                part = torch.cat([samples, tail])[begin : begin + feed]
                if len(part):
                    stream.accept_waveform(RATE, part.numpy())
            while ready := [s for s in streams if self._recogniser.is_ready(s)]:
                self._recogniser.decode_streams(ready)
                counts = [n + (s in ready) for n, s in zip(counts, streams)]
        ids = {token: i for i, token in enumerate(self.model.tokenizer.tokens)}
        return [
            ([ids[token] for token in self._recogniser.tokens(stream)], n * CHUNK.frames // 2)
            for stream, n in zip(streams, counts)
        ]

    def _first_result(self) -> int:
        """Samples of silence that bring the last token out: what a first result needs."""
        stream, fed = self._recogniser.create_stream(), 0
        while not self._recogniser.is_ready(stream):
            stream.accept_waveform(RATE, torch.zeros(160).numpy())
            fed += 160
        return fed

    def expected(self, audio: Tensor, frames: int) -> list[int]:
        """What torch says of the same audio and the silence after it."""
        padded = torch.cat([audio, torch.zeros(self.flush + RATE)])
        return torch_tokens(self.model, padded, "streaming", CHUNK, frames)


@pytest.fixture(scope="module", params=CASES)
def client(request: Any, tmp_path_factory: Any) -> Client:
    return Client(small_model(*CASES[request.param]), tmp_path_factory.mktemp("client"))


def test_every_length_modulo_the_chunk_gives_torchs_tokens(client: Client) -> None:
    said = set()
    for residue in range(2 * CHUNK.frames):
        (audio,) = noise(9600 + 160 * residue + 7 * residue)
        ((tokens, frames),) = client.hear(audio)
        assert frames >= encoder_frames(round(len(audio) / 160)), "not all heard"
        assert tokens == client.expected(audio, frames)
        said.update(tokens)
    assert len(said) > 3, "the model says too little to prove anything"
    assert not said & {0, 1, 2}


def test_streams_of_a_batch_do_not_touch_each_other(client: Client) -> None:
    audio = noise(16000, 4800, 30000, 12345)
    together = client.hear(*audio, feed=1600)
    for samples, (tokens, frames) in zip(audio, together):
        ((alone, _),) = client.hear(samples)
        assert tokens == alone == client.expected(samples, frames)
