"""k2's transducer loss against ours: its recursion in place of ours, and its whole way."""

from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

pytest.importorskip("k2")

from dualasr_lib.lattice.transducer_loss import (
    K2Losses,
    K2Text,
    K2TransducerOptions,
    k2_pruned_losses,
    k2_recursion,
)
from dualasr_lib.model.transducer.additive import Affine, Text
from dualasr_lib.model.transducer.loss import (
    Early,
    TransducerLosses,
    View,
    has_no_path,
    transducer_losses,
)
from dualasr_lib.model.transducer.recursion import Topology
from dualasr_lib.model.transducer.settings import TransducerLossConfig

TOPOLOGIES = get_args(Topology)
LENS = torch.tensor([9, 4, 7, 1, 0, 3, 6, 0, 1])
TOKEN_LENS = torch.tensor([4, 0, 6, 3, 0, 5, 6, 2, 1])


class Case:
    """Leaves of a branch, float32: repeats, empty texts, one frame, none, T < U."""

    def __init__(self, seed: int, spread: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return (spread * torch.randn(*shape, generator=generator)).requires_grad_()

        self.acoustic, self.language = normal(9, 9, 7), normal(9, 7, 7)
        self.encoder, self.prediction = normal(9, 9, 6), normal(9, 7, 6)
        self.weight, self.bias = normal(7, 6), normal(7)
        self.tokens = torch.randint(1, 7, (9, 6), generator=generator)
        self.tokens[0] = self.tokens[0, 0]
        self.lens, self.token_lens = LENS, TOKEN_LENS

    @property
    def leaves(self) -> list[Tensor]:
        inputs = [self.acoustic, self.language, self.encoder, self.prediction]
        return [*inputs, self.weight, self.bias]

    def join(self, ranges: Tensor) -> Tensor:
        """The joiner in windows, plainly."""
        rows = torch.arange(len(ranges))[:, None, None]
        hidden = torch.tanh(self.encoder[:, :, None] + self.prediction[rows, ranges])
        return linear(hidden, self.weight, self.bias)

    def ours(self, config: TransducerLossConfig, penalty: float, by_k2: bool) -> TransducerLosses:
        eye, none = torch.eye(7), torch.zeros(7)
        view = View(
            Affine(self.acoustic, eye, none),
            Affine(self.language, eye, none),
            self.encoder,
            self.prediction,
            (self.weight, self.bias),
            Early(delay_penalty=penalty),
        )
        text = Text(self.tokens, self.lens, self.token_lens)
        (losses,) = transducer_losses([view], text, config, k2_recursion if by_k2 else None)
        return losses

    def theirs(self, config: TransducerLossConfig, penalty: float) -> K2Losses:
        options = K2TransducerOptions(
            config.prune_range, config.topology, config.language_share, penalty
        )
        text = K2Text(self.tokens, self.lens, self.token_lens)
        return k2_pruned_losses(self.acoustic, self.language, self.join, text, options)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def gradients(losses: TransducerLosses | K2Losses, inputs: list[Tensor]) -> list[Tensor]:
    weights = torch.arange(1.0, len(losses.simple) + 1)
    total = (weights * (losses.simple + 10.0 * losses.pruned)).sum()
    return list(torch.autograd.grad(total, inputs))


def close(got: list[Tensor], expected: list[Tensor], share: float) -> None:
    for mine, theirs in zip(got, expected):
        assert (mine - theirs).norm() <= share * theirs.norm()


@pytest.mark.parametrize("penalty", [0.0, 0.05])
@pytest.mark.parametrize("prune_range", range(2, 8))  # 2 ... U + 1
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_whole_way_equals_ours(topology: Topology, prune_range: int, penalty: float) -> None:
    same = 0
    for seed in range(6):
        case = Case(seed)
        config = TransducerLossConfig(topology=topology, prune_range=prune_range)
        ours, theirs = case.ours(config, penalty, by_k2=False), case.theirs(config, penalty)
        assert torch.equal(ours.impossible, theirs.impossible)
        torch.testing.assert_close(ours.simple.float(), theirs.simple, rtol=1e-5, atol=1e-5)
        valid = (torch.arange(9)[None, :] < LENS[:, None]) & ~ours.impossible[:, None]
        if not torch.equal(ours.alignment.texts[valid], theirs.ranges[valid]):
            continue  # windows of nearly the same worth
        same += 1
        torch.testing.assert_close(ours.pruned.float(), theirs.pruned, rtol=1e-5, atol=1e-5)
        close(gradients(ours, case.leaves), gradients(theirs, case.leaves), 1e-3)
    assert same >= 4


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("seed", range(3))
def test_recursion_in_place_of_ours(seed: int, topology: Topology) -> None:
    case, config = Case(seed, spread=2.0), TransducerLossConfig(topology=topology, prune_range=3)
    own, by_k2 = (case.ours(config, 0.01, by_k2) for by_k2 in (False, True))
    assert torch.equal(own.impossible, by_k2.impossible)
    missing = has_no_path(LENS, TOKEN_LENS, topology, 3)
    assert torch.equal(by_k2.impossible, missing)
    torch.testing.assert_close(own.simple, by_k2.simple, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(own.pruned, by_k2.pruned, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(own.alignment.symbol, by_k2.alignment.symbol, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(own.alignment.blank, by_k2.alignment.blank, rtol=1e-8, atol=1e-10)
    close(gradients(own, case.leaves), gradients(by_k2, case.leaves), 1e-6)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_batch_mates_and_order_change_neither(topology: Topology) -> None:
    config = TransducerLossConfig(topology=topology, prune_range=3)
    whole = Case(5)
    expected, order = whole.theirs(config, 0.01), torch.randperm(9, generator=_generator())
    for rows in (order, *order.split(4), *order.split(1)):
        case = Case(5)
        case.acoustic, case.language = case.acoustic[rows], case.language[rows]
        case.encoder, case.prediction = case.encoder[rows], case.prediction[rows]
        case.tokens, case.lens = case.tokens[rows], LENS[rows]
        case.token_lens = TOKEN_LENS[rows]
        for found in (case.theirs(config, 0.01), case.ours(config, 0.01, by_k2=False)):
            assert torch.equal(found.impossible, expected.impossible[rows])
            for mine, theirs in zip(found[:2], expected[:2]):
                torch.testing.assert_close(mine.float(), theirs[rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 1e4])
def test_padding_changes_neither(junk: float) -> None:
    results = []
    for dirty in (False, True):
        case, config = Case(3), TransducerLossConfig(prune_range=3)
        if dirty:
            with torch.no_grad():
                for n in range(9):
                    frames, said = int(LENS[n]), int(TOKEN_LENS[n])
                    case.acoustic[n, frames:] = junk
                    case.language[n, said + 1 :] = junk
                    case.tokens[n, said:] = -1
        found = case.theirs(config, 0.0)
        results.append([*found, *gradients(found, case.leaves)])
    for expected, got in zip(*results):
        assert torch.equal(expected, got)


@pytest.mark.parametrize(("frames", "tokens"), [(1, 0), (3, 0), (2, 5), (1, 1)])
def test_batches_that_k2_itself_refuses(frames: int, tokens: int) -> None:
    case, config = Case(4), TransducerLossConfig(prune_range=5)
    case.acoustic, case.encoder = case.acoustic[:, :frames], case.encoder[:, :frames]
    case.language = case.language[:, : tokens + 1]
    case.prediction = case.prediction[:, : tokens + 1]
    case.tokens = case.tokens[:, :tokens]
    case.lens, case.token_lens = torch.full((9,), frames), torch.full((9,), tokens)
    ours, theirs = case.ours(config, 0.0, by_k2=True), case.theirs(config, 0.0)
    assert torch.equal(ours.impossible, theirs.impossible)
    torch.testing.assert_close(ours.simple.float(), theirs.simple, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.pruned.float(), theirs.pruned, rtol=1e-5, atol=1e-5)
