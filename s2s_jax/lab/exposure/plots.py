"""The figure of exposure bias: gold against own prefixes, by position and after an error."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from s2s_jax.lab.base.figures import (
    Line2D,
    MaxNLocator,
    Style,
    lay_out,
    legend_columns,
    make_styles,
    new_figure,
)
from s2s_jax.lab.base.metric_catalog import CATALOG

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from s2s_jax.exposure import Measure
    from s2s_jax.lab.exposure.settings import RunExposure

_PANELS = (
    ("token accuracy", ("gold/accuracy_by_position", "own/accuracy_by_position")),
    ("error rate", ("own/hazard_by_position", "own/post_error_rate_by_distance")),
    (
        "NLL increase",
        (
            "recovery/uniform/nll_increase_by_distance",
            "recovery/plausible/nll_increase_by_distance",
        ),
    ),
    ("excess accumulated error", ("edit_oracle/excess_percent_by_length",)),
    ("MMD\N{SUPERSCRIPT TWO} of decoder states", ("states/mmd_by_position",)),
    ("excess accumulated error", ("truth/excess_percent_by_length",)),
    (
        "EB-C: own / gold distance",
        (
            "truth/eb_c_total_variation_by_position",
            "truth/eb_c_jensen_shannon_by_position",
        ),
    ),
)
"""For each panel the label of the y axis without its unit, and one or two curves."""

_CURVE_LABELS = {
    "gold/accuracy_by_position": "gold prefixes",
    "own/accuracy_by_position": "own prefixes",
    "own/hazard_by_position": "first error, by position",
    "own/post_error_rate_by_distance": "after it, by distance",
    "recovery/uniform/nll_increase_by_distance": "uniform token",
    "recovery/plausible/nll_increase_by_distance": "plausible token",
    "truth/eb_c_total_variation_by_position": "total variation",
    "truth/eb_c_jensen_shannon_by_position": "Jensen-Shannon",
}

_TITLES = {
    "gold/accuracy_by_position": "Gold against own prefixes",
    "own/hazard_by_position": "Errors lead to errors",
    "recovery/uniform/nll_increase_by_distance": "Recovery from a wrong token",
    "edit_oracle/excess_percent_by_length": "Against the edit oracle",
    "states/mmd_by_position": "States after gold and own prefixes",
    "truth/excess_percent_by_length": "Against the truth",
    "truth/eb_c_total_variation_by_position": "Against the truth, by position",
}

_X_LABELS = {
    "position": "target position",
    "distance": "tokens after the error",
    "length": "length l of the prefix",
}


def exposure_figure(runs: Sequence[RunExposure]) -> Figure | None:
    """Draws the curves of runs; the seeds of a schedule are shown as their mean and range.

    Args:
      runs: from `measure_runs`, in its order.

    Returns:
      The figure; None if no measure is drawn.
    """
    labels = {label: list(members) for label, members in groupby(runs, lambda run: run.label)}
    panels = [
        (title, [name for name in names if any(name in run.measures for run in runs)])
        for title, names in _PANELS
    ]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(rows, columns, (3.9 * columns, 3.1 * rows + 0.5))
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    styles = make_styles(len(labels))
    for panel, (title, names) in zip(axes, panels, strict=False):
        metric = CATALOG.describe(names[0])
        for members, style in zip(labels.values(), styles, strict=True):
            for number, name in enumerate(names):
                there = [run.measures[name] for run in members if name in run.measures]
                if there:
                    _draw(panel, there, metric.scale, style, second=number > 0)
        found = {run.measures[name].axis for run in runs for name in names if name in run.measures}
        panel.set_xlabel(" / ".join(_X_LABELS[axis] for axis in _X_LABELS if axis in found))
        panel.set_ylabel(f"{title} ({metric.unit})" if metric.unit else title)
        panel.set_title(_TITLES.get(names[0], ""), fontsize=10)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        if names[0].startswith("recovery/"):
            panel.set_yscale("symlog", linthresh=0.1)  # it falls by orders of magnitude and below 0
        else:
            panel.ticklabel_format(axis="y", scilimits=(-2, 4), useMathText=True)
        if len(names) > 1:
            style = styles[0] if len(labels) == 1 else Style("0.3", "-", "o")
            curves = [_line(style, second=number > 0) for number in range(len(names))]
            panel.legend(
                curves,
                [_CURVE_LABELS.get(name, "") for name in names],
                frameon=False,
                fontsize=7.5,
                handlelength=2.6,
            )
    if len(labels) > 1:  # one legend for all panels, since in each it would hide the curves
        wrapped = [fill(label, 40) for label in labels]
        columns = legend_columns(wrapped, figure.get_figwidth(), most=6)
        lines = -(-len(labels) // columns) * max(label.count("\n") + 1 for label in wrapped)
        figure.set_figheight(
            figure.get_figheight() + 0.16 * (lines - 1)
        )  # without shrinking the panels
        figure.legend(
            [_line(style, second=False) for style in styles],
            wrapped,
            loc="outside upper center",
            ncols=columns,
            frameon=False,
            fontsize=8.5,
            handlelength=3.2,
        )
    seeds = max(map(len, labels.values()))
    band = "range over seeds" if seeds > 1 else "95 % bootstrap interval over sequences"
    figure.supxlabel(f"Band: {band}. {_of(runs)}", fontsize=8.5)
    lay_out(figure)  # otherwise the first layout leaves too little room for some labels
    return figure


def _draw(panel: Axes, there: Sequence[Measure], scale: float, style: Style, second: bool) -> None:
    """Draws one curve: for one run with its intervals, for several their mean and range."""
    places = np.unique(np.concatenate([np.asarray(one.at) for one in there]))
    rows = np.full((len(there), len(places)), np.nan)
    for row, one in zip(rows, there, strict=True):
        row[np.searchsorted(places, np.asarray(one.at))] = one.value
    rows = np.where(np.isfinite(rows), rows, np.nan)
    known = np.isfinite(rows).all(axis=0)
    if not known.any():
        return
    places, rows = places[known], scale * rows[:, known]
    line = _line(style, second)
    line.set_data(places, rows.mean(axis=0))
    panel.add_line(line)
    if len(there) > 1:
        low, high = rows.min(axis=0), rows.max(axis=0)
    else:
        low, high = (scale * np.asarray(part)[known] for part in (there[0].low, there[0].high))
    panel.fill_between(places, low, high, color=style.color, alpha=0.15, linewidth=0)
    panel.autoscale_view()


def _line(style: Style, second: bool) -> Line2D:
    """A line; a panel's second curve is hollow and dashed, to be distinguishable without colour."""
    dashes: Any = "--" if second and style.line == "-" else style.line
    return Line2D(
        [],
        [],
        color=style.color,
        linestyle=dashes,
        marker=style.marker,
        markersize=4.5,
        markerfacecolor="white" if second else style.color,
        alpha=0.75 if second else 1.0,
    )


def _of(runs: Sequence[RunExposure]) -> str:
    counts = sorted({run.num_sequences for run in runs})
    return (
        f"{' to '.join(f'{count:,}' for count in (counts[0], counts[-1])[: len(counts)])} sequences"
    )
