"""The tables of a matrix as Markdown, group by group."""

from analysis.matrix.results import MatrixResults
from analysis.matrix.statistics import LEVEL, Comparison, Rate, Table
from dualasr_lib.core.table import markdown
from dualasr_lib.metrics.bootstrap import BootstrapConfig, Interval
from dualasr_lib.metrics.units import UNITS
from dualasr_lib.model.joint import BRANCHES

__all__ = ["report"]

_NOTES = """\
- {rate} in %: mean ± standard deviation over seeds; "all" is all evaluation splits together.
- Relative CERR: (baseline - cell) / baseline, above 0 the cell is better. 95 % intervals by paired
  bootstrap: for other utterances (these very models), and for other utterances and other seeds
  (runs of one seed are pairs; Student's t over seeds). p: of no difference, for other utterances
  and seeds, two-sided. Holm: the same, corrected for the number of comparisons of the group, all
  methods together. A comparison that the matrix names as primary, one per branch, stands alone and
  is not corrected. **Bold**: primary p, or Holm's, below {level}.
- Emission delay: p50/p90 of the streaming branch chunk by chunk, on the clock of the audio; mean
  over splits and seeds.
- How alike the branches are: sp-KD losses between them on valid, whether or not they were trained
  with them; the items are utterances, or frames (tokens, for the decoders)."""


def report(table: Table) -> str:
    """All tables, what they mean, and where the numbers come from."""
    results = table.results
    groups = list(dict.fromkeys(cell.group for cell in results.cells))
    parts = [part for group in groups for part in _group(table, group)]
    notes = _NOTES.format(rate=UNITS[results.unit].label, level=LEVEL)
    return "\n\n".join([*parts, notes, _sources(results)]) + "\n"


def _group(table: Table, group: str) -> list[str]:
    parts = []
    for branch in BRANCHES:
        lines = _rates(table, group, branch)
        if len(lines) > 1:
            parts += [f"### {group}: {branch} branch", markdown(lines)]
    for method in table.results.methods:
        found = table.comparisons(group, method)
        if found:
            lines = [_comparison_head(table.results.splits), *map(_comparison, found)]
            parts += [f"### {group}: against baselines, {method}", markdown(lines)]
    lines = _similarities(table, group)
    if len(lines) > 1:
        parts += [f"### {group}: how alike the branches are", markdown(lines)]
    return parts


def _rates(table: Table, group: str, branch: str) -> list[tuple[str, ...]]:
    results = table.results
    mine = [c for c in results.cells if c.group == group and table.has(c.name, branch)]
    firsts = list(dict.fromkeys(map(results.first, mine)))
    first = firsts[0] if len(firsts) == 1 else "first method"
    others = [m for m in results.methods if any(table.has(c.name, branch, m) for c in mine)]
    others = others if len(firsts) != 1 else [m for m in others if m not in firsts]
    head = ["cell", "parameters", "seeds", f"{first}: valid", *results.splits, "all", "each seed"]
    head += [f"{method}: all" for method in others]
    streams = branch == "streaming" and any(run.emission_ms for run in results.runs)
    lines = [tuple(head + (["emission delay ms"] if streams else []))]
    for cell in mine:
        runs, own = table.runs(cell.name), results.first(cell)
        whole = table.rate(cell.name, branch, own, results.splits)
        line = [
            cell.name if len(firsts) == 1 else f"{cell.name} ({own})",
            f"{runs[0].parameters / 1e6:.2f} M",
            " ".join(str(run.seed) for run in runs),
            *(_rate(table.rate(cell.name, branch, own, [s])) for s in ("valid", *results.splits)),
            _rate(whole),
            " ".join(f"{100 * rate:.2f}" for rate in whole.seeds),
            *(
                _rate(table.rate(cell.name, branch, m, results.splits))
                if table.has(cell.name, branch, m)
                else "-"
                for m in others
            ),
        ]
        if streams:
            delays = (table.emission(cell.name, rank) for rank in ("p50", "p90"))
            line.append("/".join("-" if d is None else f"{d:.0f}" for d in delays))
        lines.append(tuple(line))
    return lines


def _comparison_head(splits: tuple[str, ...]) -> tuple[str, ...]:
    intervals = ("relative CERR %", "other utterances", "other utterances and seeds")
    return ("branch", "cell", "baseline", *intervals, "p", "Holm", "better in", *splits)


def _comparison(found: Comparison) -> tuple[str, ...]:
    mark = "**" if found.significant else ""
    return (
        found.branch,
        found.cell,
        found.baseline,
        f"{mark}{_percent(found.both.value)}{mark}",
        _interval(found.utterances),
        _interval(found.both) if found.seeds > 1 else "one seed",
        _p_value(found.p),
        "primary" if found.primary else _p_value(found.corrected),
        f"{found.better} of {found.seeds}",
        *(_percent(value) for value in found.splits.values()),
    )


def _similarities(table: Table, group: str) -> list[tuple[str, ...]]:
    names = list(dict.fromkeys(name for run in table.results.runs for name in run.similarity))
    lines = [("cell", *(name.replace("_", ", ") for name in names))]
    for cell in table.results.cells:
        values = [table.similarity(cell.name, name) for name in names]
        if cell.group == group and names and None not in values:
            lines.append((cell.name, *(f"{value:.5f}" for value in values)))
    return lines


def _sources(results: MatrixResults) -> str:
    utterances = sum(len(results.lengths[split]) for split in results.splits)
    units = sum(sum(results.lengths[split]) for split in results.splits)
    by_step: dict[str, set[str]] = {}
    for run in results.runs:
        for step, commit in run.commits.items():
            by_step.setdefault(step, set()).add(commit)
    commits = "; ".join(f"{step} {', '.join(sorted(found))}" for step, found in by_step.items())
    hours = sum(run.train_seconds for run in results.runs) / 3600
    bootstrap = BootstrapConfig()
    start = " ".join((results.base, *results.set))
    devices = ", ".join(sorted({run.device for run in results.runs}))
    return (
        f"{len(results.runs)} runs from {start} on {devices}, {hours:.1f} h of training. "
        f"{' + '.join(results.splits)}: {utterances} utterances, {units} {results.unit}s; valid: "
        f"{len(results.lengths['valid'])}, {sum(results.lengths['valid'])}. "
        f"Commits: {commits}. Bootstrap: {bootstrap.num_draws} draws, seed {bootstrap.seed}."
    )


def _rate(rate: Rate) -> str:
    spread = "" if rate.spread is None else f" ± {100 * rate.spread:.2f}"
    return f"{100 * rate.mean:.2f}{spread}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:+.1f}"


def _p_value(p: float | None) -> str:
    return "-" if p is None else f"{p:.3f}" if p >= 0.001 else "<0.001"


def _interval(interval: Interval) -> str:
    return f"[{_percent(interval.low)}, {_percent(interval.high)}]"
