"""Stage 7: statistics of the data folder, for people (report.md, durations.png) and programs
(report.json).
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dualasr_lib.core.ctc_frames import ctc_frames
from dualasr_lib.core.files import write_atomically
from dualasr_lib.core.rates import encoder_frames
from dualasr_lib.data.tokenizer import Tokenizer
from egs.csj.local.options import SPLITS, Options
from egs.csj.local.stage import Folders, read_jsonl

__all__ = ["run"]


def run(options: Options, folders: Folders) -> None:
    """Writes `report/{report.json,report.md,durations.png}`."""
    folder = options.data_dir
    tokenizer = Tokenizer.load(folder / "lang")
    splits = {split: _Statistics(tokenizer) for split in SPLITS}
    for split, statistics in splits.items():
        for cut in read_jsonl(folder / "cuts" / f"csj_cuts_{split}.jsonl.gz"):
            statistics.add(cut)
    left_out = json.loads((folder / "utterances" / "left_out.json").read_text(encoding="utf-8"))
    unreadable = json.loads((folder / "report" / "bad_utterances.json").read_text(encoding="utf-8"))
    report = {
        "mode": options.mode,
        "vocabulary": tokenizer.vocab_size,
        "corpus": json.loads((folder / "manifests" / "check.json").read_text(encoding="utf-8")),
        "splits": {split: splits[split].summary() for split in SPLITS},
        "left_out": left_out,
        "unreadable_utterances": unreadable,
    }
    target = folders.out / "report"
    text = json.dumps(report, indent=1, ensure_ascii=False)
    write_atomically(target / "report.json", text.encode())
    write_atomically(target / "report.md", _markdown(report).encode())
    _plot({split: splits[split].durations for split in SPLITS}, target)
    print(_table(report))


class _Statistics:
    """Sums over the utterances of one split, which are too many to keep."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.durations: list[float] = []
        self._speakers: set[str] = set()
        self._characters: Counter[str] = Counter()
        self._with_words = 0
        self._misfits: list[str] = []

    def add(self, cut: dict[str, Any]) -> None:
        (supervision,) = cut["supervisions"]
        self.durations.append(cut["duration"])
        self._speakers.add(supervision["speaker"])
        self._characters.update(supervision["text"])
        self._with_words += "alignment" in supervision
        tokens = self._tokenizer.encode(supervision["text"])
        if encoder_frames(cut["features"]["num_frames"]) < ctc_frames(tokens):
            self._misfits.append(cut["id"])

    def summary(self) -> dict[str, Any]:
        known = self._tokenizer
        unknown = {c: n for c, n in self._characters.items() if known.unk_id in known.encode(c)}
        return {
            "utterances": len(self.durations),
            "speakers": len(self._speakers),
            "hours": round(sum(self.durations) / 3600, 4),
            "longest_s": round(max(self.durations, default=0.0), 3),
            "shortest_s": round(min(self.durations, default=0.0), 3),
            "characters": sum(self._characters.values()),
            "distinct_characters": len(self._characters),
            "oov_characters": sum(unknown.values()),
            "oov": dict(sorted(unknown.items(), key=lambda item: (-item[1], item[0]))),
            "with_word_times": self._with_words,
            "no_ctc_alignment_at_25hz": self._misfits,
        }


_COLUMNS: tuple[str, ...] = ("utterances", "speakers", "hours", "shortest_s", "longest_s")
_COLUMNS += ("characters", "distinct_characters", "oov_characters", "with_word_times")


def _table(report: dict[str, Any]) -> str:
    lines = ["| split | " + " | ".join(name.replace("_", " ") for name in _COLUMNS) + " |"]
    lines.append("| --- |" + " ---: |" * len(_COLUMNS))
    for split, values in report["splits"].items():
        cells = " | ".join(str(values[name]) for name in _COLUMNS)
        lines.append(f"| {split} | {cells} |")
    return "\n".join(lines)


def _markdown(report: dict[str, Any]) -> str:
    corpus = report["corpus"]
    lines = ["# Data report", ""]
    lines += [
        f"Mode {report['mode']}, {report['vocabulary']} tokens. Train counts speed copies.",
        "",
    ]
    lines += [_table(report), "", "## Left out", ""]
    talks = ", ".join(corpus["left_out"]) or "none"
    lines.append(f"- talks with defects (bad.json says why): {talks}")
    lines.append(f"- units without any text: {corpus['units_without_text']} of {corpus['units']}")
    for split, reasons in report["left_out"].items():
        lines += [f"- {split}: {reason}: {len(ids)}" for reason, ids in reasons.items()]
    lines.append(f"- utterances without readable audio: {len(report['unreadable_utterances'])}")
    for split, values in report["splits"].items():
        names = values["no_ctc_alignment_at_25hz"]
        if names:
            shown = ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
            lines.append(f"- {split}: too short for CTC at 25 Hz (training skips them): {shown}")
    lines += ["", "![durations](durations.png)", ""]
    return "\n".join(lines)


def _plot(durations: dict[str, list[float]], folder: Path) -> None:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    shown = {split: values for split, values in durations.items() if values}
    weights = [[1 / len(values)] * len(values) for values in shown.values()]
    axes.hist(list(shown.values()), bins=24, weights=weights, label=list(shown))
    axes.set(xlabel="utterance duration (s)", ylabel="share of the split")
    axes.legend()
    figure.savefig(folder / "durations.png", dpi=120, metadata={"Software": None})
