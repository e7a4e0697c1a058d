"""Masks of utterances and of channels: rates, nesting, determinism, None where nothing is due."""

import torch

from dualasr_lib.model.zipformer.masking import (
    draw_features,
    feature_mask,
    sequence_dropout,
    sequence_mask,
)


def test_sequence_mask_drops_whole_utterances_at_its_rate() -> None:
    x = torch.ones(4000, 3, 2, dtype=torch.bfloat16)
    mask = sequence_mask(x, 0.2, training=True)
    assert mask is not None
    assert mask.shape == (4000, 1, 1) and mask.dtype == x.dtype
    assert set(mask.flatten().tolist()) == {0.0, 1.0}
    assert abs(float(mask.float().mean()) - 0.8) < 0.03
    assert sequence_mask(x[:, :, 0], 1.0, training=True).shape == (4000, 1)


def test_sequence_dropout_keeps_the_rest_as_it_is() -> None:
    x = torch.randn(50, 3, 2)
    y = sequence_dropout(x, 0.5, training=True)
    dropped = y.abs().sum(dim=(1, 2)) == 0
    assert 0 < int(dropped.sum()) < 50
    assert torch.equal(y[~dropped], x[~dropped])


def test_no_mask_where_nothing_is_dropped() -> None:
    x = torch.randn(2, 3, 8)
    assert sequence_mask(x, 0.0, training=True) is None
    assert sequence_mask(x, 1.0, training=False) is None
    assert sequence_mask(x, 1e-9, training=True) is None
    assert sequence_dropout(x, 1.0, training=False) is x
    assert draw_features(2, training=False) is None
    assert draw_features(2, training=True, rate=0.0) is None
    assert draw_features(2, training=True, rate=1e-9) is None
    assert feature_mask(None, x, 4) is None
    kept = torch.zeros(2, 2, dtype=torch.bool)
    assert feature_mask(kept, x, 0) is None
    assert feature_mask(kept, x, 8) is None
    assert feature_mask(kept, x, 9) is None


def test_feature_draws_are_nested_at_the_published_rates() -> None:
    kept = draw_features(20000, training=True)
    assert kept is not None
    first, second = kept.unbind(dim=1)
    assert not bool((second & ~first).any())
    assert abs(float(first.float().mean()) - 0.875) < 0.01
    assert abs(float(second.float().mean()) - 0.875**2) < 0.01


def test_feature_mask_by_hand() -> None:
    kept = torch.tensor([[True, True], [True, False], [False, False]])
    mask = feature_mask(kept, torch.zeros(3, 4, 7), unmasked_dim=2)
    expected = [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]]
    assert torch.equal(mask, torch.tensor(expected, dtype=torch.float32)[:, None])


def test_draws_depend_on_the_seed_alone() -> None:
    def drawn() -> torch.Tensor:
        torch.manual_seed(5)
        return draw_features(30, training=True)

    assert torch.equal(drawn(), drawn())
