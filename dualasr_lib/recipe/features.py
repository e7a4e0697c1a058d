"""Stage 4: filterbank features by kaldifeat through lhotse, stored with lilcom, in shards.

A shard is a fixed number of utterances, computed by one process whatever --jobs says; finished
shards survive a kill. Storage paths are relative to DATA, so DATA may be moved.
"""

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lhotse import LilcomChunkyWriter
from lhotse.serialization import deserialize_item

from dualasr_lib.core.files import write_atomically
from dualasr_lib.core.program import told_by
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.recipe.corpus import Corpus, O
from dualasr_lib.recipe.extraction import WriteError, compute_features, make_extractor
from dualasr_lib.recipe.noise import make_noise
from dualasr_lib.recipe.options import Options
from dualasr_lib.recipe.process import die_with_parent, worker_pool
from dualasr_lib.recipe.stage import (
    Folders,
    LeftOut,
    PrepareError,
    count_jsonl,
    progress,
    read_jsonl,
    remember_left_out,
    write_jsonl,
)

__all__ = ["parameters", "run", "run_share"]

SHARD_SIZE = 250


class _Shard(NamedTuple):
    split: str
    number: int
    cuts: list[dict[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:05d}"


def parameters() -> dict[str, Any]:
    """What decides the bytes of this stage."""
    return {"fbank": asdict(FbankConfig()), "storage": "lilcom_chunky", "shard_size": SHARD_SIZE}


def run(corpus: Corpus[O], options: O, folders: Folders) -> None:
    """Writes `features/<split>-<shard>.lca`, `cuts/<corpus>_cuts_<split>.jsonl.gz` and, with
    --noise-dir, `noise/`.
    """
    stored = options.features == "stored"
    if options.noise_dir is not None:
        count = make_noise(options.noise_dir, folders.out, stored)
        print(f"  {count} windows of noise", flush=True)
    splits = [split.name for split in corpus.splits(options)]
    sources = {s: options.data_dir / "utterances" / corpus.cuts_file(s) for s in splits}
    if not stored:
        for source in sources.values():
            write_jsonl(folders.out / "cuts" / source.name, read_jsonl(source))
        _report({}, folders, options)
        return
    sizes = {split: count_jsonl(source) for split, source in sources.items()}
    shards = (shard for split, source in sources.items() for shard in _shards(source, split))
    num_shards = sum(-(-size // SHARD_SIZE) for size in sizes.values())
    work = partial(_compute_shard, folder=folders.scratch)
    done: dict[str, list[str]] = {split: [] for split in splits}
    for name in progress(_map(work, shards, options.jobs), num_shards, "features, shards"):
        done[name.rpartition("-")[0]].append(name)
    bad = _report(done, folders, options)
    (folders.out / "features").mkdir(exist_ok=True)
    for split, names in done.items():
        for name in names:
            _link(folders.scratch / f"{name}.lca", folders.out / "features")
        shown = (read_jsonl(folders.scratch / f"{name}.jsonl.gz") for name in names)
        target = folders.out / "cuts" / sources[split].name
        written = write_jsonl(target, chain.from_iterable(shown))
        if written + bad[split] != sizes[split]:
            raise PrepareError(
                f"stage 4, {split}: {sizes[split]} utterances went in, but {written} came out and"
                f" {bad[split]} are named as bad; please report this"
            )


def run_share(corpus: Corpus[O], options: O, scratch: Path, number: int, count: int) -> None:
    """Computes each `count`-th shard from `number` on and leaves it in `scratch`, where `run` finds
    it; others may do theirs meanwhile.
    """
    splits = [split.name for split in corpus.splits(options)]
    sources = {s: options.data_dir / "utterances" / corpus.cuts_file(s) for s in splits}
    total = sum(-(-count_jsonl(source) // SHARD_SIZE) for source in sources.values())
    shards = chain.from_iterable(_shards(source, split) for split, source in sources.items())
    mine = islice(shards, number, None, count)
    work = partial(_compute_shard, folder=scratch)
    own = len(range(number, total, count))
    for _ in progress(_map(work, mine, options.jobs), own, "features, shards of this share"):
        pass


def _shards(source: Path, split: str) -> Iterator[_Shard]:
    cuts = read_jsonl(source)
    number = 0
    while batch := list(islice(cuts, SHARD_SIZE)):
        yield _Shard(split, number, batch)
        number += 1


def _map(work: "partial[str]", shards: Iterator[_Shard], jobs: int) -> Iterator[str]:
    """`work` over shards in order, with a bounded number of shards in memory."""
    if jobs == 1:
        yield from map(work, shards)
        return
    with worker_pool(jobs, _start_worker) as pool:
        while group := list(islice(shards, 4 * jobs)):
            yield from pool.map(work, group)


def _start_worker() -> None:
    die_with_parent()
    torch.set_num_threads(1)


def _compute_shard(shard: _Shard, folder: Path) -> str:
    """Features of one shard; its manifest, written last, says that it is finished. A shard that
    another program is computing is waited for."""
    with open(folder / f"{shard.name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _compute_locked(shard, folder)
    return shard.name


def _compute_locked(shard: _Shard, folder: Path) -> None:
    manifest = folder / f"{shard.name}.jsonl.gz"
    if manifest.is_file():
        return
    extractor = make_extractor(FbankConfig())
    path = f"features/{shard.name}.lca"
    done, bad = [], []
    try:
        with LilcomChunkyWriter(folder / f"{shard.name}.lca") as writer:
            for item in shard.cuts:
                cut = deserialize_item(item)
                try:
                    done.append(compute_features(cut, extractor, writer, path).to_dict())
                except WriteError:
                    raise
                except Exception as error:  # of whatever reads audio: reported, never dropped
                    files = [source.source for source in cut.recording.sources]
                    bad.append({"id": cut.id, "reason": told_by(str(error)), "files": files})
        write_atomically(folder / f"{shard.name}.bad.json", json.dumps(bad).encode())
        write_jsonl(manifest, done)
    except OSError as error:
        raise PrepareError(
            f"features cannot be written to '{folder}': {error.strerror or error}; the same command"
            " goes on when that is put right"
        ) from error


def _link(file: Path, folder: Path) -> None:
    """The file under a second name: `file` stays until the stage is marked as done."""
    target = folder / file.name
    target.unlink(missing_ok=True)
    try:
        os.link(file, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, target)


def _report(done: Mapping[str, list[str]], folders: Folders, options: Options) -> dict[str, int]:
    """Names the utterances without readable audio; goes on only if --allow-bad covers them, and
    returns how many there are in each split.
    """
    shards = [name for names in done.values() for name in names]
    folder = folders.scratch
    bad = {name: json.loads((folder / f"{name}.bad.json").read_text()) for name in shards}
    items = [item for of_shard in bad.values() for item in of_shard]
    path = options.data_dir / "report" / "bad_utterances.json"
    write_atomically(path, json.dumps(items, indent=1, ensure_ascii=False).encode())
    for item in items:
        print(f"bad utterance {item['id']}: {item['reason']}", file=sys.stderr)
    if len(items) <= options.allow_bad:
        left_out = [LeftOut(i["id"], tuple(map(Path, i["files"]))) for i in items]
        remember_left_out(folders, left_out, options.source)
        return {split: sum(len(bad[name]) for name in names) for split, names in done.items()}
    for name in shards:  # so that these are tried again when the audio has been repaired
        if bad[name]:
            (folder / f"{name}.jsonl.gz").unlink()
    raise PrepareError(
        f"{len(items)} utterances have no readable audio (above, and in '{path}'); repair them,"
        f" or leave them out with --allow-bad {len(items)}"
    )
