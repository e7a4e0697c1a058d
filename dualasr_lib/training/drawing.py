"""Pictures of the log: matrices with axes, a colour bar and words, by matplotlib where it is."""

import logging
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from dualasr_lib.core.picture import Picture

__all__ = ["drawn"]

_LOG = logging.getLogger(__name__)


def drawn(picture: Picture) -> Tensor:
    """(H, W, 3) uint8: the picture with everything around it; without matplotlib the bare matrix in
    grey, a pixel per number, and one line in the log about that.
    """
    if not _can_draw():
        return (255.0 * picture.grey.cpu()).round().byte()[:, :, None].expand(-1, -1, 3)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(_figure(picture))
    canvas.draw()
    return torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8).reshape(
        *canvas.get_width_height()[::-1], 4
    )[:, :, :3]


def _figure(picture: Picture) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.0, 4.8), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    values = picture.values.detach().float().cpu().numpy()
    symmetric = picture.low == -picture.high
    shown = axes.imshow(
        values, vmin=picture.low, vmax=picture.high, aspect="auto", interpolation="nearest",
        cmap="RdBu" if symmetric else "viridis",
    )  # fmt: skip
    axes.set(title=picture.title, xlabel=picture.x, ylabel=picture.y)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(shown, ax=axes, label=picture.colours)
    return figure


@cache
def _can_draw() -> bool:
    there = find_spec("matplotlib") is not None
    if not there:
        _LOG.info("matplotlib is not installed: images in TensorBoard have no axes")
    return there
