"""How much each schedule of a sweep differs from a baseline, in numbers and in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.metric_catalog import CATALOG, Catalog, Metric
from s2s_jax.lab.base.seed_statistics import holm, probability_of_improvement, seeds_needed
from s2s_jax.lab.comparison.item_scores import Predictions, item_scores, read_predictions
from s2s_jax.lab.comparison.significance import Difference, paired_difference
from s2s_jax.lab.evaluation.scores import Score, make_scorer
from s2s_jax.names import did_you_mean

if TYPE_CHECKING:
    from pandas import DataFrame

    from s2s_jax.lab.runs.collect import CollectedRuns, FinishedRun

DEFAULT_BASELINE = "teacher_forcing"

ALPHA = 0.05
"""The largest corrected p-value at which two schedules are said to differ."""

MOST_SEEDS = 100
"""The search for the number of seeds needed stops here."""


@dataclass(frozen=True)
class ScheduleDifference:
    """The difference between a schedule and its baseline by one metric.

    Attributes:
      schedule: its row's label.
      baseline: the label of the row it is compared with.
      metric: the full name.
      seeds: those that both have; the runs of a seed are compared as a pair.
      difference: schedule minus baseline, in the metric's stored unit.
      p_holm: the p-value, corrected for the number of schedules; NaN if there is none.
      improvement: the probability that a run of the schedule does better on an item than a run of
        the baseline, with ties counted as half; NaN if it is not known which way is better.
      seeds_needed: to see a difference of this size; None if `MOST_SEEDS` are not enough.
      remark: why only the totals per seed were compared; "" if the items were, too.
      catalog: how metrics are shown.
    """

    schedule: str
    baseline: str
    metric: str
    seeds: tuple[int, ...]
    difference: Difference
    p_holm: float
    improvement: float
    seeds_needed: int | None
    remark: str = ""
    catalog: Catalog = CATALOG

    @property
    def shown(self) -> Metric:
        """How the metric is shown."""
        return self.catalog.describe(self.metric)

    @property
    def differs(self) -> bool:
        """Whether the two differ according to the corrected p-value."""
        return self.p_holm <= ALPHA


def baselines(runs: CollectedRuns, baseline: str | None = None) -> dict[str, str]:
    """The baseline row of each row: label -> label, without the baselines themselves.

    Args:
      runs: of `collect`.
      baseline: a row's label or a schedule's name. If the sweep varies more than the schedule, a
        schedule's name compares each row with that schedule's row that has the same other values.
        None for teacher forcing; if the sweep does not have it, the first row, or the schedule of
        the first row if the sweep varies more than the schedule. In a sweep of named methods, the
        method of that name.

    Raises:
      LabError: there is no such row, or several rows of the schedule fit.
    """
    rows = {label: members[0] for label, members in runs.by_schedule.items()}
    wanted = baseline
    if wanted is None:
        names = {label: run.config.get("schedule", {}).get("name") for label, run in rows.items()}
        first = next(iter(rows))
        wanted = names[first] if rows[first].varied else first
        if DEFAULT_BASELINE in names.values():
            wanted = DEFAULT_BASELINE
    if wanted in rows and not rows[wanted].varied:
        return {label: wanted for label in rows if label != wanted}
    if wanted in rows and (baseline is not None or rows[wanted].config.get("method")):
        return {label: wanted for label in rows if label != wanted}
    of_name = [
        label for label, run in rows.items() if run.config.get("schedule", {}).get("name") == wanted
    ]
    if not of_name:
        raise LabError(f"no row {baseline!r} to compare with; {did_you_mean(str(baseline), rows)}")
    found = {}
    for label, run in rows.items():
        if label in of_name:
            continue
        alike = [one for one in of_name if rows[one].varied == run.varied]
        if len(alike) > 1 or (not alike and len(of_name) > 1):
            raise LabError(
                f"baseline {wanted!r} has {len(of_name)} rows, and none or several of them match"
                f" {label!r}; name one of {', '.join(of_name)}"
            )
        found[label] = (alike or of_name)[0]
    # If the baseline's schedule has several rows, the others are compared with the first.
    return found | dict.fromkeys(of_name[1:], of_name[0])


def find_differences(
    runs: CollectedRuns, metrics: Sequence[str], baseline: str | None = None
) -> list[ScheduleDifference]:
    """Compares every schedule with its baseline by every metric.

    The p-values are corrected over the schedules, separately for each metric. They are not
    corrected over metrics, so choose the metric before looking at the results.

    Args:
      runs: of `collect`.
      metrics: full names.
      baseline: see `baselines`.

    Raises:
      LabError: there is no such baseline.
    """
    pairs = baselines(runs, baseline)
    members = runs.by_schedule
    catalog = runs.catalog
    items = _Items(catalog)
    rows: list[ScheduleDifference] = []
    for metric in metrics:
        of_metric = [
            _row(metric, label, members[label], other, members[other], items, len(pairs), catalog)
            for label, other in pairs.items()
        ]
        corrected = holm([row.difference.p_value for row in of_metric])
        rows += [replace(row, p_holm=p) for row, p in zip(of_metric, corrected, strict=True)]
    return rows


def headline(metrics: Sequence[str], chosen: bool, catalog: Catalog = CATALOG) -> str:
    """The metric that the sentences are about: the first chosen, else the catalogue's headline.

    Args:
      metrics: full names.
      chosen: whether the user named them.
      catalog: defines which metrics are headlines; if none of them is there, the first metric is
        used.
    """
    return (None if chosen else catalog.headline(metrics)) or metrics[0]


def to_frame(rows: Sequence[ScheduleDifference]) -> DataFrame:
    """The differences as columns "<metric>/difference", "/low", "/high", "/p", ... by schedule."""
    import pandas as pd

    columns: dict[str, dict[str, object]] = {}
    for row in rows:
        here = columns.setdefault(row.schedule, {"baseline": row.baseline})
        found = row.difference
        here |= {
            f"{row.metric}/difference": found.value,
            f"{row.metric}/difference_low": found.low,
            f"{row.metric}/difference_high": found.high,
            f"{row.metric}/num_pairs": found.num_seeds,
            f"{row.metric}/num_items": found.num_items,
            f"{row.metric}/p": found.p_value,
            f"{row.metric}/p_holm": row.p_holm,
            f"{row.metric}/probability_of_improvement": row.improvement,
            f"{row.metric}/seeds_needed": row.seeds_needed,
        }
    return pd.DataFrame.from_dict(columns, orient="index").rename_axis("schedule")


def sentence(row: ScheduleDifference) -> str:
    """One sentence about how a schedule compares with its baseline.

    Example:
      >>> found = Difference(1.2, -0.4, 2.8, 0.09, 3, 500, 0.4, 0.0)
      >>> row = ScheduleDifference(
      ...     "linear", "teacher_forcing", "test/own/wer", (0, 1, 2), found, 0.18, 0.4, 5
      ... )
      >>> print(sentence(row).partition(";")[2])
       about 5 seeds would be needed to see a difference of this size.
    """
    metric, found = row.shown, row.difference
    count = found.num_seeds
    if not count:
        return f"{row.schedule}: not compared; it has no seed in common with {row.baseline}."
    shown = f"{metric.title} {metric.show(found.value, signed=True)}"
    unit = f" {metric.difference_unit}" if metric.difference_unit else ""
    if count == 1:
        return (
            f"{row.schedule}: {shown}{unit} against {row.baseline}, with one seed; the noise"
            " between seeds cannot be estimated from one seed: run at least 3."
        )
    if found.value == found.low == found.high == 0:
        return (
            f"{row.schedule}: the same as {row.baseline} in each of {count} seeds ({metric.title})."
        )
    p_value = "p<0.001" if row.p_holm < 0.001 else f"p={row.p_holm:.2g}"
    if row.p_holm > found.p_value:
        p_value = f"Holm-corrected {p_value}"
    numbers = f"{shown} [{metric.show(found.low)}, {metric.show(found.high)}]{unit}, {p_value}"
    if row.differs:
        better = (found.value < 0) == (metric.better == "lower")
        word = (" (better)" if better else " (worse)") if metric.better else ""
        more = "higher" if found.value > 0 else "lower"
        return f"{row.schedule}: {more}{word} than {row.baseline} at n={count} ({numbers})."
    return (
        f"{row.schedule}: not distinguishable from {row.baseline} at n={count} ({numbers});"
        f" {_needed(row)}."
    )


def _needed(row: ScheduleDifference) -> str:
    if row.difference.value == 0:
        return "the observed difference is 0"
    size = "would be needed to see a difference of this size"
    if row.seeds_needed is not None:
        return f"about {row.seeds_needed} seeds {size}"
    of_items = row.difference.item_variance > row.difference.seed_variance / MOST_SEEDS
    return f"more than {MOST_SEEDS} seeds{' or more test items' if of_items else ''} {size}"


def _row(
    metric: str,
    label: str,
    ours: Sequence[FinishedRun],
    baseline: str,
    theirs: Sequence[FinishedRun],
    items: _Items,
    num_rows: int,
    catalog: Catalog,
) -> ScheduleDifference:
    """Compares one of `num_rows` schedules with its baseline; the p-value is uncorrected."""
    pairs = _paired(metric, ours, theirs)
    scores, remark = items.of_pairs(metric, pairs)
    if scores is None:
        totals = [[run.metrics[metric] for run in pair] for pair in pairs]
        scores = np.array(totals, float).reshape(-1, 2).T[..., None]
    left, right = scores
    found = paired_difference(left, right)
    sign = {"higher": 1.0, "lower": -1.0}.get(catalog.describe(metric).better)
    improvement = math.nan
    if sign is not None and len(pairs):
        improvement = probability_of_improvement(sign * left, sign * right)
    needed = None
    if len(pairs) > 1:
        variances = (found.seed_variance, found.item_variance)
        level = ALPHA / num_rows
        needed = seeds_needed(found.value, *variances, alpha=level, most=MOST_SEEDS)
    seeds = tuple(run.seed for run, _ in pairs)
    return ScheduleDifference(
        label, baseline, metric, seeds, found, math.nan, improvement, needed, remark, catalog
    )


def _paired(
    metric: str, ours: Sequence[FinishedRun], theirs: Sequence[FinishedRun]
) -> list[tuple[FinishedRun, FinishedRun]]:
    """Pairs of runs with the same seed, for the seeds where both have a value."""
    others = {run.seed: run for run in theirs if math.isfinite(run.metrics.get(metric, math.nan))}
    return [
        (run, others[run.seed])
        for run in ours
        if run.seed in others and math.isfinite(run.metrics.get(metric, math.nan))
    ]


class _Items:
    """The scores of the runs' test items; reads each file and computes each score only once."""

    def __init__(self, catalog: Catalog):
        self._catalog = catalog
        self._read: dict[Path, Predictions | str] = {}
        self._scores: dict[tuple[Path, str], np.ndarray | str] = {}

    def of_pairs(
        self, metric: str, pairs: Sequence[tuple[FinishedRun, FinishedRun]]
    ) -> tuple[np.ndarray | None, str]:
        """[2, seeds, items] scores; or None and the reason why there are none."""
        split = metric.split("/")[0]
        found, first = [], None
        for run in (run for side in zip(*pairs, strict=True) for run in side):
            predictions = self._predictions(run.folder / f"predictions_{split}.jsonl")
            if isinstance(predictions, str):
                return None, predictions
            first = first or predictions
            if not predictions.same_items(first):
                return None, "the runs were tested on different items"
            if len(predictions.sources) == 1:
                return None, "the test set has one item"
            scores = self._of_run(run, metric, predictions)
            if isinstance(scores, str):
                return None, scores
            found.append(scores)
        if not found:
            return None, ""
        return np.stack(found).reshape(2, len(pairs), -1), ""

    def _of_run(self, run: FinishedRun, metric: str, predictions: Predictions) -> np.ndarray | str:
        """[items] scores; or the reason why there are none."""
        key = (run.folder, metric)
        if key not in self._scores:
            try:
                own = _scores(run) if self._catalog.is_score(metric) else ()
                scores = item_scores(predictions, metric, run.metrics[metric], own)
            except LabError as error:
                scores = str(error)
            missing = "the score cannot be recomputed from the saved hypotheses"
            self._scores[key] = missing if scores is None else scores
        return self._scores[key]

    def _predictions(self, path: Path) -> Predictions | str:
        if path not in self._read:
            try:
                there = path.exists()
                self._read[path] = read_predictions(path) if there else f"there is no {path.name}"
            except LabError:
                self._read[path] = f"a {path.name} is incomplete or damaged"
        return self._read[path]


def _scores(run: FinishedRun) -> tuple[Score, ...]:
    """The scores that a run's config chooses.

    Raises:
      LabError: they are unknown, something that they need is not installed, or the run's copies of
        the user's modules have been altered.
    """
    settings = run.config.get("eval", {})
    if "scores" not in settings:
        raise LabError("the config does not say how hypotheses were scored")
    name, tokenize = str(settings["scores"]), str(settings.get("bleu_tokenize", "13a"))
    if ":" not in name:
        return make_scorer(name, tokenize).scores
    from s2s_jax.lab.runs.run_folder import RunFolder  # needs JAX, like the user's own code

    return make_scorer(name, tokenize, RunFolder(run.folder).modules()).scores
