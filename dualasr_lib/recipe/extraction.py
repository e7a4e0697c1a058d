"""Filterbank features of one cut: lhotse's extractor with our options, a writer that knows whose
fault an error is.
"""

from typing import Any

import numpy as np
import torch
from lhotse import LilcomChunkyWriter, MonoCut
from lhotse.features.kaldifeat import (
    KaldifeatFbank,
    KaldifeatFbankConfig,
    KaldifeatFrameOptions,
    KaldifeatMelOptions,
)
from lhotse.utils import fastcopy

from dualasr_lib.features.fbank import FbankConfig

__all__ = ["WriteError", "compute_features", "make_extractor"]


class WriteError(OSError):
    """Features could not be written, which is no fault of the audio."""


class _Writer:
    """Tells errors of the writer from those of the audio, and refuses features that are none."""

    def __init__(self, writer: LilcomChunkyWriter) -> None:
        self._writer = writer
        self.name = writer.name
        self.storage_path = writer.storage_path

    def write(self, key: str, value: Any) -> str:
        """As lhotse's writers."""
        if not np.isfinite(value).all():
            raise ValueError("the audio has samples that are NaN, infinite or far beyond 1")
        try:
            return str(self._writer.write(key, value))
        except OSError as error:
            raise WriteError(error.errno, error.strerror or str(error)) from error


def compute_features(
    cut: MonoCut, extractor: KaldifeatFbank, writer: LilcomChunkyWriter, storage_path: str
) -> MonoCut:
    """The cut with stored features; its manifest names them by `storage_path`, relative to DATA.

    Raises:
        OSError: the features cannot be written. Whatever else is raised is about the audio.
    """
    with torch.no_grad():
        cut = cut.compute_and_store_features(extractor, _Writer(writer))
    if cut.features.num_frames != cut.num_frames:
        raise ValueError(f"{cut.features.num_frames} frames, but {cut.num_frames} were expected")
    return fastcopy(cut, features=fastcopy(cut.features, storage_path=storage_path))


def make_extractor(config: FbankConfig) -> KaldifeatFbank:
    """lhotse's extractor with the options of `dualasr_lib.features`."""
    frames = KaldifeatFrameOptions(
        sampling_rate=config.sample_rate,
        frame_shift=config.frame_shift_ms / 1000,
        frame_length=config.frame_length_ms / 1000,
        dither=config.dither,
        snip_edges=config.snip_edges,
    )
    mel = KaldifeatMelOptions(
        num_bins=config.num_mel_bins, low_freq=config.low_freq, high_freq=config.high_freq
    )
    return KaldifeatFbank(KaldifeatFbankConfig(frame_opts=frames, mel_opts=mel))
