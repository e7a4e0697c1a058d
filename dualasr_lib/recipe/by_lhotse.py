"""Stage 1 of a corpus that lhotse has a recipe for: `lhotse prepare <corpus>`, unmodified, and an
account of what it read.

lhotse's recipes skip what has no audio, or no text, without a word. A corpus says what its
transcripts name (`Named`); what does not come out is named, and stops the stage unless --allow-bad
covers it.
"""

import codecs
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dualasr_lib.core.files import write_atomically
from dualasr_lib.recipe.balance import check_balance
from dualasr_lib.recipe.corpus import Corpus, O
from dualasr_lib.recipe.process import run_lhotse
from dualasr_lib.recipe.stage import (
    Folders,
    LeftOut,
    PrepareError,
    read_jsonl,
    remember_left_out,
    write_jsonl,
)

__all__ = ["Named", "by_lhotse", "transcript_lines"]

_OUTSIDE = "lhotse left it out: it lies outside its audio, or ends before it begins"


class Named(NamedTuple):
    """A unit that the transcripts of a corpus name."""

    id: str
    """As lhotse calls it."""
    file: Path
    """What to repair if it does not come out."""
    defect: str = ""
    """Why it cannot come out, if that is known."""
    expected: str = ""
    """Why it is not meant to come out: named, but no defect."""


def transcript_lines(path: Path) -> list[str]:
    """The lines of a transcript that lhotse will read.

    Raises:
        PrepareError: it is no plain text in UTF-8, or begins with a byte order mark, which lhotse
            would take for a part of the first word.
    """
    content = path.read_bytes()
    if content.startswith(codecs.BOM_UTF8) or content[:2] in (
        b"\x1f\x8b",
        b"\xff\xfe",
        b"\xfe\xff",
    ):
        what = "a byte order mark" if content[:1] != b"\x1f" else "gzip's mark"
        raise PrepareError(
            f"{path}: must be plain text in UTF-8, but begins with {what}, which lhotse takes for a"
            " part of the first word; remove it"
        )
    try:
        return content.decode().splitlines()
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        wrong = content[error.start : error.end]
        raise PrepareError(f"{path}:{number}: must be UTF-8, but has the bytes {wrong!r}") from None


def by_lhotse(
    corpus: Corpus[O], options: O, folders: Folders, named: Sequence[Named], *arguments: str
) -> None:
    """Runs `lhotse prepare <arguments> <folder>` and writes each part's manifests and `check.json`.

    Args:
        named: every unit of the corpus's parts.
        arguments: the corpus's name for lhotse, its folder, further options.

    Raises:
        PrepareError: lhotse failed, or more units than --allow-bad are missing.
    """
    work = folders.scratch / "manifests"
    work.mkdir(exist_ok=True)
    command = ("prepare", arguments[0], arguments[1], str(work), *arguments[2:])
    run_lhotse(*command, "-j", str(options.jobs), data_dir=options.data_dir)
    kept: list[str] = []
    for part in corpus.parts(options):
        for kind in ("recordings", "supervisions"):
            items = list(read_jsonl(work / f"{arguments[0]}_{kind}_{part}.jsonl.gz"))
            items.sort(key=lambda item: str(item["id"]))
            name = getattr(corpus, f"{kind}_file")(part)
            write_jsonl(folders.out / "manifests" / name, items)
            kept += [item["id"] for item in items] if kind == "supervisions" else []
    reasons = _account(options, named, kept)
    defects = [unit for unit in named if unit.id in reasons and not unit.expected]
    left_out = [LeftOut(unit.id, (unit.file,)) for unit in defects]
    remember_left_out(folders, left_out, options.source)
    groups: dict[str, list[str]] = {}
    for id_, reason in reasons.items():
        groups.setdefault(reason, []).append(id_)
    check_balance("stage 1", (unit.id for unit in named), kept, groups)
    check = {"units": len(named), "units_left_out": groups}
    path = folders.out / "manifests" / "check.json"
    write_atomically(path, json.dumps(check, indent=1, ensure_ascii=False).encode())
    print(f"  {len(kept)} of {len(named)} units in {len(corpus.parts(options))} parts")


def _account(options: O, named: Sequence[Named], kept: Sequence[str]) -> dict[str, str]:
    """Why each unit that did not come out did not."""
    found = frozenset(kept)
    reasons = {
        unit.id: unit.expected or unit.defect or _OUTSIDE for unit in named if unit.id not in found
    }
    bad = [unit for unit in named if unit.id in reasons and not unit.expected]
    for unit in bad:
        print(f"bad unit {unit.id}: {reasons[unit.id]} ('{unit.file}')", file=sys.stderr)
    if len(bad) > options.allow_bad:
        raise PrepareError(
            f"{len(bad)} of {len(named)} units are bad (above); repair them, or leave them out with"
            f" --allow-bad {len(bad)}"
        )
    return reasons
