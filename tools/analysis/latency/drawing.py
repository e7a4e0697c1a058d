"""The curve as a picture: CER and emission delay over the algorithmic latency."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.latency.report import Point
from analysis.pictures import write_picture

__all__ = ["draw"]

_STREAMING, _FULL = "tab:blue", "tab:red"


def draw(points: Sequence[Point], path: Path) -> None:
    """Writes `path`; a point without reference characters, or words with times, is left out."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    streaming = [point for point in points if point.worst_ms is not None]
    full = next((point for point in points if point.worst_ms is None), None)
    _cer(upper, streaming, full)
    _delays(lower, streaming, full)
    ticks = [point.worst_ms for point in streaming]
    lower.set_xscale("log", base=2)
    lower.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    lower.set_xlabel("algorithmic latency, chunk + look-ahead (ms)")
    for axes in (upper, lower):
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        lowest = min(0.0, 1.1 * axes.dataLim.y0)  # a delay can be negative
        axes.set_ylim(lowest, 1.2 * axes.get_ylim()[1])  # room for the legend
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper right", ncols=2)
    splits = " + ".join(points[0].split_cers)
    figure.suptitle(f"Error rate and delay of one model by chunk length, on {splits}", fontsize=11)
    write_picture(figure, path, dpi=150)


def _cer(axes: Axes, streaming: Sequence[Point], full: Point | None) -> None:
    known = [(point.worst_ms, *point.cer) for point in streaming if point.cer.value is not None]
    if known:
        x, value, low, high = ([*column] for column in zip(*known))
        error = [[v - a for v, a in zip(value, low)], [b - v for v, b in zip(value, high)]]
        percent = [[100 * item for item in side] for side in error]
        centre = [100 * v for v in value]
        axes.plot(x, centre, "o-", color=_STREAMING, label="streaming branch, 95 %")
        axes.errorbar(x, centre, percent, fmt="none", capsize=4, color=_STREAMING)
    whole, least, most = (None, None, None) if full is None else full.cer
    if whole is not None and least is not None and most is not None:
        axes.axhspan(100 * least, 100 * most, color=_FULL, alpha=0.15, lw=0)
        label = "full branch (end of sentence), 95 %"
        axes.axhline(100 * whole, color=_FULL, label=label)
    axes.set_ylabel("CER (%)")


def _delays(axes: Axes, streaming: Sequence[Point], full: Point | None) -> None:
    for rank, style, dashes in (("p50", "o-", "-"), ("p90", "s--", "--")):
        known = [
            (point.worst_ms, point.latency["emission_ms"][rank])
            for point in streaming
            if point.latency["emission_ms"][rank] is not None
        ]
        if known:
            axes.plot(*zip(*known), style, color=_STREAMING, label=f"streaming branch, {rank}")
        end = None if full is None else full.latency["emission_ms"][rank]
        if end is not None:
            axes.axhline(end, color=_FULL, ls=dashes, label=f"full branch, {rank}")
    axes.set_ylabel("emission delay of a word (ms)")
