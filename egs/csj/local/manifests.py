"""CSJ's stage 1: the corpus is checked, then `lhotse prepare csj` (unmodified) reads it.

Talks with defects that --allow-bad covers are left out: lhotse then reads a view of the corpus
(links to the good talks). Its recipe insists on 75 talk ids; a bad one of these gets a stand-in
in the view, one second of silence, which is dropped from the manifests again.
"""

import json
import sys
import wave
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dualasr_lib.core.files import write_atomically
from dualasr_lib.recipe.balance import check_balance
from dualasr_lib.recipe.process import run_lhotse
from dualasr_lib.recipe.stage import (
    Folders,
    LeftOut,
    PrepareError,
    read_jsonl,
    remember_left_out,
    write_jsonl,
)
from egs.csj.local.corpus_check import (
    SAMPLE_RATE,
    TalkReport,
    check_corpus,
    duplicated,
    hard_coded_talks,
)
from egs.csj.local.options import CsjOptions
from egs.csj.local.sdb import Span

__all__ = ["PARTS", "run"]

PARTS = ("core", "noncore", "valid", "eval1", "eval2", "eval3", "excluded")
"""As lhotse's recipe names them."""

_SHOWN_WARNINGS = 10
_EMPTY, _BEHIND, _TIED = "no text", "behind the end of the audio", "joined to the unit before"


def run(options: CsjOptions, folders: Folders) -> None:
    """Writes `manifests/csj_{recordings,supervisions}_<part>.jsonl.gz` and
    `manifests/check.json`.
    """
    if options.open and not (options.csj_dir / ".complete").is_file():
        raise PrepareError(
            f"'{options.csj_dir}' is no complete open corpus (no file .complete); run"
            " tools/make_open_corpus.py again, it goes on where it stopped"
        )
    reports = check_corpus(options.csj_dir, options.jobs)
    bad = _report(reports, options)
    corpus = options.csj_dir
    out, work = folders
    if bad or any(report.behind for report in reports):
        corpus = work / "view"
        _make_view(reports, bad, corpus)
    paths = [str(corpus), str(work / "manifests"), "-t", str(work / "transcripts")]
    run_lhotse("prepare", "csj", *paths, "-j", str(options.jobs), data_dir=options.data_dir)
    stand_ins = {f"{talk}{channel}" for talk in bad for channel in ("", "-L", "-R")}
    kept: list[str] = []
    for part in PARTS:
        for kind, key in (("recordings", "id"), ("supervisions", "recording_id")):
            name = f"csj_{kind}_{part}.jsonl.gz"
            items = [
                _original(item, corpus, options.csj_dir)
                for item in read_jsonl(work / "manifests" / name)
            ]
            items = [item for item in items if item[key] not in stand_ins]
            items.sort(key=lambda item: str(item["id"]))
            write_jsonl(out / "manifests" / name, items)
            if kind == "supervisions":
                kept += [item["id"] for item in items]
    remember_left_out(folders, _repairable(reports, bad, options.csj_dir), options.csj_dir)
    named = _account([report for report in reports if report.talk.id not in bad], kept)
    summary = {
        "talks": len(reports) - len(bad),
        "left_out": sorted(bad),
        "units": len(kept) + sum(len(ids) for ids in named.values()),
        "units_without_text": len(named[_EMPTY]),
        "units_left_out": named,
    }
    write_atomically(out / "manifests" / "check.json", json.dumps(summary, indent=1).encode())


def _repairable(reports: list[TalkReport], bad: set[str], csj_dir: Path) -> Iterator[LeftOut]:
    """Bad talks, and talks with units behind the end of their audio; of a talk that is not there
    the files that would be it.
    """
    for talk, behind in ((report.talk, report.behind) for report in reports):
        if talk.id in bad or behind:
            sdb = [csj_dir / "MORPH" / "SDB" / p / f"{talk.id}.sdb" for p in ("core", "noncore")]
            files = sdb if talk.sdb is None else [talk.sdb, *talk.wavs]
            what = talk.id if talk.id in bad else f"units of {talk.id} behind its end"
            yield LeftOut(what, tuple(files))


def _account(reports: list[TalkReport], kept: list[str]) -> dict[str, list[str]]:
    """The ids of the units that are not in the manifests, by reason.

    Raises:
        PrepareError: there are others.
    """
    named: dict[str, list[str]] = {_EMPTY: [], _BEHIND: [], _TIED: []}
    known = frozenset(kept)
    given: list[str] = []
    for report in reports:
        for span in report.spans:
            ids = [unit.id for unit in span.units]
            given += ids
            found = [id_ for id_ in ids if id_ in known]
            others = [id_ for id_ in ids if id_ not in known]
            if span in report.behind:
                named[_BEHIND] += others
            elif not span.text:
                named[_EMPTY] += others
            elif found:  # lhotse made one unit of several
                named[_TIED] += others
    check_balance("stage 1", given, kept, named)
    for reason in (_BEHIND,):
        for id_ in named[reason]:
            print(f"left out: unit {id_}: {reason}", file=sys.stderr)
    return named


def _report(reports: list[TalkReport], options: CsjOptions) -> set[str]:
    """Prints and writes all defects; returns the bad talks if --allow-bad covers them."""
    defects = [defect for report in reports for defect in report.defects]
    warnings = [warning for report in reports for warning in report.warnings]
    bad = {defect.talk for defect in defects} | set(duplicated(reports))
    content = {
        "bad_talks": sorted(bad),
        "in_core_and_noncore": duplicated(reports),
        "defects": [defect._asdict() for defect in defects],
        "warnings": [warning._asdict() for warning in warnings],
    }
    path = options.data_dir / "report" / "bad.json"
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
    for defect in defects:
        print(f"bad talk {defect}", file=sys.stderr)
    for talk in duplicated(reports):
        print(f"bad talk {talk}: stands in core and noncore both", file=sys.stderr)
    for warning in warnings[:_SHOWN_WARNINGS]:
        print(f"warning: {warning}", file=sys.stderr)
    if len(warnings) > _SHOWN_WARNINGS:
        print(f"warning: {len(warnings) - _SHOWN_WARNINGS} more in '{path}'", file=sys.stderr)
    print(f"  {len(reports)} talks checked, {len(bad)} bad, {len(warnings)} warnings")
    if len(bad) > options.allow_bad:
        raise PrepareError(
            f"{len(bad)} of {len(reports)} talks are bad (above, and in '{path}'); repair them, or"
            f" leave them out with --allow-bad {len(bad)}"
        )
    if duplicated(reports):
        raise PrepareError(f"remove one copy of {', '.join(duplicated(reports))}")
    return bad


def _make_view(reports: list[TalkReport], bad: set[str], view: Path) -> None:
    """Links to the good talks, and stand-ins for bad ones that lhotse's recipe insists on.

    Units behind the end of the audio are taken out of the text: lhotse drops some without a word
    and stops at others.
    """
    for part in ("core", "noncore"):
        (view / "MORPH" / "SDB" / part).mkdir(parents=True)
        (view / "WAV" / part).mkdir(parents=True)
    for report in reports:
        talk = report.talk
        if talk.id in bad or talk.sdb is None:
            continue
        for file, kind in ((talk.sdb, "MORPH/SDB"), *((wav, "WAV") for wav in talk.wavs)):
            target = view / kind / talk.part / file.name
            if file == talk.sdb and report.behind:
                target.write_bytes(_without(file.read_bytes(), report.behind))
            else:
                target.symlink_to(file)
    for talk_id in sorted(bad & hard_coded_talks().keys()):
        _write_stand_in(view, talk_id)
    wanted = hard_coded_talks().keys()
    for part in ("core", "noncore"):
        if not any(r.talk.part == part and r.talk.id not in wanted | bad for r in reports):
            raise PrepareError(f"no good training talk is left in {part}/ (lhotse needs one)")


def _without(sdb: bytes, spans: Iterable[Span]) -> bytes:
    """The file without the lines of some units."""
    dropped = {line for span in spans for unit in span.units for line in unit.lines}
    lines = sdb.split(b"\n")
    return b"\n".join(line for i, line in enumerate(lines, start=1) if i not in dropped)


def _write_stand_in(view: Path, talk: str) -> None:
    channels = ("L", "R") if talk.startswith("D") else ("L",)
    rows = [
        f"1\t\t{talk}\t{i:04d} 00000.000-00000.500 {channel}:-001-001\t\tあ\n"
        for i, channel in enumerate(channels, start=1)
    ]
    sdb = view / "MORPH" / "SDB" / "noncore" / f"{talk}.sdb"
    sdb.write_bytes("".join(rows).encode("shift_jis"))
    for channel in channels:
        name = f"{talk}-{channel}.wav" if talk.startswith("D") else f"{talk}.wav"
        with wave.open(str(view / "WAV" / "noncore" / name), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
            file.writeframes(bytes(2 * SAMPLE_RATE))


def _original(item: dict[str, Any], view: Path, csj_dir: Path) -> dict[str, Any]:
    """The same recording with its path in the corpus, not in the view."""
    for source in _sources(item):
        source["source"] = str(csj_dir / Path(source["source"]).relative_to(view))
    return item


def _sources(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from item.get("sources", ())
