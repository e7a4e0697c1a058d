"""Padding of utterances into a batch."""

import pytest
import torch

from dualasr_lib.core.silence import LOG_MEL_SILENCE
from dualasr_lib.data.batch import Example, collate


def _example(num_frames: int, tokens: tuple[int, ...]) -> Example:
    features = torch.arange(num_frames * 80, dtype=torch.float32).reshape(num_frames, 80)
    return Example(f"utt{num_frames}", "あ" * len(tokens), num_frames / 100, features, tokens)


def test_collate_pads_on_the_right() -> None:
    examples = [_example(7, (3, 4)), _example(12, (5,))]
    batch = collate(examples)
    assert batch.features.shape == (2, 12, 80)
    assert batch.feature_lens.tolist() == [7, 12]
    assert batch.tokens.tolist() == [[3, 4], [5, 0]]
    assert batch.token_lens.tolist() == [2, 1]
    assert torch.equal(batch.features[0, :7], examples[0].features)
    assert torch.all(batch.features[0, 7:] == torch.tensor(LOG_MEL_SILENCE))
    assert (batch.ids, batch.texts, batch.durations) == (
        ("utt7", "utt12"),
        ("ああ", "あ"),
        (0.07, 0.12),
    )
    assert {tensor.dtype for tensor in (batch.feature_lens, batch.tokens)} == {torch.int64}


def test_moving_a_batch_moves_its_tensors_only() -> None:
    batch = collate([_example(3, (1,))]).to("meta")
    tensors = (batch.features, batch.feature_lens, batch.tokens, batch.token_lens)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert batch.ids == ("utt3",)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        collate([])
