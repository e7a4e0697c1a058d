"""The attention decoder: against torch's own layers, step by step, n-best lists, padding."""

import functools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualasr_lib.core.tree import leaves, map_tree
from dualasr_lib.model import decoder_layer
from dualasr_lib.model.attention_decoder import (
    AttentionDecoder,
    DecoderConfig,
)

VOCAB, WIDTH, END = 13, 6, 1

exactly = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


def make(dropout: float = 0.0) -> AttentionDecoder:
    torch.manual_seed(0)
    config = DecoderConfig(layers=3, dim=16, heads=4, feedforward=24, dropout=dropout)
    decoder = AttentionDecoder(config, VOCAB, WIDTH, END).eval()
    for parameter in decoder.parameters():  # biases and norms too should matter
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return decoder


def draw(batch: int, size: int, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """memory (batch, 9, WIDTH), its lens, tokens (batch, size)."""
    generator = torch.Generator().manual_seed(seed)
    memory = torch.randn(batch, 9, WIDTH, generator=generator)
    lens = torch.randint(1, 10, (batch,), generator=generator)
    return memory, lens, torch.randint(2, VOCAB, (batch, size), generator=generator)


def log_prob(decoder: AttentionDecoder, memory: Tensor, text: list[int]) -> Tensor:
    """Log-probability of a text and its end given memory (S, WIDTH): one by one, by forward."""
    tokens, size = torch.tensor([text], dtype=torch.int64), len(text)
    output = decoder(memory[None], torch.tensor([len(memory)]), tokens, torch.tensor([size]))
    picked: Tensor = output.log_probs[0, range(size + 1), output.targets[0]]
    return picked.sum()


def torch_layers(decoder: AttentionDecoder) -> nn.TransformerDecoder:
    """torch's own layers with the same weights."""
    config = decoder.config
    layer = nn.TransformerDecoderLayer(
        config.dim, config.heads, config.feedforward, config.dropout,
        activation=F.silu, batch_first=True, norm_first=True,
    )  # fmt: skip
    reference = nn.TransformerDecoder(layer, config.layers, nn.LayerNorm(config.dim))
    reference.norm.load_state_dict(decoder.norm.state_dict())
    for theirs, mine in zip(reference.layers, decoder.layers):
        state = {}
        for name, queries, others, output in (
            ("self_attn", None, mine.query_key_value, mine.self_output),
            ("multihead_attn", mine.memory_query, mine.memory_key_value, mine.memory_output),
        ):
            for kind in ("weight", "bias"):
                parts = [getattr(m, kind) for m in (queries, others) if m is not None]
                state[f"{name}.in_proj_{kind}"] = torch.cat(parts)
                state[f"{name}.out_proj.{kind}"] = getattr(output, kind)
        names = {"linear1": "expand", "linear2": "contract", "norm1": "self_norm"}
        names |= {"norm2": "memory_norm", "norm3": "feedforward_norm"}
        for their_name, name in names.items():
            for kind in ("weight", "bias"):
                state[f"{their_name}.{kind}"] = getattr(getattr(mine, name), kind)
        theirs.load_state_dict(state)
    return reference.eval()


def test_layers_equal_those_of_torch() -> None:
    decoder = make()
    reference = torch_layers(decoder)
    memory, lens, tokens = draw(4, 7)
    sizes = torch.tensor([7, 3, 0, 5])
    inputs = F.pad(tokens, (1, 0), value=END)
    for i, size in enumerate(sizes.tolist()):
        inputs[i, size + 1 :] = END
    position = torch.arange(8.0)[:, None]
    angle = position / 10000.0 ** (torch.arange(0, 16, 2) / 16)
    encoding = torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)
    gradients = []
    for mine in (True, False):
        x = memory.clone().requires_grad_()
        if mine:
            hidden = decoder(x, lens, tokens, sizes).hidden
        else:
            hidden = reference(
                decoder.embedding(inputs) * 4.0 + encoding,
                decoder.memory_projection(x),
                tgt_mask=torch.ones(8, 8, dtype=torch.bool).triu(1),
                memory_key_padding_mask=torch.arange(9) >= lens[:, None],
            )
        loss = (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum()
        (gradient,) = torch.autograd.grad(loss, x)
        gradients.append((hidden.detach(), gradient))
    exactly(gradients[0][0], gradients[1][0])
    exactly(gradients[0][1], gradients[1][1], atol=1e-4)


def test_both_attentions_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    if decoder_layer._SDPA is None:
        pytest.skip("this torch has only the plain formula")
    decoder = make()
    memory, lens, tokens = draw(4, 7)
    results = []
    for _ in range(2):
        x = memory.clone().requires_grad_()
        output = decoder(x, lens, tokens, torch.tensor([7, 3, 0, 5]))
        results.append((output.log_probs, *torch.autograd.grad(output.log_probs[..., 3].sum(), x)))
        monkeypatch.setattr(decoder_layer, "_SDPA", None)
    for fused, plain in zip(*results):
        exactly(fused, plain)


@pytest.mark.parametrize("size", [0, 1, 2, 40])
def test_steps_equal_teacher_forcing(size: int) -> None:
    decoder = make()
    memory, lens, tokens = draw(3, size)
    expected = decoder(memory, lens, tokens, torch.full((3,), size)).log_probs
    state = decoder.init_state(memory, lens)
    for u in range(size + 1):
        token = tokens[:, u - 1] if u else torch.full((3,), END)
        log_probs, state = decoder.step(token, state)
        assert log_probs.dtype == torch.float32
        exactly(log_probs, expected[:, u])
    assert state.position.tolist() == [size + 1] * 3


def test_a_state_is_a_value() -> None:
    decoder = make()
    memory, lens, tokens = draw(3, 2)
    _, state = decoder.step(tokens[:, 0], decoder.init_state(memory, lens))
    before = map_tree(torch.clone, state)
    first, _ = decoder.step(tokens[:, 1], state)
    decoder.step(tokens[:, 0], state)
    again, _ = decoder.step(tokens[:, 1], state)
    assert torch.equal(first, again)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(leaves(before), leaves(state)))
    with pytest.raises(ValueError, match=r"one for each of 3 x 1 hypotheses"):
        decoder.step(tokens, state)


def lists(seed: int) -> tuple[Tensor, Tensor, Tensor, list[list[int]]]:
    """tokens (P, U) padded with -1, their lens, owners among 0 ... 3, and the texts: many alike."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(0, 8, (25,), generator=generator).tolist()
    texts = [torch.randint(2, 5, (n,), generator=generator).tolist() for n in sizes]
    texts[3], texts[7], texts[8] = [], texts[6], texts[6][:-1]
    tokens = torch.tensor([text + [-1] * (7 - len(text)) for text in texts])
    owner = torch.randint(0, 4, (25,), generator=generator)
    owner[[6, 7, 8]] = 2
    return tokens, torch.tensor([len(text) for text in texts]), owner, texts


@pytest.mark.parametrize("max_positions", [1, 20, 64, 4096])
@pytest.mark.parametrize("seed", range(3))
def test_nbest_scores_equal_one_by_one(seed: int, max_positions: int) -> None:
    decoder = make()
    memory, lens, _ = draw(4, 0, seed)
    tokens, token_lens, owner, texts = lists(seed)
    widths: list[int] = []
    hook = decoder.norm.register_forward_hook(lambda _, x, y: widths.append(y[..., 0].numel()))
    scores = decoder.score_nbest(memory, lens, tokens, token_lens, owner, max_positions)
    hook.remove()
    assert max(widths) <= max(max_positions, 8)  # one hypothesis of 7 tokens must fit
    expected = [
        log_prob(decoder, memory[i, : int(lens[i])], text) for i, text in zip(owner.tolist(), texts)
    ]
    exactly(scores, torch.stack(expected))
    assert scores[6] == scores[7]


def test_nbest_scores_have_the_gradient_of_one_by_one() -> None:
    decoder = make()
    memory, lens, _ = draw(4, 0)
    tokens, token_lens, owner, texts = lists(1)
    weights = torch.linspace(-1, 1, 25)
    memory.requires_grad_()
    inputs = [memory, *decoder.parameters()]
    scores = decoder.score_nbest(memory, lens, tokens, token_lens, owner, 64)
    expected = torch.stack(
        [log_prob(decoder, memory[i, : int(lens[i])], t) for i, t in zip(owner.tolist(), texts)]
    )
    for mine, reference in zip(
        torch.autograd.grad((scores * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
    ):
        exactly(mine, reference, rtol=1e-4, atol=1e-4)


def test_nbest_computes_memory_and_prefixes_once() -> None:
    decoder = make()
    memory, lens, _ = draw(2, 0)
    tokens = torch.tensor([[2, 3, 4], [2, 3, 5], [2, 3, 4], [2, 6, 4], [3, 3, 3]])
    owner, token_lens = torch.tensor([0, 0, 0, 0, 1]), torch.tensor([3, 3, 3, 2, 1])
    counts: dict[str, int] = {}

    def count(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            counts[name] = counts.get(name, 0) + output[..., 0].numel()

        return hook

    decoder.memory_projection.register_forward_hook(count("memory"))
    decoder.layers[2].memory_key_value.register_forward_hook(count("keys"))
    decoder.layers[2].expand.register_forward_hook(count("positions"))
    decoder.score_nbest(memory, lens, tokens, token_lens, owner, max_positions=16)
    # start, 2, 23, 234, 235, 26 of one utterance; start and 3 of the other; 18 in 5 texts
    assert counts == {"memory": 2 * 9, "keys": 2 * 9, "positions": 6 + 2}


def test_no_hypotheses() -> None:
    memory, lens, _ = draw(2, 0)
    none = torch.zeros(0, dtype=torch.int64)
    assert make().score_nbest(memory, lens, none[:, None], none, none).shape == (0,)


@pytest.mark.parametrize("frames", [0, 9])
def test_padding_and_empty_memory(frames: int) -> None:
    """NaN behind the valid frames reaches nothing; no frame is one frame of 0."""
    decoder = make()
    memory, lens, tokens = draw(3, 4)
    memory, lens = memory[:, :frames], lens.clamp(max=frames)
    lens[1] = 0
    dirty = memory.clone()
    for i, n in enumerate(lens.tolist()):
        dirty[i, n:] = torch.nan
    sizes = torch.tensor([4, 2, 0])
    owner = torch.arange(3)
    results = []
    for x in (memory.clone().requires_grad_(), dirty.requires_grad_()):
        teacher = decoder(x, lens, tokens, sizes).log_probs
        state = decoder.init_state(x, lens)
        stepped, _ = decoder.step(torch.full((3,), END), state)
        exactly(stepped, teacher[:, 0])
        scores = decoder.score_nbest(x, lens, tokens, sizes, owner)
        terms = teacher[..., 2].sum() + stepped[:, 3].sum() + scores.sum()
        inputs = [x, *decoder.parameters()]
        gradients = torch.autograd.grad(terms, inputs)
        results.append([teacher, stepped, scores, *gradients])
    for clean, with_nan in zip(*results):
        assert clean.isfinite().all()
        assert torch.equal(clean, with_nan)
    for i, n in enumerate(lens.tolist()):
        alone = log_prob(decoder, memory[i, :n], tokens[i, : sizes[i]].tolist())
        exactly(results[0][2][i], alone)
        assert results[0][3][i, n:].eq(0).all()
    silence = log_prob(decoder, torch.zeros(1, WIDTH), tokens[1, :2].tolist())
    exactly(results[0][2][1], silence)


def test_padding_of_tokens_is_never_read() -> None:
    decoder = make()
    memory, lens, tokens = draw(3, 4)
    sizes, other = torch.tensor([4, 2, 0]), tokens.clone()
    other[1, 2:], other[2] = -1, VOCAB + 5
    a, b = (decoder(memory, lens, text, sizes) for text in (tokens, other))
    assert all(torch.equal(x, y) for x, y in zip(a, b))


def test_dropout_acts_in_training_only() -> None:
    memory, lens, tokens = draw(3, 4)
    sizes = torch.tensor([4, 2, 0])
    plain, dropping = make(), make(dropout=0.5)
    expected = plain(memory, lens, tokens, sizes).hidden
    assert torch.equal(dropping(memory, lens, tokens, sizes).hidden, expected)
    dropping.train()
    a, b = (dropping(memory, lens, tokens, sizes).hidden for _ in range(2))
    assert not torch.allclose(a, b)
    assert torch.equal(plain.train()(memory, lens, tokens, sizes).hidden, expected)


def test_mixed_precision() -> None:
    decoder = make()
    memory, lens, tokens = draw(3, 4)
    sizes = torch.full((3,), 4)
    expected = decoder(memory, lens, tokens, sizes).log_probs
    with torch.autocast("cpu", dtype=torch.bfloat16):
        teacher = decoder(memory, lens, tokens, sizes).log_probs
        state = decoder.init_state(memory, lens)
        for u in range(3):
            token = tokens[:, u - 1] if u else torch.full((3,), END)
            log_probs, state = decoder.step(token, state)
        scores = decoder.score_nbest(memory, lens, tokens, sizes, torch.arange(3))
    assert teacher.dtype == log_probs.dtype == scores.dtype == torch.float32
    torch.testing.assert_close(teacher, expected, rtol=0.1, atol=0.1)
    torch.testing.assert_close(log_probs, expected[:, 2], rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, "at least 1 layer, but has 0"),
        ({"dim": 10, "heads": 4}, "multiple of heads=4, but is 10"),
        ({"dim": 9, "heads": 3}, "must be even"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), but is 1.0"),
        ({"label_smoothing": 1.0}, r"label_smoothing must lie in \[0, 1\), but is 1.0"),
    ],
)
def test_config_refuses(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**options)  # type: ignore[arg-type]
