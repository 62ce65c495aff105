"""The differences from a baseline as tables and sentences, for the terminal and for files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from s2s_jax.lab.base.markup import latex_comment, latex_row, markdown
from s2s_jax.lab.base.metric_catalog import NO_INTERVAL
from s2s_jax.lab.base.text_tables import align
from s2s_jax.lab.comparison.differences import MOST_SEEDS, ScheduleDifference, sentence

ABOUT = (
    "Interval: 95 %, over seeds and test items, not corrected for the number of schedules. p: at"
    " most 0.05 exactly when the interval excludes 0; Holm: corrected for the number of schedules."
    " P(better): the probability that a run of the schedule scores better on a test item than a run"
    " of the baseline, with ties counted as half. Seeds needed: for a power of 0.8, assuming the"
    " observed difference and spread."
)
"""The explanation of the columns."""


def to_text(rows: Sequence[ScheduleDifference], headline: str) -> str:
    """The differences by one metric for a terminal, with a sentence for each schedule.

    Args:
      rows: from `find_differences`.
      headline: the metric.
    """
    chosen = [row for row in rows if row.metric == headline]
    if not chosen:
        return ""
    labels, cells = _labels(chosen), [_cells(row) for row in chosen]
    lines = [f"{_title(chosen)}:", *align([labels, *cells], left={0})]
    return "\n".join([*lines, "", *map(sentence, chosen), *_remarks(chosen), ABOUT]) + "\n"


def to_markdown(rows: Sequence[ScheduleDifference], headline: str) -> str:
    """The conclusions in Markdown, and below them the differences by every metric.

    Args:
      rows: from `find_differences`.
      headline: the metric that the conclusions are about.
    """
    parts = ["\n".join(f"- {markdown(sentence(row))}" for row in rows if row.metric == headline)]
    for title, labels, cells, remarks in table_parts(rows):
        lines = [labels, [":--", *["--:"] * (len(labels) - 1)], *cells]
        table = "\n".join(f"| {' | '.join(map(markdown, line))} |" for line in lines)
        parts += [f"**{markdown(title)}**", table, *map(markdown, remarks)]
    return "\n\n".join([*parts, ABOUT]) + "\n" if rows else ""


def table_parts(
    rows: Sequence[ScheduleDifference],
) -> list[tuple[str, list[str], list[list[str]], list[str]]]:
    """For each metric the title, labels, cells and remarks of its table."""
    groups = [list(group) for _, group in groupby(rows, lambda row: row.metric)]
    return [
        (_title(group), _labels(group), [_cells(row) for row in group], _remarks(group))
        for group in groups
    ]


def to_latex(rows: Sequence[ScheduleDifference], headline: str) -> str:
    """The differences by one metric in LaTeX, for the booktabs package.

    Args:
      rows: from `find_differences`.
      headline: the metric.
    """
    chosen = [row for row in rows if row.metric == headline]
    if not chosen:
        return ""
    labels = _labels(chosen)
    lines = [latex_comment(text) for text in (_title(chosen), *_remarks(chosen))]
    lines += [r"\begin{tabular}{l" + "r" * (len(labels) - 1) + "}", r"\toprule"]
    rule = [r"\midrule"]
    for number, line in enumerate([labels, *map(_cells, chosen)]):
        lines += rule * (number == 1) + [latex_row(line)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _title(rows: Sequence[ScheduleDifference]) -> str:
    metric = rows[0].shown
    better = f" ({metric.better} is better)" if metric.better else ""
    against = " and ".join(dict.fromkeys(row.baseline for row in rows))
    name = rows[0].metric if metric.label == rows[0].metric else metric.title
    scope = rows[0].metric.split("/")[0]
    return f"Against {against} by {name}{better}, {scope} split"


def _labels(rows: Sequence[ScheduleDifference]) -> list[str]:
    unit = rows[0].shown.difference_unit
    return [
        "schedule",
        "n",
        f"difference ({unit})" if unit else "difference",
        "95 % interval",
        "p",
        "p (Holm)",
        "P(better)",
        "seeds needed",
    ]


def _cells(row: ScheduleDifference) -> list[str]:
    metric, found = row.shown, row.difference
    known = not math.isnan(found.low)
    needed = str(row.seeds_needed) if row.seeds_needed else f">{MOST_SEEDS}"
    return [
        row.schedule,
        str(found.num_seeds),
        metric.show(found.value, signed=True),
        f"[{metric.show(found.low)}, {metric.show(found.high)}]" if known else NO_INTERVAL,
        _p_value(found.p_value),
        _p_value(row.p_holm),
        NO_INTERVAL if math.isnan(row.improvement) else f"{row.improvement:.3f}",
        NO_INTERVAL if not known or row.differs or not found.value else needed,
    ]


def _p_value(value: float) -> str:
    if math.isnan(value):
        return NO_INTERVAL
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _remarks(rows: Sequence[ScheduleDifference]) -> list[str]:
    """Which rows were compared over seeds only, and why."""
    remarks = []
    for remark in dict.fromkeys(row.remark for row in rows if row.remark):
        of = [row.schedule for row in rows if row.remark == remark]
        who = "" if len(of) == len(rows) else f"{', '.join(of)}: "
        remarks.append(f"{who}compared over seeds only (paired t-test): {remark}.")
    return remarks
