"""What results.py concludes from a sweep and what not: by rules, from the statistics alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from results_sweeps import Sweep, listed

from s2s_jax.lab.base.metric_catalog import ACCURACIES, GAP, Catalog
from s2s_jax.lab.base.seed_statistics import Estimate, estimate
from s2s_jax.lab.comparison.budgets import budgets, unequal
from s2s_jax.lab.comparison.differences import ScheduleDifference, sentence

LEAST_SEEDS, SEEDS_FOR_A_CLAIM = 5, 10
"""See docs/comparing.md."""

_NEAR_AN_END = 1.0
"""If all runs are within so many percentage points of 0 or 100, a metric cannot separate them."""


def find_conclusions(
    sweep: Sweep, rows: Sequence[ScheduleDifference], headlines: Sequence[str]
) -> tuple[list[str], list[str]]:
    """What can be concluded about schedules compared with a baseline, and what cannot.

    Args:
      sweep: the sweep.
      rows: from `find_differences`, by every metric.
      headlines: for each test split the metric that the conclusions are about.
    """
    can, cannot = [], []
    chosen_before = sweep.runs.catalog.describe(headlines[0]).title
    for metric in headlines:
        split = metric.split("/")[0]
        of = f"On {split}: " if len(headlines) > 1 else ""
        chosen = [row for row in rows if row.metric == metric]
        can += [of + sentence(row) for row in chosen if row.differs]
        alike = [row for row in chosen if not row.differs]
        cannot += [of + sentence(row) for row in alike]
        if any(row.difference.low < row.difference.high for row in alike):
            cannot.append(
                f"{of}that schedules that are not distinguishable are equal: the intervals show how"
                " large a difference may still be, in either direction."
            )
        cannot += [of + one for one in _near_an_end(sweep, metric)]
    for metric in dict.fromkeys(f"{one.split('/')[0]}/{GAP}" for one in headlines):
        of = f"On {metric.split('/')[0]}: " if len(headlines) > 1 else ""
        more, less = _gaps(sweep, metric)
        can += [of + one for one in [*more, *_changed_gaps(rows, metric)]]
        cannot += [of + one for one in less]
    cannot.append(
        "all of this at once with 95 % certainty: p-values are corrected for the number of"
        " schedules, not for the number of metrics and splits. The metric chosen beforehand is"
        f" {chosen_before}; the other metrics, including the gap, are descriptive."
    )
    if headlines[0].startswith("eval/"):
        cannot.append(
            "how the schedules do on unseen data: these scores are of dev, and the checkpoint was"
            " chosen on dev."
        )
    ended, number = sweep.num_ended_best, len(sweep.runs.compared)
    if ended:
        cannot.append(
            f"what longer training would give: {ended} of {number} runs were at their best on dev"
            " when they ended."
        )
    return can, cannot + limits(sweep)


def limits(sweep: Sweep) -> list[str]:
    """What no such sweep can show, whatever its result: about seeds, budgets, sizes and lengths."""
    found = []
    count = sweep.fewest_seeds
    if count < LEAST_SEEDS:
        found.append(
            f"anything firm: {sweep.seeds_text} give only a first impression; a comparison needs at"
            f" least {LEAST_SEEDS}, a claim {SEEDS_FOR_A_CLAIM}."
        )
    elif count < SEEDS_FOR_A_CLAIM:
        found.append(
            f"a claim about differences as small as the noise between seeds: that takes"
            f" {SEEDS_FOR_A_CLAIM} seeds, and here there are {sweep.seeds_text}."
        )
    differing = [line.partition(":")[0].lower() for line in unequal(budgets(sweep.runs))]
    if differing:
        found.append(
            f"what equal budgets would give: {listed(differing)}, as shown below the table."
        )
    config, reduced = sweep.config, sweep.reduced
    full = " The experiment at its full size is one of these." if reduced else ""
    found.append(
        "anything about other data, other models, or other sizes and lengths than"
        f" {config['train']['num_steps']:,} updates of hidden size"
        f" {config['model']['hidden_size']}.{full}"
    )
    if sweep.runs.left_out:
        names = listed([name for name, _ in sweep.runs.left_out])
        found.append(f"what the runs that were left out would have changed: {names}.")
    return found


def to_markdown(can: Sequence[str], cannot: Sequence[str]) -> str:
    """Both as lists."""
    parts = ["**What can be concluded**", _bullets(can or ["Nothing: see below."])]
    return "\n\n".join([*parts, "**What cannot be concluded**", _bullets(cannot)]) + "\n"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _gaps(sweep: Sweep, metric: str) -> tuple[list[str], list[str]]:
    """For which schedules a gap between gold and own prefixes is shown, and for which not."""
    rows = sweep.runs.by_schedule.items()
    found = {
        label: estimate(run.metrics.get(metric, math.nan) for run in members)
        for label, members in rows
    }
    known = {label: one for label, one in found.items() if not math.isnan(one.half_width)}
    shown = {label: one for label, one in known.items() if one.mean - one.half_width > 0}
    rest = {label: one for label, one in known.items() if label not in shown}
    more, less = [], []
    if shown:
        more.append(
            "own prefixes cost accuracy. Gold minus own, with 95 % t-intervals that exclude 0:"
            f" {_listed(shown, metric, sweep.runs.catalog)}."
        )
    if rest:
        less.append(
            "that own prefixes cost accuracy for schedules whose interval of gold minus own is not"
            f" entirely above 0: {_listed(rest, metric, sweep.runs.catalog)}."
        )
    return more, less


def _listed(found: dict[str, Estimate], metric: str, catalog: Catalog) -> str:
    shown = catalog.describe(metric)
    return listed(
        [
            f"{label} {shown.show(one.mean)} ± {shown.show(one.half_width)} {shown.difference_unit}"
            f" (n={one.num_values})"
            for label, one in found.items()
        ]
    )


def _changed_gaps(rows: Sequence[ScheduleDifference], metric: str) -> list[str]:
    """Why a gap is narrower or wider: own prefixes gain, or gold ones lose."""
    split = metric.split("/")[0]
    by_metric = {(row.metric, row.schedule): row for row in rows}
    found = []
    for row in rows:
        if row.metric != metric or not row.differs:
            continue
        gold, own = (by_metric.get((f"{split}/{name}", row.schedule)) for name in ACCURACIES)
        if gold is None or own is None:
            why = ""
        elif row.difference.value > 0:
            why = f" {_difference(gold)}; {_difference(own)}."
        elif not own.differs:
            why = f" It is not shown that own prefixes do better: {_difference(own)}."
        elif own.difference.value > 0:
            why = f" Own prefixes do better: {_difference(own)}."
        else:
            why = (
                f" Gold prefixes lose more than own ones: {_difference(gold)}; {_difference(own)}."
            )
        found.append(sentence(row) + why)
    return found


def _difference(row: ScheduleDifference) -> str:
    """Such as "own accuracy -1.60 [-1.89, -1.31] points at n=3"."""
    metric, found = row.shown, row.difference
    return (
        f"{metric.title} {metric.show(found.value, signed=True)}"
        f" [{metric.show(found.low)}, {metric.show(found.high)}] {metric.difference_unit}"
        f" at n={found.num_seeds}"
    )


def _near_an_end(sweep: Sweep, metric: str) -> list[str]:
    """Says so if all runs are so close to 0 or 100 % that the metric cannot separate them."""
    shown = sweep.runs.catalog.describe(metric)
    values = [shown.scale * run.metrics.get(metric, math.nan) for run in sweep.runs.compared]
    low, high = min(values), max(values)
    if shown.unit != "%" or not (high <= _NEAR_AN_END or low >= 100 - _NEAR_AN_END):
        return []
    return [
        f"much by {shown.title}: all {len(values)} runs are between {low:.2f} and {high:.2f} %, at"
        " the end of its scale."
    ]
