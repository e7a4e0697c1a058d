"""The power of a comparison as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from analysis.pictures import write_picture

__all__ = ["draw"]

_STYLES = ("-", "--", ":")


def draw(
    powers: Mapping[tuple[str, float], Sequence[Sequence[float]]],
    gains: Mapping[str, float],
    characters: Sequence[int],
    seeds: Sequence[int],
    path: Path,
) -> None:
    """Writes `path`: a panel per branch; power over seeds, a colour per test size, a style per
    share of the seeds' variance.

    Args:
        powers: branch and share -> power for characters (rows) and seeds (columns).
        gains: branch -> true gain.
    """
    parts = list(dict.fromkeys(part for _, part in powers))
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots(1, len(gains), squeeze=False, sharey=True)[0]
    for axis, (branch, gain) in zip(axes, gains.items()):
        for part, style in zip(parts, _STYLES):
            for row, colour in ((1, "tab:gray"), (3, "tab:blue")):
                values = [100 * power for power in powers[branch, part][row]]
                label = f"{characters[row]:,} characters, seeds' variance x {part:g}"
                axis.plot(seeds, values, style, color=colour, marker="o", ms=3, label=label)
        axis.axhline(80, color="black", lw=0.8)
        axis.set_title(f"{branch}: true gain {100 * gain:g} %", fontsize=10)
        axis.set_xlabel("training (seeds)")
        axis.set_ylim(0, 101)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("power (% of trials with p < 0.05)")
    axes[-1].legend(fontsize=7)
    figure.suptitle("How often a true gain would be found", fontsize=11)
    write_picture(figure, path, dpi=140)
