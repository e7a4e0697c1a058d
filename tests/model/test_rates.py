"""The rates that `core.rates` says are those at which features and encoders run."""

import math

import pytest
import torch
from joint_cases import CHUNK, FEATURES, joint_model

from dualasr_lib.core.rates import (
    ENCODER_MS,
    FEATURES_PER_ENCODER_FRAME,
    FRAME_SHIFT_MS,
    FRONT_END_MS,
    FRONT_END_STRIDE,
    encoder_frames,
)
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.model.encoder import encoder_lens
from dualasr_lib.model.zipformer.streaming import ChunkSpec


@pytest.mark.parametrize("num_features", [1, 2, 3, 4, 5, 63, 64])
def test_models_run_at_these_rates(num_features: int) -> None:
    model = joint_model().eval()
    lens = torch.tensor([num_features])
    for states in model.encode(torch.randn(1, num_features, FEATURES), lens, CHUNK).values():
        assert states.h.shape[1] == int(states.lens) == encoder_frames(num_features)
    halved = math.ceil(math.ceil(num_features / 2) / 2)
    assert int(encoder_lens(lens)) == halved == encoder_frames(num_features)
    window = torch.randn(1, FRONT_END_STRIDE * 6 + model.streaming.lookahead, FEATURES)
    subsampling = model.streaming.subsampling
    x, _ = subsampling.step(window, subsampling.init_state(1, torch.device("cpu")))
    assert x.shape[1] == 6


def test_milliseconds() -> None:
    config = FbankConfig()
    assert config.shift == FRAME_SHIFT_MS * config.sample_rate / 1000 == 160
    assert (FRONT_END_MS, ENCODER_MS, FEATURES_PER_ENCODER_FRAME) == (20, 40, 4)
    assert ChunkSpec.from_ms(320, 640).ms == 16 * FRONT_END_MS == 320
