"""tools/analysis/cuts.py: what it counts."""

import pytest
import torch

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

from analysis import cuts

from dualasr_lib.data.datamodule import Utterance


def test_damage() -> None:
    assert cuts.damage("あいうえお", "あいうえお") == cuts.Damage(0, 0, 0)
    assert cuts.damage("あいうえお", "あいいうえ") == cuts.Damage(1, 1, 0)
    assert cuts.damage("あいうえお", "あいかえお") == cuts.Damage(0, 0, 1)


def test_errors_near_cuts_and_elsewhere() -> None:
    """い is doubled at the cut; く, far from it, is lost."""
    counted = cuts.near_cuts("あいうえおかきくけ", ["あい", "いうえおかきけ"])
    assert (counted.near, counted.far) == (1, 1)
    assert counted.near_chars + counted.far_chars == 10
    assert cuts.near_cuts("あい", ["あい"]) == cuts.NearCuts(0, 0, 0, 2)


def test_talks_are_joined_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "_TALK_SECONDS", 3.0)
    items = [
        Utterance(text, text, 2.0, lambda n=n: torch.full((4,), float(n)), ())
        for n, text in enumerate("あいう")
    ]
    made = list(cuts.talks(items, 10 / 60))
    assert [text for _, text in made] == ["あい", "うあ", "い"]
    assert made[1][0].tolist() == [2.0] * 4 + [0.0] * 4
