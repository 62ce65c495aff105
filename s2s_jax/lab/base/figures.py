"""What all figures of the lab share: canvas, styles, PNG and SVG files.

The whole lab imports matplotlib from here.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np


@contextlib.contextmanager
def _any_backend() -> Iterator[None]:
    """An environment without MPLBACKEND.

    A notebook passes the name of its own backend to every command that it starts; if that backend
    is not installed, matplotlib cannot be imported. The figures here have their own canvases.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


with _any_backend():
    from matplotlib import font_manager, rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Figure
    from matplotlib.lines import Line2D as Line2D
    from matplotlib.text import Text
    from matplotlib.ticker import EngFormatter as EngFormatter
    from matplotlib.ticker import FixedFormatter, FuncFormatter
    from matplotlib.ticker import MaxNLocator as MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from s2s_jax.lab.base.decorations import Attempt

_COLORS = ("#000000", "#E69F00", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans CJK TC",
    "Source Han Sans SC", "Source Han Sans JP", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "Droid Sans Fallback", "IPAexGothic", "IPAGothic", "TakaoGothic", "VL Gothic", "NanumGothic",
    "PingFang SC", "Hiragino Sans", "Hiragino Sans GB", "Heiti TC", "Apple SD Gothic Neo",
    "Microsoft YaHei", "Yu Gothic", "MS Gothic", "Malgun Gothic",
    "Noto Sans Thai", "Noto Sans Devanagari", "Noto Sans Arabic", "Noto Sans Hebrew",
    "Arial Unicode MS", "Unifont",
)  # fmt: skip
"""Fonts to try, in this order, for letters that DejaVu Sans lacks on Linux, macOS and Windows."""


@dataclass(frozen=True)
class Style:
    """How one series is distinguished from others, with colour (Okabe and Ito's) and without."""

    color: str
    line: str | tuple[int, tuple[int, ...]]
    marker: str


def make_styles(count: int) -> list[Style]:
    """A number of styles; they repeat only after all colours, lines and markers have been used."""
    cycle = zip(itertools.cycle(_COLORS), itertools.cycle(_LINES), itertools.cycle(_MARKERS))
    return [Style(*look) for look in itertools.islice(cycle, count)]


def new_figure(
    num_rows: int, num_columns: int, size: tuple[float, float], share_rows: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure on its own canvas, without pyplot's global state.

    Args:
      num_rows: number of rows of panels.
      num_columns: number of columns of panels.
      size: width and height in inches.
      share_rows: whether the panels of a row share their y axis.

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
    """How many legend columns fit; a legend that is too wide would be cut off.

    Args:
      labels: of its entries, in a font of at most 9 points.
      width: of the figure in inches.
      most: the maximum number of columns.
    """
    lengths = [max(map(len, label.splitlines()), default=0) for label in labels]
    for count in range(min(len(labels), most), 1, -1):
        columns = np.array_split(lengths, count)  # as matplotlib does
        # At 9 points a letter is about 5.5 points wide; line, gaps and margin take 57 per column.
        if sum(57 + 5.5 * one.max() for one in columns) <= 72 * width:
            return count
    return 1


def make_each(
    makers: Mapping[str, Callable[[], Figure | None]],
    attempt: Attempt = contextlib.nullcontext,
) -> dict[str, Figure]:
    """Figures by name, without those that have nothing to show.

    Args:
      makers: name -> function that makes the figure or returns None.
      attempt: the context in which each figure is made, such as `Decorations.attempt`.
    """
    figures: dict[str, Figure] = {}
    for name, make in makers.items():
        with attempt(f"figure {name}"):
            figure = make()
            if figure is not None:
                figures[name] = figure
    return figures


def to_png(figure: Figure, dots_per_inch: int = 150) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    with _literally(figure):
        figure.savefig(file, format="png", dpi=dots_per_inch)
    return file.getvalue()


def to_svg(figure: Figure) -> str:
    """A figure as the text of an SVG file, reproducible, with letters drawn as paths."""
    file = io.StringIO()
    with _literally(figure), rc_context({"svg.hashsalt": "s2s_jax", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def lay_out(figure: Figure) -> None:
    """Computes the layout of a figure once, as a starting point for the final layout."""
    with _literally(figure):
        figure.draw_without_rendering()


@contextlib.contextmanager
def _literally(figure: Figure) -> Iterator[None]:
    """Draws a figure with all texts taken literally, without formulas, and in any script.

    If no font has a letter, a box is drawn for it, without a warning.
    """
    labelled = FixedFormatter, FuncFormatter  # the formatters that `set_xticks` uses for labels
    numbers = {
        id(text)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        if not isinstance(axis.get_major_formatter(), labelled)
        for text in (axis.offsetText, *axis.get_ticklabels(which="both"))
    }
    for text in figure.findobj(Text):
        if isinstance(text, Text) and id(text) not in numbers:
            text.set_parse_math(False)
            if not text.get_text().isascii():
                text.set_fontfamily(["DejaVu Sans", *_other_scripts()])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        yield


@functools.cache
def _other_scripts() -> tuple[str, ...]:
    """This system's fonts for letters that DejaVu Sans, matplotlib's default, lacks."""
    there = {font.name for font in font_manager.fontManager.ttflist}
    return tuple(name for name in _FONTS if name in there)
