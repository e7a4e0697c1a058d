"""What a reader would miss in a picture: names of axes and their units, names of colour bars, a
title, whole words, letters that can be read.
"""

import re
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

__all__ = ["figure_faults"]

_WIDTH = 1200  # pixels on a page
_SMALLEST = 12.0  # pixels of a letter's body there
_UNIT = re.compile(r"\(.+\)")


def figure_faults(figure: Figure) -> list[str]:
    """All faults of a finished figure."""
    FigureCanvasAgg(figure).draw()
    bars = [image.colorbar.ax for axes in figure.axes for image in axes.images if image.colorbar]
    found: list[str] = []
    for axes in figure.axes:
        name = axes.get_title(loc="left") or axes.get_title() or f"panel {figure.axes.index(axes)}"
        faults = _bar_faults(axes) if axes in bars else _axes_faults(figure, axes)
        found += [f"{name!r}: {fault}" for fault in faults]
    return [*found, *_text_faults(figure)]


def _bar_faults(axes: Axes) -> Iterator[str]:
    if not _UNIT.search(axes.get_ylabel() + axes.get_xlabel()):
        yield f"its colour bar is called {axes.get_ylabel() or axes.get_xlabel()!r}, without a unit"


def _axes_faults(figure: Figure, axes: Axes) -> Iterator[str]:
    named = figure.get_suptitle(), axes.get_title(), axes.get_title(loc="left")
    if not any(named):
        yield "it has no title"
    for letter, axis, shared in (
        ("x", axes.xaxis, axes.get_shared_x_axes()),
        ("y", axes.yaxis, axes.get_shared_y_axes()),
    ):
        labels = [getattr(other, f"get_{letter}label")() for other in shared.get_siblings(axes)]
        words = any(re.search("[a-z]{3}", tick.get_text()) for tick in axis.get_ticklabels())
        if not any(labels):
            yield f"its {letter} axis has no name"
        elif not words and not any(_UNIT.search(label) for label in labels):
            yield f"its {letter} axis {labels} has no unit"
    for image in axes.images:
        if image.colorbar is None:
            yield "it has an image without a colour bar"
    for line in axes.get_lines():
        if line.get_transform() == axes.transData:
            box, half = axes.bbox, line.get_markersize() / 2 if line.get_marker() != "None" else 0.0
            points = axes.transData.transform(line.get_xydata())
            inside = points[:, 1].max() + half <= box.y1 + 1 and points[:, 1].min() >= box.y0 - 1
            if not inside:
                yield f"line {line.get_label()!r} is cut off"


def _text_faults(figure: Figure) -> Iterator[str]:
    """Of words: cut off, too small, or written over others."""
    if figure.bbox.padded(1.0).count_contains(_corners(_whole(figure))) != 4:
        yield "something is outside of the figure"
    shown: list[tuple[Text, Bbox]] = []
    for text in figure.findobj(Text):
        if not (isinstance(text, Text) and text.get_text().strip() and text.get_visible()):
            continue
        box = text.get_window_extent()
        if not box.overlaps(figure.bbox) or _is_hidden_tick(text, figure):
            continue
        words = text.get_text()
        pixels = text.get_fontsize() / 72 * _WIDTH / figure.get_figwidth()
        if pixels < _SMALLEST:
            yield f"{words!r} is {pixels:.1f} pixels high on a page of {_WIDTH}"
        for other, place in shown:
            if _overlap(box, place) > 4.0:
                yield f"{words!r} is written over {other.get_text()!r}"
        shown.append((text, box))


def _whole(figure: Figure) -> Bbox:
    box = figure.get_tightbbox(figure.canvas.get_renderer())
    return Bbox(box.get_points() * figure.dpi)


def _corners(box: Bbox) -> list[tuple[float, float]]:
    return [(x, y) for x in (box.x0, box.x1) for y in (box.y0, box.y1)]


def _overlap(one: Bbox, other: Bbox) -> float:
    """Square pixels."""
    common = Bbox.intersection(one, other)
    return 0.0 if common is None else common.width * common.height


def _is_hidden_tick(text: Text, figure: Figure) -> bool:
    """Whether it is the number of a tick outside of the view, which is not drawn."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            for tick in ticks:
                if text in (tick.label1, tick.label2):
                    low, high = sorted(axis.get_view_interval())
                    return not low <= tick.get_loc() <= high
    return False
