"""Stage 1: the corpus's own check and manifests; and what is done when the corpus has moved.

Manifests and cuts name the audio by absolute paths. If prepare.sh is called with another folder
than before, and every recording is found there with as many samples, the paths are changed and all
stages stay done.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile

from dualasr_lib.core.files import write_atomically
from dualasr_lib.recipe.corpus import Corpus, O
from dualasr_lib.recipe.stage import Folders, PrepareError, read_jsonl, write_jsonl

__all__ = ["follow_source", "run"]

_SOURCE = "source.json"


def run(corpus: Corpus[O], options: O, folders: Folders) -> None:
    """Writes `manifests/<corpus>_{recordings,supervisions}_<part>.jsonl.gz`,
    `manifests/check.json` and `manifests/source.json`.

    Raises:
        PrepareError: the corpus has defects, or its recipe left a manifest out.
    """
    target = folders.out / "manifests"
    target.mkdir(exist_ok=True)
    corpus.manifests(options, folders)
    for part in corpus.parts(options):
        for name in (corpus.recordings_file(part), corpus.supervisions_file(part)):
            if not (target / name).is_file():
                raise PrepareError(f"the recipe of {corpus.name} did not write '{name}'")
    if not (target / "check.json").is_file():
        write_atomically(target / "check.json", b"{}")
    source = {"source": None if options.source is None else str(options.source)}
    write_atomically(target / _SOURCE, json.dumps(source).encode())


def follow_source(data_dir: Path, source: Path | None) -> None:
    """Changes the paths of all audio if the corpus has moved to `source`. May be killed and called
    again.

    Raises:
        PrepareError: not all recordings are there; nothing is changed.
    """
    path = data_dir / "manifests" / _SOURCE
    if source is None or not path.is_file():
        return
    former = json.loads(path.read_text(encoding="utf-8"))["source"]
    if former is None or former == str(source):
        return
    _check_moved(data_dir, former, source)
    folders = ("manifests", "utterances", "cuts")
    for manifest in sorted(file for f in folders for file in (data_dir / f).glob("*.jsonl.gz")):
        write_jsonl(manifest, (_moved(item, former, source) for item in read_jsonl(manifest)))
    write_atomically(path, json.dumps({"source": str(source)}).encode())
    print(f"the corpus has moved from '{former}' to '{source}': paths changed", flush=True)


def _check_moved(data_dir: Path, former: str, source: Path) -> None:
    other = []
    for manifest in sorted((data_dir / "manifests").glob("*_recordings_*.jsonl.gz")):
        for item in read_jsonl(manifest):
            moved = _moved(item, former, source)
            if not all(_has_samples(s, item["num_samples"]) for s in _files(moved)):
                other.append(item["id"])
    if other:
        raise PrepareError(
            f"this data folder was prepared from '{former}'; in '{source}' {len(other)} of its"
            f" recordings are missing or have another length (first: {other[0]}). Name the folder"
            " that the corpus was moved to, or use another --data-dir"
        )


def _has_samples(source: dict[str, Any], wanted: int) -> bool:
    try:
        return bool(soundfile.info(source["source"]).frames == wanted)
    except (OSError, RuntimeError):  # missing, or no audio
        return False


def _moved(item: dict[str, Any], former: str, source: Path) -> dict[str, Any]:
    """A manifest's item with its audio below `source`."""
    for entry in _files(item):
        path = Path(entry["source"])
        if path.is_relative_to(former):
            entry["source"] = str(source / path.relative_to(former))
    return item


def _files(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The audio files of a recording, or of a cut's recording."""
    sources = item.get("recording", item).get("sources", ())
    return (entry for entry in sources if entry["type"] == "file")
