"""Features, or audio, in large sequential files: Lhotse Shar, for storage that hates small reads.

Usage: python -m dualasr_lib.recipe.shar --data-dir DATA [--audio] [--shard-size 1000]

Writes DATA/shar/<split>/{cuts,features}.000000.{jsonl.gz,tar} ... of every split, after stage 4;
with --audio `recording.000000.tar` (FLAC) instead. Train and decode with `data.storage = "shar"`
(and `data.features = "computed"` for audio). Any tool that reads Shar can read it.
"""

import argparse
import shutil
from pathlib import Path

from lhotse import CutSet
from lhotse.shar import SharWriter

from dualasr_lib.core.files import output_folder
from dualasr_lib.core.program import run_program
from dualasr_lib.data.folder import DataFolder
from dualasr_lib.data.shards import shar_folder
from dualasr_lib.recipe.stage import PrepareError, lock, progress

__all__ = ["main", "write_shar"]


def write_shar(data_dir: Path, audio: bool = False, shard_size: int = 1000) -> dict[str, int]:
    """Writes the shards of all splits, each folder under its name when it is complete.

    Returns:
        Cuts of each split.

    Raises:
        PrepareError: no features to write, or a prepare.sh is at work.
    """
    folder = DataFolder.read(data_dir)
    written = {}
    with lock(data_dir):
        for split in folder.splits:
            target = shar_folder(data_dir, split.name)
            temporary = target.with_name(f".{split.name}.tmp")
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            written[split.name] = _write(data_dir, split.cuts, temporary, audio, shard_size)
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
    return written


def _write(data_dir: Path, manifest: str, target: Path, audio: bool, shard_size: int) -> int:
    cuts = CutSet.from_jsonl_lazy(data_dir / manifest)
    total = sum(1 for _ in cuts)
    cuts = cuts.with_features_path_prefix(data_dir) if not audio else cuts
    fields = {"recording": "flac"} if audio else {"features": "lilcom"}
    with SharWriter(target, fields, shard_size, warn_unused_fields=False) as writer:
        for cut in progress(cuts, total, f"shar, {target.name.strip('.').removesuffix('.tmp')}"):
            if audio:
                writer.write(cut.drop_features() if cut.has_features else cut)
            elif not cut.has_features:
                raise PrepareError(
                    f"'{cut.id}' has no stored features (prepare.sh --features none): write --audio"
                )
            else:
                writer.write(cut.drop_recording())
    return total


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="shar", description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", type=output_folder, required=True, help="DATA of prepare.sh")
    parser.add_argument("--audio", action="store_true", help="recordings, not features")
    parser.add_argument("--shard-size", type=int, default=1000, metavar="N", help="cuts of a shard")
    options = parser.parse_args(arguments)
    if options.shard_size < 1:
        raise ValueError(f"--shard-size must be at least 1, is {options.shard_size}")
    for split, count in write_shar(options.data_dir, options.audio, options.shard_size).items():
        print(f"{split}: {count} cuts")


if __name__ == "__main__":
    run_program(main)
