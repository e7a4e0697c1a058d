"""--dry-run: what training would see of a corpus, before a minute is spent on features.

Stages 1 to 3 and the tokeniser run in a folder of their own, whatever is defective; then every
utterance's text and audio is looked at. `DATA/dry-run/` gets `report.{md,json}` and `report.png`;
nothing else of DATA is touched.
"""

import dataclasses
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from dualasr_lib.core.files import write_atomically
from dualasr_lib.core.table import markdown
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.recipe.corpus import Corpus, O
from dualasr_lib.recipe.defects import KINDS
from dualasr_lib.recipe.dry_run_plot import plot
from dualasr_lib.recipe.prepare import prepare
from dualasr_lib.recipe.sound_checks import Sound, listen, repeated
from dualasr_lib.recipe.source import DEFECTS_FILE, Defect
from dualasr_lib.recipe.stage import lock, read_jsonl
from dualasr_lib.recipe.text_checks import Utterance, characters_per_second, doubts

__all__ = ["dry_run"]

_REASONS = {"no text": "empty-text", "shorter than 12.5 ms": "too-short"}
"""What stage 3 calls them."""
_SHOWN = 5


def dry_run(corpus: Corpus[O], options: O) -> Path:
    """Writes the report and prints its tables; the path of `report.md`.

    Raises:
        PrepareError: nothing can be read at all.
    """
    corpus = corpus.adapted(options)
    folder = options.data_dir / "dry-run"
    with lock(folder):
        work = folder / "work"
        if work.exists():
            shutil.rmtree(work)
        _inspect(corpus, dataclasses.replace(options, data_dir=work, allow_bad=sys.maxsize), folder)
        shutil.rmtree(work)
    return folder / "report.md"


def _inspect(corpus: Corpus[O], options: O, folder: Path) -> None:
    """Prepares into `options.data_dir` as far as needed, and reports into `folder`."""
    prepare(corpus, options, 1, 3)
    found = _left_out(options.data_dir)
    tokenizer = None
    try:
        prepare(corpus, options, 5, 5)
        tokenizer = Tokenizer.load(options.data_dir / "lang")
    except ValueError as error:
        found.append(Defect("no-tokens", options.vocab_type, str(error)))
    utterances = _utterances(corpus, options)
    train = next(split.name for split in corpus.splits(options) if split.use == "train")
    sounds = listen(utterances, _recordings(corpus, options), options.jobs)
    found += doubts(utterances, train, tokenizer)
    found += [doubt for sound in sounds for doubt in sound.doubts]
    found += repeated(sounds, {utterance.id: utterance.split for utterance in utterances})
    report = {
        "corpus": corpus.name,
        "normaliser": corpus.normaliser(options),
        "errors are counted in": list(corpus.units),
        "tokens": None if tokenizer is None else tokenizer.vocab_size,
        "splits": {
            split.name: _summary([u for u in utterances if u.split == split.name])
            for split in corpus.splits(options)
        },
        "doubts": _grouped(found),
    }
    _write(report, folder, utterances, sounds)


def _left_out(work: Path) -> list[Defect]:
    """What stages 1 and 3 left out."""
    found = []
    if (path := work / "manifests" / DEFECTS_FILE).is_file():
        found += [Defect(*values) for values in json.loads(path.read_text(encoding="utf-8"))]
    else:
        check = json.loads((work / "manifests" / "check.json").read_text(encoding="utf-8"))
        for reason, ids in check.get("units_left_out", {}).items():
            found += [Defect(reason, id_, "") for id_ in ids]
    left_out = json.loads((work / "utterances" / "left_out.json").read_text(encoding="utf-8"))
    for split, reasons in left_out.items():
        for reason, ids in reasons.items():
            found += [
                Defect(_REASONS.get(reason, reason), id_, f"{split}: {reason}") for id_ in ids
            ]
    return found


def _utterances(corpus: Corpus[O], options: O) -> list[Utterance]:
    """All utterances, each once."""
    copies = tuple(f"_sp{speed}" for speed in corpus.speeds)
    return [
        Utterance(
            cut["id"], split.name, supervision["text"], cut["duration"], supervision["speaker"],
            supervision["recording_id"], cut["channel"], cut["start"],
        )
        for split in corpus.splits(options)
        for cut in read_jsonl(options.data_dir / "utterances" / corpus.cuts_file(split.name))
        for supervision in cut["supervisions"]
        if not cut["id"].endswith(copies)
    ]  # fmt: skip


def _recordings(corpus: Corpus[O], options: O) -> dict[str, dict[str, Any]]:
    return {
        item["id"]: item
        for part in corpus.parts(options)
        for item in read_jsonl(options.data_dir / "manifests" / corpus.recordings_file(part))
    }


def _summary(utterances: Sequence[Utterance]) -> dict[str, Any]:
    text = "".join(utterance.text for utterance in utterances)
    return {
        "utterances": len(utterances),
        "speakers": len({utterance.speaker for utterance in utterances}),
        "hours": round(sum(utterance.seconds for utterance in utterances) / 3600, 4),
        "longest_s": max((utterance.seconds for utterance in utterances), default=0.0),
        "words": sum(len(utterance.text.split()) for utterance in utterances),
        "characters": len(text),
        "distinct": len(set(text)),
        "characters_per_s": round(median(map(characters_per_second, utterances)), 2)
        if utterances
        else None,
    }


def _grouped(found: Sequence[Defect]) -> dict[str, list[dict[str, str]]]:
    """In the order of `KINDS`, others behind."""
    order = dict.fromkeys([*KINDS, *(doubt.kind for doubt in found)])
    groups = {
        kind: [{"id": d.id, "detail": d.detail} for d in found if d.kind == kind] for kind in order
    }
    return {kind: items for kind, items in groups.items() if items}


def _write(
    report: Mapping[str, Any],
    folder: Path,
    utterances: Sequence[Utterance],
    sounds: Sequence[Sound],
) -> None:
    text = json.dumps(report, indent=1, ensure_ascii=False)
    write_atomically(folder / "report.json", text.encode())
    plot(utterances, sounds, report["doubts"], folder / "report.png")
    tables = [_split_table(report), _doubt_table(report)]
    lines = [
        "# What training would see", "",
        f"Normaliser: {report['normaliser']}. Tokens: {report['tokens']}. Errors are counted in"
        f" {' and '.join(report['errors are counted in'])}s.", "",
        tables[0], "", "## Doubts", "", tables[1], "", "![pictures](report.png)", "",
    ]  # fmt: skip
    for kind, items in report["doubts"].items():
        lines += [f"### {kind}: {len(items)}", ""]
        lines += [f"- {item['id']}: {item['detail']}" for item in items[:100]]
        lines += [f"- ... {len(items) - 100} more: report.json", ""] if len(items) > 100 else [""]
    write_atomically(folder / "report.md", "\n".join(lines).encode())
    print(f"{tables[0]}\n\n{tables[1]}\n\nall of it, with pictures: {folder / 'report.md'}")


def _split_table(report: Mapping[str, Any]) -> str:
    names = list(next(iter(report["splits"].values())))
    rows = [(split, *map(str, values.values())) for split, values in report["splits"].items()]
    return markdown([("split", *(name.replace("_", " ") for name in names)), *rows])


def _doubt_table(report: Mapping[str, Any]) -> str:
    if not report["doubts"]:
        return "No doubts."
    rows = []
    for kind, items in report["doubts"].items():
        known = KINDS.get(kind)
        first = ", ".join(item["id"] for item in items[:_SHOWN])
        more = ", ..." if len(items) > _SHOWN else ""
        what = (known.effect, known.what) if known else ("left out", "the recipe refuses it")
        rows.append((kind, str(len(items)), *what, f"{first}{more}"))
    return markdown([("kind", "number", "becomes", "is", "first"), *rows])
