"""The full branch in the real client: whole utterances, one and several, say what torch says."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

pytest.importorskip("kaldi_native_fbank", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnx", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnxruntime", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("sherpa_onnx", reason="tools/setup.sh --torch2 installs it")

import onnx
import sherpa_onnx
from small_models import CHUNK, noise, small_model, torch_tokens, write_tokens

from dualasr_lib.export.ctc import full_ctc
from dualasr_lib.recognition.trained_model import TrainedModel

KINDS: dict[str, dict[str, Any]] = {
    "cascaded": {},
    "full alone": {"branches": ("full",)},
    "parallel": {"integration": "parallel"},
    "shared": {"integration": "shared"},
}


class Client:
    """sherpa-onnx's recogniser with a model of ours."""

    def __init__(self, model: TrainedModel, folder: Path) -> None:
        self.model = model
        onnx.save(full_ctc(model, CHUNK).model, folder / "model.onnx")
        self._recogniser = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(
            tokens=str(write_tokens(model, folder)), model=str(folder / "model.onnx"), num_threads=1
        )

    def hear(self, *audio: Tensor) -> list[list[int]]:
        """Tokens of utterances that are decoded together."""
        streams = [self._recogniser.create_stream() for _ in audio]
        for stream, samples in zip(streams, audio):
            stream.accept_waveform(16000, samples.numpy())
        self._recogniser.decode_streams(streams)
        ids = {token: i for i, token in enumerate(self.model.tokenizer.tokens)}
        return [[ids[token] for token in stream.result.tokens] for stream in streams]


@pytest.fixture(scope="module", params=KINDS)
def client(request: Any, tmp_path_factory: Any) -> Client:
    return Client(small_model(**KINDS[request.param]), tmp_path_factory.mktemp("client"))


def test_every_length_modulo_the_chunk_gives_torchs_tokens(client: Client) -> None:
    said = set()
    for residue in range(2 * CHUNK.frames):
        (audio,) = noise(6400 + 167 * residue)
        (tokens,) = client.hear(audio)
        assert tokens == torch_tokens(client.model, audio, "full", CHUNK)
        said.update(tokens)
    assert len(said) > 3, "the model says too little to prove anything"
    assert not said & {0, 1, 2}


def test_utterances_of_a_batch_do_not_touch_each_other(client: Client) -> None:
    audio = noise(16000, 1600, 70000, 12345)
    for samples, tokens in zip(audio, client.hear(*audio)):
        assert [tokens] == client.hear(samples)
        assert tokens == torch_tokens(client.model, samples, "full", CHUNK)
