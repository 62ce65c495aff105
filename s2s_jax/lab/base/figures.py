"""What every figure of the lab has in common: canvas, styles, PNG and SVG files.

All of the lab gets matplotlib from here.
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

    A notebook hands the name of its own to every command that it starts, and where that is not
    installed matplotlib cannot be imported. Figures here have canvases of their own.
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
"""Where letters that DejaVu Sans lacks are looked for, in this order, in Linux, macOS, Windows."""


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


def make_each(
    makers: Mapping[str, Callable[[], Figure | None]],
    attempt: Attempt = contextlib.nullcontext,
) -> dict[str, Figure]:
    """Figures by name, without those of which there is nothing to show.

    Args:
      makers: name -> what makes the figure, or gives None.
      attempt: what each, named, is made in; of `Decorations`, say.
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
    """A figure as the text of an SVG file, the same for the same figure; letters are drawn."""
    file = io.StringIO()
    with _literally(figure), rc_context({"svg.hashsalt": "s2s_jax", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def lay_out(figure: Figure) -> None:
    """Finds the places of a figure's parts, for a second time to start from."""
    with _literally(figure):
        figure.draw_without_rendering()


@contextlib.contextmanager
def _literally(figure: Figure) -> Iterator[None]:
    """Has a figure drawn with every text as it stands: no formula, in letters of any script.

    Where no font has a letter, a box is drawn for it, and nothing is said.
    """
    labelled = FixedFormatter, FuncFormatter  # what `set_xticks` makes of labels
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
    """The fonts of this system for what DejaVu Sans, matplotlib's own, does not have."""
    there = {font.name for font in font_manager.fontManager.ttflist}
    return tuple(name for name in _FONTS if name in there)
