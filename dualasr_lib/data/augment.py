"""Augmentation of training features: lhotse's SpecAugment and noise mixing, as functions of a key.

lhotse's SpecAugment draws from the global generators of python, numpy and torch. Here each batch
sets them from a key (seed, epoch, batch index) and puts them back afterwards, so a resumed run,
or one with another number of workers, draws the same numbers, and nothing else notices. Left out:
speed perturbation (done when features are computed).
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import CutMix
from lhotse.dataset.signal_transforms import SpecAugment
from lhotse.utils import fastcopy
from torch import Tensor

from dualasr_lib.data.data_config import AugmentConfig

__all__ = ["Augmenter", "fixed_randomness"]

_MIN_FRAMES = 10
"""lhotse's SpecAugment cannot mask fewer than 7 frames (an empty range to draw from)."""


class Augmenter:
    """Mixes noise into cuts and masks features; all randomness comes from the keys."""

    def __init__(self, config: AugmentConfig, noise: CutSet | None) -> None:
        self._config = config
        self._noise = None if noise is None else noise.map(_mixable).to_eager()
        self._spec_augment = SpecAugment(
            time_warp_factor=config.time_warp,
            num_feature_masks=config.num_feature_masks,
            features_mask_size=config.feature_mask_size,
            num_frame_masks=config.num_frame_masks,
            frames_mask_size=config.frame_mask_size,
            max_frames_mask_fraction=config.max_frames_fraction,
            p=config.spec_augment_prob,
        )

    def mix_noise(self, cuts: CutSet, key: tuple[int, ...]) -> CutSet:
        """The same utterances, some with noise; without a noise manifest nothing changes."""
        if self._noise is None:
            return cuts
        low, high = self._config.noise_snr
        mix = CutMix(
            cuts=self._noise,
            snr=(low, high),
            p=self._config.noise_prob,
            pad_to_longest=False,
            preserve_id=True,
            seed=random.Random(_seed((*key, 1))),
            random_mix_offset=True,
        )
        with fixed_randomness((*key, 2)):
            return mix(cuts.map(_mixable).to_eager())

    def mask(self, features: list[Tensor], key: tuple[int, ...]) -> list[Tensor]:
        """SpecAugment of each utterance's own frames, (T, 80) each; shapes stay."""
        with fixed_randomness((*key, 3)):
            return [
                self._spec_augment(x[None])[0] if len(x) >= _MIN_FRAMES else x for x in features
            ]


@contextmanager
def fixed_randomness(key: tuple[int, ...]) -> Iterator[None]:
    """Inside, the global generators of python, numpy and torch start from `key`; then they go
    back.
    """
    # lhotse draws from numpy's global generator, so that is the one to set (NPY002).
    before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002
    seed = _seed(key)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed % 2**63)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.random.set_rng_state(before[2])


def _seed(key: tuple[int, ...]) -> int:
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "little")


def _mixable(cut: Cut) -> Cut:
    """lhotse mixes with the extractor that a manifest names; its torch `fbank` has the same
    formulas as `kaldifeat-fbank` and is there on machines without kaldifeat."""
    if cut.features is None:  # audio is mixed
        return cut
    return fastcopy(cut, features=fastcopy(cut.features, type="fbank"))
