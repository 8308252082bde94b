"""Figures of matplotlib, written whole or as a data URL."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BitencError
from ..files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Figure and axis of this size in inches, outside pyplot's state of the process.

    Raises
    ------
    BitencError
        If matplotlib isn't installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BitencError(
            "picture", "matplotlib isn't installed", "pip install 'tvm-bitenc[report]'"
        ) from None
    figure = Figure((width, height), layout="constrained")
    return figure, figure.subplots()


def write_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure in the format of the file's ending, whole or not at all.

    Raises
    ------
    BitencError
        If there is no such format.
    """
    path, formats = Path(path), figure.canvas.get_supported_filetypes()
    if path.suffix[1:] not in formats:
        raise BitencError(
            str(path), "its ending names no picture", f"Use one of {', '.join(sorted(formats))}"
        )
    with written_whole(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])
    return path


def data_url(figure: Figure) -> str:
    """Return a figure as an SVG inside a URL, for `html.write_page`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
