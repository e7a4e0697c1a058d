"""The comparisons of a matrix as a picture: relative CERR with its intervals."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.matrix.statistics import Comparison, Table
from analysis.pictures import write_picture

__all__ = ["draw"]

_COLOURS = {"streaming": "tab:blue", "full": "tab:red"}


def draw(table: Table, path: Path) -> None:
    """Writes `path`: a panel per group and branch, a line per comparison by cells' first methods. A
    cell of one seed has a hollow mark, and no interval for other seeds.

    Raises:
        ValueError: there are no comparisons.
    """
    results = table.results
    firsts = {cell.name: results.first(cell) for cell in results.cells}
    panels = {
        (group, branch): [
            found
            for method in results.methods
            for found in table.comparisons(group, method)
            if found.branch == branch and firsts[found.cell] == method
        ]
        for group in dict.fromkeys(cell.group for cell in results.cells)
        for branch in _COLOURS
    }
    panels = {key: found for key, found in panels.items() if found}
    if not panels:
        raise ValueError("there is nothing to draw: no cell and its baseline share a seed")
    heights = [len(found) + 1.5 for found in panels.values()]
    figure = Figure(figsize=(8.5, 0.28 * sum(heights) + 1.4), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axis, ((group, branch), found) in zip(axes, panels.items()):
        for row, comparison in enumerate(found):
            _line(axis, -row, comparison, _COLOURS[branch])
        axis.axvline(0, color="black", lw=0.8)
        axis.set_yticks(
            [-row for row in range(len(found))],
            [f"{item.cell} / {item.baseline}" for item in found],
            fontsize=8,
        )
        axis.set_title(f"group {group}, {branch} branch", fontsize=9, loc="left")
        axis.set_ylabel("cell / baseline", fontsize=8)
        axis.grid(axis="x", alpha=0.3)
        axis.set_ylim(-len(found) + 0.4, 0.6)
    axes[-1].set_xlabel(
        "relative CERR (%), more than 0: the cell is better\n"
        "95 % intervals: thick for other utterances, thin for other seeds, too",
        fontsize=8,
    )
    methods = " or ".join(dict.fromkeys(firsts.values()))
    seeds = sorted({run.seed for run in results.runs})
    figure.suptitle(
        f"Relative CERR by {methods} on {', '.join(results.splits)}\n"
        f"{results.base}, seeds {' '.join(map(str, seeds))}",
        fontsize=10,
    )
    write_picture(figure, path, dpi=140)


def _line(axis: Axes, y: float, found: Comparison, colour: str) -> None:
    lines = [(found.utterances, 3.0), *([(found.both, 1.0)] if found.seeds > 1 else [])]
    for interval, width in lines:
        if interval.low is not None and interval.high is not None:
            ends = [100 * interval.low, 100 * interval.high]
            axis.plot(ends, [y, y], color=colour, lw=width)
    if found.both.value is not None:
        fill = colour if found.seeds > 1 else "white"
        axis.plot(100 * found.both.value, y, "o", color=colour, mfc=fill, ms=4)
