"""`errs-<split>.txt`: where the errors are, in icefall's format; units are characters or words.

Error rate, alignment of each utterance, then counts of substitutions, deletions and insertions,
and the statistics of each unit. The headings say "word" because readers of the format look for
them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from dualasr_lib.decoding.recogs import Recognised
from dualasr_lib.metrics.alignment import Pair, align
from dualasr_lib.metrics.error_rate import ErrorCounts, count_pairs

__all__ = ["format_errs"]

_NOTHING = "*"  # stands for the missing side of an insertion or deletion


def format_errs(items: Iterable[Recognised]) -> str:
    """The text of the file, in the order of `items`."""
    alignments = [(item.id, align(item.ref, item.hyp)) for item in items]
    pairs = [pair for _, alignment in alignments for pair in alignment]
    lines = [
        *_totals(pairs),
        "",
        "PER-UTT DETAILS: corr or (ref->hyp)  ",
        *(f"{id_}:\t{_details(alignment)}" for id_, alignment in alignments),
        "",
        "SUBSTITUTIONS: count ref -> hyp",
        *_counts(f"{r} -> {h}" for r, h in pairs if r is not None and h is not None and r != h),
        "",
        "DELETIONS: count ref",
        *_counts(ref for ref, hyp in pairs if ref is not None and hyp is None),
        "",
        "INSERTIONS: count hyp",
        *_counts(hyp for ref, hyp in pairs if ref is None and hyp is not None),
        "",
        "PER-WORD STATS: word  corr tot_errs count_in_ref count_in_hyp",
        *_per_unit(pairs),
    ]
    return "\n".join(lines) + "\n"


def _totals(pairs: Sequence[Pair]) -> list[str]:
    errors = count_pairs(pairs)
    return [
        f"%WER = {_percent(errors)}",
        f"Errors: {errors.insertions} insertions, {errors.deletions} deletions, "
        f"{errors.substitutions} substitutions, over {errors.num_ref} reference words "
        f"({sum(ref == hyp for ref, hyp in pairs)} correct)",
        "Search below for sections starting with PER-UTT DETAILS:, SUBSTITUTIONS:, DELETIONS:, "
        "INSERTIONS:, PER-WORD STATS:",
    ]


def _percent(errors: ErrorCounts) -> str:
    """Error rate in per cent; "nan" without reference characters."""
    return f"{100 * errors.rate:.2f}"


def _details(alignment: Sequence[Pair]) -> str:
    """Correct units as they are, each run of errors as (ref->hyp)."""
    parts: list[str] = []
    for correct, run in groupby(alignment, key=lambda pair: pair.ref == pair.hyp):
        columns = list(run)
        refs = [ref for ref, _ in columns if ref is not None]
        hyps = [hyp for _, hyp in columns if hyp is not None]
        if correct:
            parts += refs
        else:
            parts.append(f"({' '.join(refs) or _NOTHING}->{' '.join(hyps) or _NOTHING})")
    return " ".join(parts)


def _counts(names: Iterable[str]) -> list[str]:
    """Lines "count   name", most frequent first, then by name."""
    ordered = sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))
    return [f"{count}   {name}" for name, count in ordered]


def _per_unit(pairs: Sequence[Pair]) -> list[str]:
    """Lines "unit   correct errors in_ref in_hyp", most errors first; a substitution counts for
    both.
    """
    correct = Counter(ref for ref, hyp in pairs if ref is not None and ref == hyp)
    in_ref = Counter(ref for ref, _ in pairs if ref is not None)
    in_hyp = Counter(hyp for _, hyp in pairs if hyp is not None)
    errors = {
        unit: in_ref[unit] + in_hyp[unit] - 2 * correct[unit] for unit in in_ref.keys() | in_hyp
    }
    ordered = sorted(errors, key=lambda unit: (-errors[unit], unit))
    return [
        f"{unit}   {correct[unit]} {errors[unit]} {in_ref[unit]} {in_hyp[unit]}" for unit in ordered
    ]
