"""The figures of a comparison: schedules, learning curves and final metrics."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from s2s_jax.lab.base.figures import (
    EngFormatter,
    legend_columns,
    make_each,
    make_styles,
    new_figure,
)
from s2s_jax.lab.base.metric_catalog import ACCURACIES, Metric, ending_with
from s2s_jax.lab.base.seed_statistics import estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from s2s_jax.lab.base.decorations import Attempt
    from s2s_jax.lab.runs.collect import CollectedRuns, FinishedRun


def make_figures(
    runs: CollectedRuns, metrics: Sequence[str], attempt: Attempt = contextlib.nullcontext
) -> dict[str, Figure]:
    """Makes the figures of a comparison for which the runs have data.

    Args:
      runs: from `collect`.
      metrics: full names of the final metrics to show.
      attempt: see `figures.make_each`.

    Returns:
      "schedules", "learning" and "final" -> figure.
    """
    makers = {
        "schedules": lambda: schedule_figure(runs),
        "learning": lambda: learning_figure(runs),
        "final": lambda: final_figure(runs, metrics),
    }
    return make_each(makers, attempt)


def schedule_figure(runs: CollectedRuns) -> Figure | None:
    """teacher_prob over the training steps, and as dots the share of coins that chose gold."""
    rows = runs.by_schedule
    styles = make_styles(len(rows))
    figure, axes = new_figure(1, 1, (7.0, 4.2))
    empty = True
    for (schedule, members), style in zip(rows.items(), styles, strict=True):
        steps, probs = curve(members[:1], "train/teacher_prob")
        if not len(steps):
            continue
        empty = False
        axes[0].plot(
            steps, probs[0], color=style.color, linestyle=style.line, linewidth=2, label=schedule
        )
        for run in members:
            coin_steps, shares = curve([run], "train/gold_share")
            if len(coin_steps):
                every = slice(None, None, 1 + len(coin_steps) // 40)
                axes[0].plot(
                    coin_steps[every],
                    shares[0][every],
                    style.marker,
                    color=style.color,
                    markersize=4,
                    markerfacecolor="none",
                    alpha=0.6,
                )
    axes[0].set_ylabel("probability of feeding the gold token")
    axes[0].set_ylim(-0.03, 1.03)
    finish_steps(
        figure, axes, "Line: teacher_prob; open marks: realised share of gold, for each seed"
    )
    return None if empty else figure


def learning_figure(runs: CollectedRuns) -> Figure | None:
    """Token accuracy with gold and with own prefixes, and the headline metric, over the steps.

    The line is the mean over seeds; the band reaches from the lowest to the highest seed.
    """
    there = {name for run in runs.compared for record in run.records for name in record}
    dev = sorted(name for name in there if name.startswith("eval/"))
    accuracies = ending_with(dev, ACCURACIES)
    headline = runs.catalog.headline(dev)
    names = accuracies + ([headline] if headline else [])
    if not names:
        return None
    figure, axes = new_figure(1, len(names), (3.7 * len(names), 3.9))
    for name, panel in zip(names, axes, strict=True):
        metric = runs.catalog.describe(name)
        draw_curves(panel, runs, name)
        panel.set_ylabel(metric.axis_label)
        panel.set_title(f"{metric.prefixes} prefixes", fontsize=10)
        _scale_to_late(panel, runs.compared, accuracies if name in accuracies else [name], metric)
    finish_steps(
        figure,
        axes,
        "Mean over seeds; band: lowest to highest seed. y axis fits the last two thirds",
    )
    return figure


def final_figure(runs: CollectedRuns, metrics: Sequence[str]) -> Figure | None:
    """Final metrics: one dot per seed, the mean and its 95 % t-interval.

    At most four metrics are shown: the accuracies with both kinds of prefixes and the headline
    metrics, or the first of all if there are none of these.
    """
    chosen = [name for name in metrics if any(name in run.metrics for run in runs.compared)]
    names = (ending_with(chosen, (*ACCURACIES, *runs.catalog.headlines)) or chosen)[:4]
    if not names:
        return None
    rows = runs.by_schedule
    styles = make_styles(len(rows))
    size = (2.0 + 2.4 * len(names), 1.5 + 0.45 * len(rows))
    figure, axes = new_figure(1, len(names), size, share_rows=True)
    for name, panel in zip(names, axes, strict=True):
        metric = runs.catalog.describe(name)
        for place, (members, style) in enumerate(zip(rows.values(), styles, strict=True)):
            values = [metric.scale * run.metrics.get(name, math.nan) for run in members]
            found = estimate(values)
            spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
            panel.plot(
                values,
                place + 0.2 + spread * 0.6,
                style.marker,
                color=style.color,
                markersize=4.5,
                markerfacecolor="none",
            )
            panel.errorbar(
                found.mean,
                place - 0.12,
                xerr=None if math.isnan(found.half_width) else found.half_width,
                fmt=style.marker,
                color=style.color,
                markersize=6,
                capsize=4,
                linewidth=1.6,
            )
        panel.set_xlabel(metric.axis_label)
        title = f"{metric.prefixes} prefixes" if metric.prefixes else ""
        panel.set_title(title, fontsize=10)
        panel.margins(x=0.12)
    labels = [f"{schedule} (n={len(members)})" for schedule, members in rows.items()]
    axes[0].set_yticks(range(len(rows)), labels)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.supxlabel(
        "Open marks: seeds; filled: their mean with its 95 % t-interval", fontsize=8.5, x=0.5
    )
    return figure


def draw_curves(panel: Axes, runs: CollectedRuns, name: str) -> None:
    """Draws a metric over the steps: the mean of each schedule and the range of its seeds.

    Args:
      panel: where to draw.
      runs: from `collect`.
      name: the metric's name in the records.
    """
    rows, scale = runs.by_schedule, runs.catalog.describe(name).scale
    for (schedule, members), style in zip(rows.items(), make_styles(len(rows)), strict=True):
        steps, values = curve(members, name)
        if not len(steps):
            continue
        values = values * scale
        panel.plot(
            steps,
            np.nanmean(values, axis=0),
            color=style.color,
            linestyle=style.line,
            marker=style.marker,
            markevery=max(1, len(steps) // 6),
            markersize=4.5,
            label=f"{schedule} (n={len(members)})",
        )
        if len(members) > 1:
            low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
            panel.fill_between(steps, low, high, color=style.color, alpha=0.15, linewidth=0)


def finish_steps(figure: Figure, axes: list[Axes], remark: str) -> None:
    """Labels the step axes; adds one legend below all panels, and a remark."""
    for panel in axes:
        panel.set_xlabel("training step")
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.set_xlim(left=0)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        columns = legend_columns(labels, figure.get_size_inches()[0])
        figure.legend(
            handles, labels, loc="outside lower center", ncols=columns, frameon=False,
            fontsize=9, handlelength=3.5, title=remark, title_fontsize=8.5,
        )  # fmt: skip


def _scale_to_late(
    panel: Axes, runs: list[FinishedRun], names: Sequence[str], metric: Metric
) -> None:
    """Scales a panel to the last two thirds of the training, where the schedules diverge.

    Gold and own prefixes get the same scale, so that they can be compared.
    """
    low, high = math.inf, -math.inf
    for name in names:
        steps, values = curve(runs, name)
        if len(steps):
            late = values[:, steps >= steps[-1] / 3] * metric.scale
            low, high = min(low, np.nanmin(late)), max(high, np.nanmax(late))
    margin = 0.06 * (high - low) or 1.0
    panel.set_ylim(low - margin, high + margin)


def curve(runs: list[FinishedRun], name: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps at which any run has the metric, and its [runs, steps] values, NaN if missing."""
    curves: list[dict[int, float]] = []
    for run in runs:
        points: dict[int, float] = defaultdict(lambda: math.nan)
        for record in run.records:
            value = record.get(name)
            if isinstance(value, int | float) and "step" in record:
                points[int(record["step"])] = float(value)
        curves.append(points)
    steps = sorted(set().union(*curves))
    values = [[curve.get(step, math.nan) for step in steps] for curve in curves]
    return np.array(steps, int), np.array(values, float).reshape(len(runs), len(steps))
