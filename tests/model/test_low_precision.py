"""The whole model under autocast: every integration, in training and evaluation, with and without
dropout, and chunk by chunk.
"""

import pytest
import torch
from joint_cases import joint_model

from dualasr_lib.model.joint import LossConfig, Targets, total_loss
from dualasr_lib.model.model_config import IntegrationName
from dualasr_lib.model.zipformer.streaming import ChunkSpec

CHUNK = ChunkSpec(frames=8, left=16)


def utterances(bins: int) -> tuple[torch.Tensor, torch.Tensor, Targets]:
    torch.manual_seed(1)
    tokens = torch.tensor([[3, 4, 5], [6, 7, 0]])
    return torch.randn(2, 60, bins), torch.tensor([60, 41]), Targets(tokens, torch.tensor([3, 2]))


@pytest.mark.parametrize("integration", ["cascaded", "parallel", "shared"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_losses_and_gradients(integration: IntegrationName, training: bool, dropout: float) -> None:
    model = joint_model(integration=integration, dropout=dropout).train(training)
    features, lens, targets = utterances(model.config.num_features)
    exact = total_loss(model.eval()(features, lens, targets, CHUNK).parts(LossConfig()))
    model.train(training)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(features, lens, targets, CHUNK)
    loss = total_loss(losses.parts(LossConfig()))
    loss.backward()
    tolerance = 0.5 if training else 0.05  # in training, dropout and skips differ
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=tolerance)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32 and bool(parameter.grad.isfinite().all()), name


def test_steps_equal_the_whole_up_to_rounding() -> None:
    model = joint_model().eval()
    features, _, _ = utterances(model.config.num_features)
    encoder, device = model.streaming, torch.device("cpu")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        whole = encoder(features[:1, :48], torch.tensor([48]), CHUNK).h
        prepared, state = encoder.prepare(CHUNK, device), encoder.init_state(1, CHUNK, device)
        for start in (0, 16, 32):
            window = features[:1, start : start + 16 + encoder.lookahead]
            left = torch.tensor([48 - start])
            h, state = encoder.step(window, left, state, prepared)
            part = whole[:, start // 4 : start // 4 + 4]
            assert float((h - part).abs().max()) < 0.05 * float(whole.abs().max())
