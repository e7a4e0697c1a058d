"""The streaming step that is laid out for a runtime, against the encoder."""

import pytest
import torch

pytest.importorskip("onnx", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnxruntime", reason="tools/setup.sh --torch2 installs it")

from small_models import CHUNK, PUBLISHED, small_model

from dualasr_lib.core.rates import FRONT_END_STRIDE
from dualasr_lib.export.passes import StreamingReference
from dualasr_lib.export.step import EncoderStep
from dualasr_lib.model.zipformer.streaming import ChunkSpec


@pytest.mark.parametrize("future", [(0, 0, 0, 0), PUBLISHED])
@pytest.mark.parametrize("chunk", [CHUNK, ChunkSpec(frames=16, left=16)])
def test_it_hears_what_the_encoder_hears(future: tuple[int, ...], chunk: ChunkSpec) -> None:
    trained = small_model(future=future)
    reference = StreamingReference(trained, chunk)
    step = EncoderStep(trained.model.streaming, chunk)
    channels = trained.model.encoders.output_dims["streaming"]
    ours = theirs = reference.initial(3)
    generator = torch.Generator().manual_seed(1)
    window = FRONT_END_STRIDE * chunk.frames + reference.encoder.lookahead
    for _ in range(4):  # until all caches are full
        x = 3.0 * torch.randn(3, window, 80, generator=generator) - 6.0
        with torch.no_grad():
            said, *theirs = reference(x, *theirs)
            h, ours = step(x, *ours)
        for found, expected in zip((h, *ours), (said[:, :, -channels:], *theirs)):
            assert found.shape == expected.shape
            assert torch.allclose(found.double(), expected.double(), atol=1e-3)
