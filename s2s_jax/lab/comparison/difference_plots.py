"""Figures of how schedules differ: effects, gold against own prefixes, accuracy by position."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.figures import (
    MaxNLocator,
    legend_columns,
    make_each,
    make_styles,
    new_figure,
)
from s2s_jax.lab.base.files import read_json
from s2s_jax.lab.base.metric_catalog import ACCURACIES, CATALOG, GAP, ending_with
from s2s_jax.lab.comparison.item_scores import read_predictions, right_by_position
from s2s_jax.lab.comparison.plots import draw_curves, finish_steps
from s2s_jax.lab.exposure.settings import EXPOSURE, EXPOSURE_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from s2s_jax.lab.base.decorations import Attempt
    from s2s_jax.lab.comparison.differences import ScheduleDifference
    from s2s_jax.lab.runs.collect import CollectedRuns, FinishedRun

_OWN = ACCURACIES[1]

_MIN_COUNT = 30
"""The minimum number of targets for a position to be drawn."""

_Positions = dict[str, dict[int, float]]
"""For "gold" and "own" prefixes, as far as they are known: position -> accuracy."""


def make_difference_figures(
    runs: CollectedRuns,
    rows: Sequence[ScheduleDifference],
    attempt: Attempt = contextlib.nullcontext,
) -> dict[str, Figure]:
    """Makes the figures for which the runs have data.

    Args:
      runs: from `collect`.
      rows: from `find_differences`.
      attempt: see `figures.make_each`.

    Returns:
      "differences", "gold_own" and "positions" -> figure.
    """
    makers = {
        "differences": lambda: differences_figure(runs, rows),
        "gold_own": lambda: gold_own_figure(runs),
        "positions": lambda: positions_figure(runs),
    }
    return make_each(makers, attempt)


def differences_figure(runs: CollectedRuns, rows: Sequence[ScheduleDifference]) -> Figure | None:
    """Each schedule's difference from its baseline with its interval; filled if significant."""
    known = [row for row in rows if not math.isnan(row.difference.low)]
    metrics = list(dict.fromkeys(row.metric for row in known))
    wanted = ending_with(metrics, (*runs.catalog.score_names, _OWN))
    chosen = (wanted or metrics)[:3]
    if not chosen:
        return None
    labels = list(runs.by_schedule)
    styles = dict(zip(labels, make_styles(len(labels)), strict=True))
    shown = [label for label in labels if any(row.schedule == label for row in known)]
    size = (2.2 + 2.7 * len(chosen), 1.5 + 0.45 * len(shown))
    figure, axes = new_figure(1, len(chosen), size, share_rows=True)
    for name, panel in zip(chosen, axes, strict=True):
        metric = runs.catalog.describe(name)
        for row in known:
            if row.metric != name:
                continue
            style, found = styles[row.schedule], row.difference
            panel.errorbar(
                metric.scale * found.value,
                shown.index(row.schedule),
                xerr=metric.scale * (found.high - found.value),
                fmt=style.marker,
                color=style.color,
                markersize=7,
                markerfacecolor=style.color if row.differs else "white",
                capsize=4,
                linewidth=1.6,
            )
        panel.axvline(0, color="0.4", linewidth=1, linestyle=":")
        better = f", {metric.better} is better" if metric.better else ""
        unit = f" ({metric.difference_unit})" if metric.difference_unit else ""
        panel.set_xlabel(f"{metric.title}{unit}{better}")
        panel.margins(x=0.12)
    counts = {row.schedule: row.difference.num_seeds for row in known}
    axes[0].set_yticks(range(len(shown)), [f"{one} (n={counts[one]})" for one in shown])
    axes[0].set_ylim(len(shown) - 0.5, -0.5)
    against = " and ".join(dict.fromkeys(row.baseline for row in known))
    figure.supxlabel(
        f"Difference from {against}, 95 % interval; filled: Holm-corrected p at most 0.05",
        fontsize=8.5,
    )
    return figure


def gold_own_figure(runs: CollectedRuns) -> Figure | None:
    """The final accuracy with gold and with own prefixes, and the gap between them over the steps.

    Open marks are for gold prefixes, filled marks for own ones; there is one pair per seed.
    """
    tested = any(f"test/{_OWN}" in run.metrics for run in runs.compared)
    names = [f"{'test' if tested else 'eval'}/{name}" for name in ACCURACIES]
    if not any(names[1] in run.metrics and names[0] in run.metrics for run in runs.compared):
        return None
    rows = runs.by_schedule
    styles, accuracy = make_styles(len(rows)), CATALOG.describe(_OWN)
    figure, axes = new_figure(1, 2, (9.0, 1.9 + 0.45 * len(rows)))
    for place, (members, style) in enumerate(zip(rows.values(), styles, strict=True)):
        spread = np.linspace(-0.22, 0.22, len(members)) if len(members) > 1 else [0.0]
        for shift, run in zip(spread, members, strict=True):
            gold, own = (accuracy.scale * run.metrics.get(name, math.nan) for name in names)
            axes[0].plot([gold, own], [place + shift] * 2, color=style.color, linewidth=1.2)
            look = {"color": style.color, "markersize": 6}
            axes[0].plot(gold, place + shift, style.marker, markerfacecolor="white", **look)
            axes[0].plot(own, place + shift, style.marker, **look)
    axes[0].set_yticks(range(len(rows)), [f"{one} (n={len(rows[one])})" for one in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    axes[0].set_xlabel(f"{accuracy.axis_label}; open: gold prefixes, filled: own")
    draw_curves(axes[1], runs, f"eval/{GAP}")
    axes[1].set_ylabel(CATALOG.describe(GAP).axis_label)
    finish_steps(figure, axes[1:], "Gap: gold minus own, mean over seeds; band: lowest to highest")
    return figure


def positions_figure(runs: CollectedRuns) -> Figure | None:
    """Accuracy by target position, of one split for all runs.

    The accuracies come from `exposure.json` if every run has one for the same split, checkpoint and
    number of examples; otherwise they are those of the model's own tokens in the test predictions.
    """
    rows = runs.by_schedule
    by_run, what = _measured_positions(runs.compared) or _predicted_positions(runs.compared)
    curves = {label: [by_run[run.folder] for run in members] for label, members in rows.items()}
    kinds = [
        kind
        for kind in ("gold", "own")
        if any(kind in one for found in curves.values() for one in found)
    ]
    if not kinds:
        return None
    accuracy = CATALOG.describe(_OWN)
    figure, axes = new_figure(1, len(kinds), (1.2 + 4.0 * len(kinds), 3.9), share_rows=True)
    styles = make_styles(len(rows))
    for kind, panel in zip(kinds, axes, strict=True):
        for (label, found), style in zip(curves.items(), styles, strict=True):
            there = [one[kind] for one in found if kind in one]
            places = sorted(set.intersection(*(set(one) for one in there))) if there else []
            if not places:
                continue
            values = accuracy.scale * np.array([[one[place] for place in places] for one in there])
            panel.plot(
                places,
                values.mean(0),
                color=style.color,
                linestyle=style.line,
                marker=style.marker,
                markersize=4.5,
                label=f"{label} (n={len(there)})",
            )
            if len(there) > 1:
                panel.fill_between(
                    places, values.min(0), values.max(0),
                    color=style.color, alpha=0.15, linewidth=0,
                )  # fmt: skip
        panel.set_title(f"{kind} prefixes", fontsize=10)
        panel.set_xlabel("target position")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel(accuracy.axis_label)
    handles, labels = axes[-1].get_legend_handles_labels()
    remark = f"{what}\nMean over seeds; band: lowest to highest"
    columns = legend_columns(labels, figure.get_figwidth())
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False,
        fontsize=9, handlelength=3.5, title=remark, title_fontsize=8.5,
    )  # fmt: skip
    return figure


def _measured_positions(runs: Sequence[FinishedRun]) -> tuple[dict[Path, _Positions], str] | None:
    """What `s2s exposure` wrote to the runs' folders, and a remark that describes it.

    None unless all runs were measured in the same way: the mean of a run on dev and another on test
    would not describe either split.
    """
    found: dict[Path, _Positions] = {}
    settings, min_counts = set(), set()
    for run in runs:
        try:
            record = read_json(run.folder / EXPOSURE_FILE, EXPOSURE)
            how, measures = record["settings"], record["measures"]
            settings.add((str(how["split"]), str(how["checkpoint"]), int(how["max_examples"])))
            min_counts.add(int(how["min_count"]))
            found[run.folder] = {}
            for kind in ("gold", "own"):
                curve = measures[f"{kind}/accuracy_by_position"]
                pairs = zip(curve["at"], curve["value"], strict=True)
                known = {int(at): float(value) for at, value in pairs if value is not None}
                found[run.folder][kind] = known
        except (LabError, KeyError, TypeError, ValueError):
            return None
    if len(settings) != 1:
        return None
    ((split, checkpoint, max_examples),) = settings
    what = f"Split: {split}" + ("" if checkpoint == "best" else f", {checkpoint} checkpoint")
    what += f", {max_examples:,} sequences" if max_examples else ""
    return found, f"{what}; positions with at least {min(min_counts)} targets"


def _predicted_positions(runs: Sequence[FinishedRun]) -> tuple[dict[Path, _Positions], str]:
    """Accuracies from the hypotheses of the test split, and a remark that describes them."""
    found: dict[Path, _Positions] = {run.folder: {} for run in runs}
    for run in runs:
        try:
            predictions = read_predictions(run.folder / "predictions_test.jsonl")
        except LabError:
            continue
        own = run.metrics.get(f"test/{_OWN}", math.nan)
        known = right_by_position(predictions, own)
        if known is not None:
            right, count = known
            enough = np.flatnonzero(count >= _MIN_COUNT)
            places = {int(place) + 1: float(right[place] / count[place]) for place in enough}
            found[run.folder]["own"] = places
    return found, f"Split: test; positions with at least {_MIN_COUNT} targets"
