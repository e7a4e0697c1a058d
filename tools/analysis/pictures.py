"""Pictures of the programs in tools/, written as whole files."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from dualasr_lib.core.files import write_atomically

__all__ = ["write_picture"]


def write_picture(figure: Figure, path: Path, dpi: int) -> None:
    """Writes a figure; its format is that of the file's ending, or PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=dpi, format=path.suffix.removeprefix(".") or "png")
    write_atomically(path, picture.getvalue())
