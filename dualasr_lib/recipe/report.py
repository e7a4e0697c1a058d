"""Stage 7: statistics of the data folder, for people (report.md, durations.png) and programs
(report.json).
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dualasr_lib.core.ctc_frames import ctc_frames
from dualasr_lib.core.files import write_atomically
from dualasr_lib.core.rates import encoder_frames
from dualasr_lib.core.table import markdown
from dualasr_lib.data.manifest import frames_of
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.recipe.corpus import Corpus, O, Split
from dualasr_lib.recipe.stage import Folders, read_jsonl

__all__ = ["run", "what_is_empty"]

_WITHOUT: Mapping[str, str] = {
    "train": "there is nothing to train on",
    "valid": "training cannot tell how good its model is, and methods that weigh scores must be "
    "given the weights (--scales)",
    "eval": "there is nothing to decode in it",
}


def run(corpus: Corpus[O], options: O, folders: Folders) -> None:
    """Writes `report/{report.json,report.md,durations.png}`."""
    folder = options.data_dir
    tokenizer = Tokenizer.load(folder / "lang")
    splits = {split.name: _Statistics(tokenizer) for split in corpus.splits(options)}
    for split, statistics in splits.items():
        for cut in read_jsonl(folder / "cuts" / corpus.cuts_file(split)):
            statistics.add(cut)
    left_out = json.loads((folder / "utterances" / "left_out.json").read_text(encoding="utf-8"))
    unreadable = json.loads((folder / "report" / "bad_utterances.json").read_text(encoding="utf-8"))
    report = {
        "text": corpus.normaliser(options),
        "vocabulary": tokenizer.vocab_size,
        "corpus": json.loads((folder / "manifests" / "check.json").read_text(encoding="utf-8")),
        "splits": {split: statistics.summary() for split, statistics in splits.items()},
        "left_out": left_out,
        "unreadable_utterances": unreadable,
    }
    target = folders.out / "report"
    text = json.dumps(report, indent=1, ensure_ascii=False)
    write_atomically(target / "report.json", text.encode())
    write_atomically(target / "report.md", _markdown(report).encode())
    durations = {split: statistics.durations for split, statistics in splits.items()}
    _plot(durations, corpus.name, target)
    print(_table(report))
    sizes = {split: len(lengths) for split, lengths in durations.items()}
    for line in what_is_empty(corpus.splits(options), sizes):
        print(f"warning: {line}", file=sys.stderr)


def what_is_empty(splits: Sequence[Split], sizes: Mapping[str, int]) -> list[str]:
    """A line for each split of these sizes that has no utterances though programs need some."""
    return [
        f"split {split.name} has no utterances: {_WITHOUT[split.use]}"
        for split in splits
        if split.use in _WITHOUT and not sizes[split.name]
    ]


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
        if encoder_frames(frames_of(cut)) < ctc_frames(tokens):
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
    head = ["split", *(name.replace("_", " ") for name in _COLUMNS)]
    rows = [
        [split, *(str(values[name]) for name in _COLUMNS)]
        for split, values in report["splits"].items()
    ]
    return markdown([head, *rows])


def _markdown(report: dict[str, Any]) -> str:
    lines = ["# Data report", ""]
    lines += [
        f"Text: {report['text']}. {report['vocabulary']} tokens. Train counts speed copies.",
        "",
    ]
    lines += [_table(report), "", "## The corpus, and what was left out", ""]
    for name, value in report["corpus"].items():
        title = name.replace("_", " ")
        if isinstance(value, dict):
            lines += [f"- {title}: {reason}: {_shown(ids)}" for reason, ids in value.items()]
        else:
            shown = (", ".join(value) or "none") if isinstance(value, list) else value
            lines.append(f"- {title}: {shown}")
    for split, reasons in report["left_out"].items():
        lines += [f"- {split}: {reason}: {_shown(ids)}" for reason, ids in reasons.items()]
    unreadable = [item["id"] for item in report["unreadable_utterances"]]
    lines.append(f"- utterances without readable audio: {_shown(unreadable)}")
    for split, values in report["splits"].items():
        names = values["no_ctc_alignment_at_25hz"]
        if names:
            reason = "too short for CTC at 25 Hz (training skips them)"
            lines.append(f"- {split}: {reason}: {_shown(names)}")
    lines += ["", "![durations](durations.png)", ""]
    return "\n".join(lines)


def _shown(ids: list[str], most: int = 20) -> str:
    """How many, and the first of them; report.json has all."""
    names = ", ".join(ids[:most]) + (", ..." if len(ids) > most else "")
    return f"{len(ids)} ({names})" if ids else "0"


def _plot(durations: dict[str, list[float]], corpus: str, folder: Path) -> None:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    shown = {split: values for split, values in durations.items() if values}
    weights = [[1 / len(values)] * len(values) for values in shown.values()]
    axes.hist(list(shown.values()), bins=24, weights=weights, label=list(shown))
    axes.set(
        title=f"Durations of utterances, each split by itself ({corpus})",
        xlabel="utterance duration (s)",
        ylabel="share of the split's utterances (1 = all)",
    )
    axes.legend()
    figure.savefig(folder / "durations.png", dpi=150, metadata={"Software": None})
