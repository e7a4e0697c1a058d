"""The joint model: losses, gradients, no leak of the future, padding, determinism."""

import math

import pytest
import torch
from torch import Tensor

from dualasr_lib.model.attention import AttentionConfig
from dualasr_lib.model.attention_decoder import AttentionDecoder, DecoderConfig, smoothed_nll
from dualasr_lib.model.ctc import min_ctc_frames, torch_ctc_loss
from dualasr_lib.model.distillation import DistillationConfig
from dualasr_lib.model.joint import JointModel, LossConfig, ModelConfig, Targets
from dualasr_lib.model.normalisation import BiasNorm, Bypass
from dualasr_lib.model.scheduled import Scheduled, set_step
from dualasr_lib.model.streaming import ChunkSpec
from dualasr_lib.model.subsampling import SubsamplingConfig
from dualasr_lib.model.zipformer import StackConfig
from dualasr_lib.model.zipformer_layer import LayerConfig

CHUNK = ChunkSpec(frames=8, left=16)
VOCAB = 11


def small_model(kd: DistillationConfig | None = None) -> JointModel:
    torch.manual_seed(3)
    attention = AttentionConfig(heads=2, query_head_dim=8, value_head_dim=4, position_dim=8)
    layer = LayerConfig(dim=16, feedforward=16, kernel=7, attention=attention, dropout=0.0)
    config = ModelConfig(
        num_features=20,
        subsampling=SubsamplingConfig(channels=(2, 3, 4), dropout=0.0),
        streaming=(StackConfig(layers=1, layer=layer), StackConfig(downsampling=2, layer=layer)),
        full=(StackConfig(layers=1, layer=layer), StackConfig(downsampling=2, layer=layer)),
        decoder=DecoderConfig(layers=1, dim=16, heads=2, feedforward=16, dropout=0.0),
        ctc_dropout=0.0,
    )
    kd = kd or DistillationConfig(encoder_weight=1.0, decoder_weight=1.0)
    return JointModel(config, kd, VOCAB, sos_eos=1)


def batch() -> tuple[Tensor, Tensor, Targets]:
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(3, 70, 20, generator=generator)
    tokens = torch.tensor([[3, 3, 4, 5], [6, 7, 0, 0], [0, 0, 0, 0]])
    return features, torch.tensor([70, 33, 9]), Targets(tokens, torch.tensor([4, 2, 0]))


def test_losses_are_finite_and_train_every_parameter() -> None:
    model = small_model()
    features, lens, targets = batch()
    losses = model(features, lens, targets, CHUNK, torch_ctc_loss)
    losses.weighted(LossConfig(distillation=model.distillation)).backward()
    assert all(math.isfinite(float(term)) for term in losses)
    assert float(losses.num_tokens) == 4 + 2 + 0 + 3
    untouched = [name for name, p in model.named_parameters() if p.grad is None]
    assert untouched == []


def test_padding_never_enters_the_losses() -> None:
    model = small_model().eval()
    features, lens, targets = batch()
    expected = model(features, lens, targets, CHUNK, torch_ctc_loss)
    dirty = torch.cat([features, torch.zeros(3, 40, 20)], dim=1)
    for i, n in enumerate(lens.tolist()):
        dirty[i, n:] = float("nan")
    for name, a, b in zip(
        expected._fields, model(dirty, lens, targets, CHUNK, torch_ctc_loss), expected
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_streaming_branch_has_no_gradient_from_the_future() -> None:
    model = small_model().train()
    features = torch.randn(1, 64, 20, requires_grad=True)
    encoded = model.encode(features, torch.tensor([64]), CHUNK)
    first_chunk = encoded["streaming"].h[:, :4]  # 8 frames at 50 Hz = 4 at 25 Hz = 16 at 100 Hz
    (gradient,) = torch.autograd.grad(first_chunk.square().sum(), features, retain_graph=True)
    assert gradient[:, :16].abs().sum() > 0
    assert gradient[:, 16:].abs().sum() == 0
    (gradient,) = torch.autograd.grad(encoded["full"].h[:, :4].square().sum(), features)
    assert gradient[:, 16:].abs().sum() > 0


def test_each_utterance_alone_gives_what_the_batch_gives() -> None:
    model = small_model().eval()
    features, lens, _ = batch()
    with torch.no_grad():
        together = model.encode(features, lens, CHUNK)
        for i, n in enumerate(lens.tolist()):
            alone = model.encode(features[i : i + 1, :n], lens[i : i + 1], CHUNK)
            for branch in ("streaming", "full"):
                size = int(alone[branch].lens)
                torch.testing.assert_close(
                    alone[branch].h[0, :size], together[branch].h[i, :size], rtol=1e-4, atol=1e-5
                )


def test_evaluation_is_deterministic() -> None:
    model = small_model().eval()
    features, lens, targets = batch()
    a, b = (model(features, lens, targets, CHUNK, torch_ctc_loss) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a, b))


def test_distillation_waits_for_its_warm_up() -> None:
    model = small_model(DistillationConfig(encoder_weight=2.0, warm_up=5)).train()
    features, lens, targets = batch()
    terms = []
    for step in (0, 4, 5):
        model.set_step(step)
        losses = model(features, lens, targets, CHUNK, torch_ctc_loss)
        terms.append(float(losses.distillation_encoder))
        assert float(losses.distillation_decoder) == 0.0
    assert terms[:2] == [0.0, 0.0] and terms[2] > 0


def test_impossible_utterance_is_counted_and_harmless() -> None:
    model = small_model()
    features, lens, targets = batch()
    lens[0] = 13  # 4 encoder frames; 3 3 4 5 needs 5
    losses = model(features, lens, targets, CHUNK, torch_ctc_loss)
    losses.weighted(LossConfig()).backward()
    assert int(losses.num_impossible) == 1
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_min_ctc_frames_counts_repeats_inside_the_text() -> None:
    tokens = torch.tensor([[3, 3, 3, 4], [5, 0, 0, 0], [6, 6, 0, 0]])
    assert min_ctc_frames(tokens, torch.tensor([4, 1, 2])).tolist() == [6, 1, 3]


def test_decoder_is_causal_and_smoothing_matches_one_hot() -> None:
    torch.manual_seed(0)
    config = DecoderConfig(layers=2, dim=8, heads=2, feedforward=8, dropout=0.0)
    decoder = AttentionDecoder(config, VOCAB, 6, sos_eos=1).eval()
    memory, lens = torch.randn(2, 5, 6), torch.tensor([5, 3])
    tokens, token_lens = torch.tensor([[3, 4, 5], [6, 0, 0]]), torch.tensor([3, 1])
    output = decoder(memory, lens, tokens, token_lens)
    assert output.targets.tolist() == [[3, 4, 5, 1], [6, 1, -1, -1]]
    later = tokens.clone()
    later[0, 2] = 9
    changed = decoder(memory, lens, later, token_lens)
    torch.testing.assert_close(changed.hidden[0, :3], output.hidden[0, :3])
    assert not torch.allclose(changed.hidden[0, 3], output.hidden[0, 3])
    noisy = memory.clone()
    noisy[1, 3:] = 100.0
    torch.testing.assert_close(decoder(noisy, lens, tokens, token_lens).hidden, output.hidden)
    one_hot = torch.full((2, 4, VOCAB), 0.1 / VOCAB)
    one_hot.scatter_add_(2, output.targets.clamp(min=0)[:, :, None], torch.full((2, 4, 1), 0.9))
    expected = -(one_hot * output.log_probs).sum(2).masked_fill(output.targets < 0, 0.0).sum(1)
    torch.testing.assert_close(smoothed_nll(output.log_probs, output.targets, 0.1), expected)


def test_bias_norm_and_bypass() -> None:
    norm = BiasNorm(4)
    x = torch.randn(3, 4)
    bias = norm.bias.detach()
    expected = x * math.e / (x - bias).square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(norm(x).detach(), expected)
    bypass = Bypass(2, warm_up=10)
    a, b = torch.zeros(2), torch.ones(2)
    torch.testing.assert_close(bypass(a, b).detach(), torch.tensor([0.9, 0.9]))
    set_step(bypass, 10)
    torch.testing.assert_close(bypass(a, b).detach(), torch.tensor([0.5, 0.5]))


def test_schedule() -> None:
    schedule = Scheduled((0, 1.0), (10, 0.0))
    assert schedule.now() == 1.0
    set_step(schedule, 5)
    assert schedule.now() == 0.5
    assert schedule.eval().now() == 0.5
    with pytest.raises(ValueError, match="must increase"):
        Scheduled((5, 1.0), (5, 0.0))
