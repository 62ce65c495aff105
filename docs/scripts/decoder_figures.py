"""The figures of decoder_passes.py: told apart by line and marker, not by colour alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from decoder_measures import NEWEST, TWO_WORDS, WRONG_BEFORE, GradientRow, Interval, Scores
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's, as in s2s_jax/lab/comparison/plots.py.
_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": "#000000", "linestyle": "-", "marker": "o"},
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    {"color": "#0072B2", "linestyle": "-.", "marker": "^"},
)
_FEW = 30  # a mean over fewer steps is not drawn


def gradient_figure(compared: dict[str, dict[str, GradientRow]]) -> Figure:
    """Cosine and relative length of a step's gradient, by the wrong tokens that were fed."""
    figure, panels = _new_figure(2, (9.0, 4.2))
    apart = len(WRONG_BEFORE) + np.arange(len(NEWEST)) + 0.2  # another grouping of the same steps
    for place, (moment, rows) in enumerate(compared.items()):
        look, shift = _LOOKS[place], (place - 1) * 0.09
        for panel, part in zip(panels, GradientRow._fields, strict=True):
            counted = [getattr(rows[name], part) for name in WRONG_BEFORE]
            _draw(panel, np.arange(len(counted)), counted, look, moment, shift)
            newest = [getattr(rows[name], part) for name in NEWEST]
            _draw(panel, apart, newest, look | {"linestyle": "none"}, "", shift)
        chance = rows[TWO_WORDS].cosine.value
        panels[0].axhline(chance, color=look["color"], linestyle=look["linestyle"], linewidth=0.8)
    panels[0].annotate("two different words", (0, 0.06), fontsize=8.5, va="bottom")
    panels[0].set_ylabel("cosine with the gold-fed gradient")
    panels[0].set_ylim(-0.1, 1.06)
    panels[1].set_ylabel("length, own-fed / gold-fed")
    panels[1].set_yscale("log", base=2)
    panels[1].yaxis.set_major_formatter(ScalarFormatter())
    for panel in panels:
        ticks = [*range(len(WRONG_BEFORE)), *apart]
        panel.set_xticks(ticks, ["0", "1", "2", "3+", "newest\nright", "newest\nwrong"])
        panel.axvline(len(WRONG_BEFORE) - 0.4, color="0.6", linewidth=0.8)
        panel.set_xlabel("wrong tokens fed so far   |   1 or more")
    _legend(figure, panels[0], "Moment of training; bars: 95 % bootstrap over words")
    return figure


def state_figure(distances: dict[str, dict[str, tuple[Interval, Interval]]]) -> Figure:
    """The distance between gold-fed and own-fed states by the steps since the first wrong feed."""
    figure, (panel,) = _new_figure(1, (7.6, 4.4))
    for place, (name, rows) in enumerate(distances.items()):
        several, once = zip(*rows.values(), strict=True)
        positions = np.arange(-1, len(rows) - 1)
        _draw(panel, positions, several, _LOOKS[place], f"{name}, all", (place - 1) * 0.08)
        look = _LOOKS[place] | {"linestyle": ":", "markerfacecolor": "white"}
        label = f"{name}, one wrong token so far"
        _draw(panel, positions, once, look, label, 0.12 + place * 0.08)
    panel.axhline(1, color="0.4", linewidth=0.8)
    panel.annotate("two different words", (5.2, 1.0), fontsize=8, ha="right", va="bottom")
    labels = list(next(iter(distances.values())))
    panel.set_xticks(range(-1, len(labels) - 1), labels)
    panel.set_xlabel("steps since the first wrong token was fed")
    panel.set_ylabel("distance of the hidden states,\nshare of that between two words")
    panel.set_ylim(-0.05, 1.12)
    _legend(figure, panel, "Bars: 95 % bootstrap over words", 2)
    return figure


def accuracy_figure(scores: dict[str, list[Scores]], num_positions: np.ndarray) -> Figure:
    """Accuracy by position with gold and with own prefixes, a panel a training method."""
    figure, panels = _new_figure(len(scores), (3.3 * len(scores), 3.8), share=True)
    there = num_positions >= _FEW
    positions = 1 + np.flatnonzero(there)
    for panel, (name, seeds) in zip(panels, scores.items(), strict=True):
        for look, label, curves in (
            (_LOOKS[0], "gold prefixes", [one.by_position[0] for one in seeds]),
            (_LOOKS[1], "own prefixes", [one.by_position[1] for one in seeds]),
        ):
            values = 100 * np.array(curves)[:, there]
            panel.plot(positions, values.mean(0), **look, markersize=4.5, label=label)
            panel.fill_between(
                positions, values.min(0), values.max(0), color=look["color"], alpha=0.15, lw=0
            )
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("position; the end symbol counts")
    panels[0].set_ylabel("token accuracy (%)")
    remark = f"Mean of {len(next(iter(scores.values())))} seeds; band: lowest to highest"
    _legend(figure, panels[0], remark)
    return figure


def _new_figure(
    num_columns: int, size: tuple[float, float], share: bool = False
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, num_columns, squeeze=False, sharey=share).flat)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="0.88", linewidth=0.8)
        panel.set_axisbelow(True)
    return figure, panels


def _draw(
    panel: Axes,
    positions: np.ndarray,
    values: Sequence[Interval],
    look: dict[str, Any],
    label: str,
    shift: float,
) -> None:
    """A line with error bars through the groups that have enough steps."""
    there = [
        (place, one) for place, one in zip(positions, values, strict=True) if one.num_steps >= _FEW
    ]
    if not there:
        return
    places, shown = zip(*there, strict=True)
    middle, low, high = (np.array([one[part] for one in shown]) for part in range(3))
    panel.errorbar(
        np.array(places) + shift, middle, yerr=np.maximum([middle - low, high - middle], 0),
        **look, markersize=5, capsize=3, linewidth=1.5, label=label or None,
    )  # fmt: skip


def _legend(figure: Figure, panel: Axes, remark: str, columns: int = 4) -> None:
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9,
        handlelength=3.5, title=remark, title_fontsize=8.5,
    )  # fmt: skip
