"""The pictures of a dry run: lengths, texts against lengths, levels, doubts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dualasr_lib.metrics.units import characters
from dualasr_lib.recipe.sound_checks import Sound
from dualasr_lib.recipe.text_checks import Utterance

__all__ = ["plot"]

_RATES = ("fast-speech", "slow-speech", "too-many-tokens")
_LOWEST = -100.0
"""dB; digital silence is shown here."""


def plot(
    utterances: Sequence[Utterance],
    sounds: Sequence[Sound],
    doubts: Mapping[str, Sequence[Mapping[str, Any]]],
    path: Path,
) -> None:
    """Writes four pictures into one PNG file."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    lengths, texts, levels, kinds = figure.subplots(2, 2).flat
    splits = list(dict.fromkeys(utterance.split for utterance in utterances))
    by_split = [[u.seconds for u in utterances if u.split == split] for split in splits]
    lengths.hist(by_split, bins=24, label=splits, stacked=True)
    lengths.set(title="lengths", xlabel="duration (s)", ylabel="utterances (number)")
    lengths.legend()
    suspicious = {item["id"] for kind in _RATES for item in doubts.get(kind, ())}
    for colour, chosen, label in (("C0", False, "usual"), ("C3", True, "suspicious")):
        shown = [u for u in utterances if (u.id in suspicious) == chosen]
        sizes = [len(characters(u.text)) for u in shown]
        texts.scatter([u.seconds for u in shown], sizes, s=8, c=colour, label=label)
    texts.set(title="texts", xlabel="duration (s)", ylabel="characters (number)")
    texts.legend()
    heard = [max(sound.level, _LOWEST) for sound in sounds]
    levels.hist(heard, bins=np.arange(_LOWEST, 5.0, 2.5))
    levels.set(title="levels", xlabel="level (dB of full scale)", ylabel="utterances (number)")
    names = list(doubts)[::-1]
    kinds.barh(names, [len(doubts[name]) for name in names])
    kinds.set(title="doubts", xlabel="doubts (number)", ylabel="kind", xscale="symlog")
    figure.savefig(path, dpi=100, metadata={"Software": None})
