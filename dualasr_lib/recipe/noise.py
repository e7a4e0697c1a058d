"""Noise to mix into training utterances: a folder of audio -> cut manifest with features.

Usage: python -m dualasr_lib.recipe.noise --noise-dir DIR --data-dir DATA

prepare.sh --noise-dir does the same in its stage 4. Writes
DATA/noise/{noise.lca,noise_cuts.jsonl.gz}; train with `data.augment.noise_cuts =
"noise/noise_cuts.jsonl.gz"`. Audio is cut into windows of 10 s, the rest is kept if it is longer
than 5 s, as published recipes do with MUSAN. Nothing is resampled: 16 kHz, one channel.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from lhotse import LilcomChunkyWriter, MonoCut, Recording

from dualasr_lib.core.files import output_folder
from dualasr_lib.core.program import one_line
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.recipe.extraction import compute_features, make_extractor
from dualasr_lib.recipe.stage import PrepareError, progress, write_jsonl

__all__ = ["main", "make_noise"]

WINDOW, SHORTEST = 10.0, 5.0  # seconds


def make_noise(noise_dir: Path, data_dir: Path, stored: bool = True) -> int:
    """Writes the noise manifest and, if they are to be stored, its features; returns the number of
    windows.

    Raises:
        PrepareError: no audio, or audio of another format.
    """
    config = FbankConfig()
    folder = data_dir / "noise"
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(path for kind in ("wav", "flac") for path in noise_dir.rglob(f"*.{kind}"))
    cuts = [cut for path in files for cut in _windows(path, noise_dir, config.sample_rate)]
    if not cuts:
        raise PrepareError(f"'{noise_dir}' has no WAV or FLAC longer than {SHORTEST} s")
    if not stored:
        return write_jsonl(folder / "noise_cuts.jsonl.gz", [cut.to_dict() for cut in cuts])
    extractor = make_extractor(config)
    with LilcomChunkyWriter(folder / "noise.lca") as writer:
        done = [
            compute_features(cut, extractor, writer, "noise/noise.lca").to_dict()
            for cut in progress(cuts, len(cuts), "noise")
        ]
    return write_jsonl(folder / "noise_cuts.jsonl.gz", done)


def _windows(path: Path, noise_dir: Path, sample_rate: int) -> Iterator[MonoCut]:
    name = str(path.relative_to(noise_dir).with_suffix("")).replace("/", "-")
    recording = Recording.from_file(path, recording_id=name)
    if recording.sampling_rate != sample_rate or recording.num_channels != 1:
        raise PrepareError(
            f"'{path}' must have one channel at {sample_rate} Hz, has {recording.num_channels} at"
            f" {recording.sampling_rate} Hz"
        )
    start = 0.0
    while recording.duration - start > SHORTEST:
        duration = round(min(WINDOW, recording.duration - start), 8)
        cut_id = f"{name}-{round(start):05d}"
        yield MonoCut(cut_id, start, duration, channel=0, recording=recording)
        start += WINDOW


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Noise manifest for training.")
    parser.add_argument("--noise-dir", type=Path, required=True, help="folder of WAV or FLAC files")
    parser.add_argument("--data-dir", type=output_folder, required=True, help="DATA of prepare.sh")
    try:
        options = parser.parse_args(arguments)
        count = make_noise(options.noise_dir.resolve(), options.data_dir.resolve())
    except (ValueError, OSError) as error:
        print(f"noise.py: error: {one_line(error)}", file=sys.stderr)
        return 1
    print(f"{count} windows of noise")
    return 0


if __name__ == "__main__":
    sys.exit(main())
