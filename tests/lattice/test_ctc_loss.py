"""The CTC loss of k2 against torch's, value and gradient, and against a slow float64 reference of
the delay penalty.
"""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("k2")

from dualasr_lib.lattice.ctc_loss import k2_ctc_loss

Case = tuple[Tensor, Tensor, Tensor, Tensor]


def torch_loss(log_probs: Tensor, lens: Tensor, tokens: Tensor, token_lens: Tensor) -> Tensor:
    return F.ctc_loss(
        log_probs.transpose(0, 1), tokens, lens, token_lens, reduction="none", zero_infinity=True
    )


def frames_needed(text: list[int]) -> int:
    return len(text) + sum(a == b for a, b in itertools.pairwise(text))


def case(seed: int) -> Case:
    """Six utterances in no order: free ones, one empty, one at the limit, one a frame below it."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    vocab_size = draw(2, 9)
    texts = [[draw(1, vocab_size - 1) for _ in range(draw(1, 10))] for _ in range(6)]
    lens = [frames_needed(text) + draw(0, 15) for text in texts]
    texts[1] = []
    lens[3], lens[4] = frames_needed(texts[3]), max(1, frames_needed(texts[4]) - 1)
    tokens = torch.full((6, max(map(len, texts))), vocab_size - 1)
    for row, text in zip(tokens, texts):
        row[: len(text)] = torch.tensor(text, dtype=torch.int64)
    spread = [0.5, 2.0, 5.0][draw(0, 2)]
    logits = spread * torch.randn(6, max(lens), vocab_size, generator=generator)
    order = torch.randperm(6, generator=generator)
    token_lens = torch.tensor([len(text) for text in texts])
    return logits, torch.tensor(lens)[order], tokens[order], token_lens[order]


def value_and_gradient(loss: object, data: Case, **options: float) -> tuple[Tensor, Tensor]:
    assert callable(loss)
    x = data[0].clone().requires_grad_()
    value = loss(x.log_softmax(dim=2), *data[1:], **options)
    weights = torch.arange(1.0, len(value) + 1)  # each utterance's gradient is told apart
    (gradient,) = torch.autograd.grad((value * weights).sum(), x)
    return value.detach(), gradient


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_equals_torch(first: int) -> None:
    impossible = repeats = 0
    for seed in range(first, first + 20):
        data = case(seed)
        value, gradient = value_and_gradient(k2_ctc_loss, data)
        expected, expected_gradient = value_and_gradient(torch_loss, data)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
        for mine, reference in zip(gradient, expected_gradient):
            assert (mine - reference).norm() <= 1e-4 * max(1.0, float(reference.norm())), seed
        texts = [row[:n].tolist() for row, n in zip(data[2], data[3].tolist())]
        needed = [frames_needed(text) for text in texts]
        # 0, without gradient, exactly where there are too few frames
        has_none = [a > b for a, b in zip(needed, data[1].tolist())]
        assert gradient.eq(0).all(dim=2).all(dim=1).tolist() == has_none
        assert value[torch.tensor(has_none)].eq(0).all()
        impossible += sum(has_none)
        repeats += sum(n - len(text) for n, text in zip(needed, texts))
    assert impossible > 0
    assert repeats > 0


def test_order_of_the_batch_decides_nothing() -> None:
    logits, lens, tokens, token_lens = data = case(5)
    value, gradient = value_and_gradient(k2_ctc_loss, data)
    for order in itertools.islice(itertools.permutations(range(6)), 0, 720, 90):
        index = torch.tensor(order)
        shuffled = (logits[index], lens[index], tokens[index], token_lens[index])
        other, _ = value_and_gradient(k2_ctc_loss, shuffled)
        torch.testing.assert_close(other, value[index], rtol=1e-6, atol=1e-6)
    for i, length in enumerate(lens.tolist()):
        alone = (logits[i : i + 1, :length], lens[i, None], tokens[i, None], token_lens[i, None])
        _, single = value_and_gradient(k2_ctc_loss, alone)
        torch.testing.assert_close((i + 1) * single[0], gradient[i, :length], rtol=1e-4, atol=1e-6)


def test_empty_utterances_give_zero_without_gradient() -> None:
    logits, _, tokens, _ = case(0)
    lens, token_lens = torch.tensor([0, 0, 3, 0, 1, 0]), torch.tensor([0, 1, 0, 1, 1, 0])
    value, gradient = value_and_gradient(k2_ctc_loss, (logits, lens, tokens, token_lens))
    assert (value > 0).tolist() == [length > 0 for length in lens.tolist()]
    assert gradient.ne(0).any(dim=2).any(dim=1).tolist() == [n > 0 for n in lens.tolist()]


def test_nothing_to_do() -> None:
    x = torch.zeros(2, 3, 4, requires_grad=True)
    value = k2_ctc_loss(x, torch.zeros(2).long(), torch.ones(2, 1).long(), torch.ones(2).long())
    assert value.tolist() == [0.0, 0.0]
    value.sum().backward()


def test_padding_decides_nothing() -> None:
    logits, lens, tokens, token_lens = data = case(3)
    changed, other = logits.clone(), tokens.clone()
    for i in range(6):
        changed[i, int(lens[i]) :] = torch.nan
        other[i, int(token_lens[i]) :] = -1
    expected = k2_ctc_loss(logits.log_softmax(dim=2), *data[1:])
    assert torch.equal(k2_ctc_loss(changed.log_softmax(dim=2), lens, other, token_lens), expected)


def test_nan_is_not_taken_for_an_impossible_text() -> None:
    logits, lens, tokens, token_lens = case(3)
    expected = k2_ctc_loss(logits.log_softmax(dim=2), lens, tokens, token_lens)
    logits[2, int(lens[2]) - 1] = torch.nan
    value = k2_ctc_loss(logits.log_softmax(dim=2), lens, tokens, token_lens)
    assert value.isnan().tolist() == [i == 2 for i in range(6)]
    kept = ~value.isnan()
    assert torch.equal(value[kept], expected[kept])


def penalised(log_probs: Tensor, text: list[int], delay_penalty: float) -> Tensor:
    """Slow reference in the dtype of log_probs (S, V): the forward recursion over blank, token,
    blank ... with the bonus on each arc that enters a token.
    """
    num_frames = log_probs.shape[0]
    labels = [0, *itertools.chain.from_iterable((token, 0) for token in text)]
    nothing = log_probs.new_full((), -1e30)
    alpha = [log_probs.new_zeros(()), *[nothing] * (len(labels) - 1)]
    for frame in range(num_frames):
        bonus = delay_penalty * (num_frames // 2 - frame)
        following = []
        for state, label in enumerate(labels):
            entering = [alpha[state - 1]] if state else []
            if state > 1 and label and label != labels[state - 2]:
                entering.append(alpha[state - 2])
            # before the first frame only state 0 is alive, which is not yet a blank that was heard
            ways = [alpha[state], *[a + bonus if label else a for a in entering]]
            following.append(torch.logsumexp(torch.stack(ways), 0) + log_probs[frame, label])
        alpha = following
    return -torch.logsumexp(torch.stack(alpha[-2:]), 0)


def enumerated(log_probs: Tensor, text: list[int], delay_penalty: float) -> float:
    """The same from its definition: all V ** S label sequences that collapse to the text."""
    num_frames, vocab_size = log_probs.shape
    total = 0.0
    for path in itertools.product(range(vocab_size), repeat=num_frames):
        first = [t for t in range(num_frames) if path[t] and (t == 0 or path[t] != path[t - 1])]
        if [path[t] for t in first] != text:
            continue
        score = sum(float(log_probs[t, label]) for t, label in enumerate(path))
        total += math.exp(score + delay_penalty * sum(num_frames // 2 - t for t in first))
    return -math.log(total)


@pytest.mark.parametrize("text", [[], [1], [2, 2], [1, 2], [1, 1, 2]])
@pytest.mark.parametrize("num_frames", [4, 5])
def test_reference_is_the_definition(text: list[int], num_frames: int) -> None:
    generator = torch.Generator().manual_seed(num_frames)
    log_probs = torch.randn(num_frames, 3, dtype=torch.float64, generator=generator).log_softmax(1)
    for delay_penalty in (0.0, 0.3):
        expected = enumerated(log_probs, text, delay_penalty)
        assert float(penalised(log_probs, text, delay_penalty)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("delay_penalty", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("seed", range(10))
def test_delay_penalty_equals_the_slow_reference(seed: int, delay_penalty: float) -> None:
    data = logits, lens, tokens, token_lens = case(seed)
    value, gradient = value_and_gradient(k2_ctc_loss, data, delay_penalty=delay_penalty, beam=30.0)
    for i, (length, size) in enumerate(zip(lens.tolist(), token_lens.tolist())):
        text = tokens[i, :size].tolist()
        if frames_needed(text) > length:
            assert float(value[i]) == 0.0
            continue
        x = logits[i, :length].double().requires_grad_()
        expected = penalised(x.log_softmax(dim=1), text, delay_penalty)
        (by_logits,) = torch.autograd.grad(expected, x)
        assert float(value[i]) == pytest.approx(float(expected), rel=1e-5, abs=1e-5)
        difference = gradient[i, :length].double() / (i + 1) - by_logits
        assert difference.norm() <= 1e-4 * max(1.0, float(by_logits.norm()))


def test_delay_penalty_favours_early_emission() -> None:
    """With flat log-probs the gradient of a token's column shows when the alignments emit it."""
    flat = torch.full((1, 20, 3), 1 / 3).log()

    def mean_frame(delay_penalty: float) -> float:
        x = flat.clone().requires_grad_()
        one = torch.tensor([[1]])
        k2_ctc_loss(x, torch.tensor([20]), one, torch.tensor([1]), delay_penalty).sum().backward()
        assert x.grad is not None
        occupation = -x.grad[0, :, 1]
        return float((occupation * torch.arange(20)).sum() / occupation.sum())

    assert mean_frame(0.2) < mean_frame(0.05) < mean_frame(0.0) - 0.1


def test_refusals() -> None:
    logits, lens, tokens, token_lens = case(0)
    with pytest.raises(ValueError, match="beam"):
        k2_ctc_loss(logits, lens, tokens, token_lens, beam=0.0)
    with pytest.raises(ValueError, match="delay_penalty"):
        k2_ctc_loss(logits, lens, tokens, token_lens, delay_penalty=-1.0)
