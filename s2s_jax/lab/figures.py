"""What every figure of the lab has in common: canvas, styles, PNG and SVG files."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = ("#000000", "#E69F00", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Style:
    """How one thing is told from others, in colour (Okabe and Ito's) and without."""

    color: str
    line: str | tuple[int, tuple[int, ...]]
    marker: str


def make_styles(count: int) -> list[Style]:
    """As many styles; they repeat only where colours, lines and markers have all been used."""
    cycle = zip(itertools.cycle(_COLORS), itertools.cycle(_LINES), itertools.cycle(_MARKERS))
    return [Style(*look) for look in itertools.islice(cycle, count)]


def new_figure(
    num_rows: int, num_columns: int, size: tuple[float, float], share_rows: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure on a canvas of its own: nothing of pyplot's global state.

    Args:
      num_rows: of panels.
      num_columns: of panels.
      size: width and height in inches.
      share_rows: whether the panels of a row have one vertical axis.

    Returns:
      The figure and its panels, row by row.
    """
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(num_rows, num_columns, squeeze=False, sharey=share_rows).flat)
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="0.88", linewidth=0.8)
        panel.set_axisbelow(True)
    return figure, axes


def legend_columns(labels: Sequence[str], width: float, most: int = 4) -> int:
    """How many columns of a legend fit; one that is too wide would be cut off.

    Args:
      labels: of its entries, in letters of 9 points at most.
      width: of the figure in inches.
      most: columns, wherever they fit.
    """
    lengths = [max(map(len, label.splitlines()), default=0) for label in labels]
    for count in range(min(len(labels), most), 1, -1):
        columns = np.array_split(lengths, count)  # as matplotlib does
        # A letter of 9 points is about 5.5 wide; line, gaps and margin take 57 points a column.
        if sum(57 + 5.5 * one.max() for one in columns) <= 72 * width:
            return count
    return 1


def to_png(figure: Figure, dots_per_inch: int = 150) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dots_per_inch)
    return file.getvalue()


def to_svg(figure: Figure) -> str:
    """A figure as the text of an SVG file, the same for the same figure; letters are drawn."""
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.hashsalt": "s2s_jax", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
