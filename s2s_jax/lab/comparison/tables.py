"""The comparison as a table for the terminal, in Markdown and in LaTeX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2s_jax.lab.base.markup import latex, latex_comment, latex_row, markdown, visible
from s2s_jax.lab.base.metric_catalog import NO_INTERVAL, Metric
from s2s_jax.lab.comparison.budgets import budgets
from s2s_jax.lab.comparison.budgets import to_text as to_budget_text
from s2s_jax.lab.runs.collect import left_out_lines

if TYPE_CHECKING:
    from pandas import DataFrame

    from s2s_jax.lab.runs.collect import CollectedRuns


def to_text(runs: CollectedRuns, frame: DataFrame) -> str:
    """The table for a terminal, with headings above the columns for gold and own prefixes.

    Args:
      runs: from `collect`.
      frame: from `comparison.compare`.
    """
    metrics = _metrics(runs, frame)
    rows = _rows(runs, frame)
    labels = ["schedule", "n", *(metric.label_with_unit for metric in metrics)]
    widths = [max(map(len, column)) for column in zip(labels, *rows, strict=True)]
    groups = _groups(metrics)
    headings = [""] * 2
    spans = [widths[0], widths[1]]
    place = 2
    for prefixes, count in groups:
        heading = f"{prefixes} prefixes" if prefixes else ""
        missing = len(heading) - sum(widths[place : place + count]) - 2 * (count - 1)
        widths[place] += max(missing, 0)
        spans.append(sum(widths[place : place + count]) + 2 * (count - 1))
        headings.append(heading)
        place += count
    ruled = [
        f" {heading} ".center(span, "─") if heading else " " * span
        for heading, span in zip(headings, spans, strict=True)
    ]
    lines = ["  ".join(ruled).rstrip()] if any(headings) else []
    for cells in [labels, *rows]:
        first = cells[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join([*lines, "", *remarks(runs, frame)]) + "\n"


def to_markdown(runs: CollectedRuns, frame: DataFrame) -> str:
    """The table in Markdown, followed by the remarks.

    Args:
      runs: from `collect`.
      frame: from `comparison.compare`.
    """
    labels, rows = table_parts(runs, frame)
    lines = [labels, [":--", *["--:"] * (len(labels) - 1)], *rows]
    table = "\n".join(f"| {' | '.join(map(markdown, line))} |" for line in lines)
    below = "\n".join(
        remark.replace("  ", "  - ", 1) if remark.startswith("  ") else f"- {remark}"
        for remark in map(markdown, remarks(runs, frame))
    )
    return f"{table}\n\n{below}\n"


def table_parts(runs: CollectedRuns, frame: DataFrame) -> tuple[list[str], list[list[str]]]:
    """The column labels of the table, with the prefixes, and its cells row by row.

    Args:
      runs: from `collect`.
      frame: from `comparison.compare`.
    """
    labels = ["schedule", "n"]
    for metric in _metrics(runs, frame):
        labels.append(metric.label_with_unit + (f" ({metric.prefixes})" if metric.prefixes else ""))
    return labels, _rows(runs, frame)


def to_latex(runs: CollectedRuns, frame: DataFrame) -> str:
    """The table in LaTeX, for the booktabs package, with the remarks as comments.

    Args:
      runs: from `collect`.
      frame: from `comparison.compare`.
    """
    metrics = _metrics(runs, frame)
    lines = [latex_comment(remark) for remark in remarks(runs, frame)]
    lines += [r"\begin{tabular}{l" + "r" * (1 + len(metrics)) + "}", r"\toprule"]
    headings, rules, place = ["", ""], [], 3
    for prefixes, count in _groups(metrics):
        heading = f"{prefixes} prefixes" if prefixes else ""
        headings.append(rf"\multicolumn{{{count}}}{{c}}{{{heading}}}")
        if prefixes:
            rules.append(rf"\cmidrule(lr){{{place}-{place + count - 1}}}")
        place += count
    if rules:
        lines += [" & ".join(headings) + r" \\", " ".join(rules)]
    labels = ["schedule", "$n$", *(latex(metric.label_with_unit) for metric in metrics)]
    lines += [" & ".join(labels) + r" \\", r"\midrule"]
    lines += map(latex_row, _rows(runs, frame))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _names(frame: DataFrame) -> list[str]:
    return [column.removesuffix("/mean") for column in frame.columns if column.endswith("/mean")]


def _metrics(runs: CollectedRuns, frame: DataFrame) -> list[Metric]:
    return [runs.catalog.describe(name) for name in _names(frame)]


def _groups(metrics: list[Metric]) -> list[tuple[str, int]]:
    """Groups of adjacent metrics with the same prefixes: the prefixes and the number of metrics."""
    groups: list[tuple[str, int]] = []
    for metric in metrics:
        if groups and groups[-1][0] == metric.prefixes:
            groups[-1] = (metric.prefixes, groups[-1][1] + 1)
        else:
            groups.append((metric.prefixes, 1))
    return groups


def _rows(runs: CollectedRuns, frame: DataFrame) -> list[list[str]]:
    """Schedule, n and one cell per metric; the cells of a column are aligned at the ±."""
    columns = [[str(name) for name in frame.index], [str(int(count)) for count in frame["n"]]]
    for name in _names(frame):
        metric = runs.catalog.describe(name)
        means, halves, counts = (frame[f"{name}/{part}"] for part in ("mean", "half_width", "n"))
        shown = [list(map(metric.show, values)) for values in (means, halves)]
        width = max(map(len, shown[1]))
        cells = []
        for mean, half, count, total in zip(*shown, counts, frame["n"], strict=True):
            cell = f"{mean} ± {half:>{width}}" if count else NO_INTERVAL
            cells.append(cell if count == total or not count else f"{cell} (n={count})")
        columns.append(cells)
    return [list(row) for row in zip(*columns, strict=True)]


def remarks(runs: CollectedRuns, frame: DataFrame) -> list[str]:
    """What a reader has to know besides the numbers, one line each."""
    scope = sorted({name.split("/")[0] for name in _names(frame)} & {"test", "eval"})
    of = f" Split: {' and '.join(scope)}." if scope else ""
    lines = [
        f"Mean ± half the 95 % t-interval over n seeds; {NO_INTERVAL} if there are too few.{of}"
    ]
    budget = to_budget_text(budgets(runs))
    lines += [budget] if budget else []
    return [visible(line) for line in (*lines, *runs.notes, *left_out_lines(runs.left_out))]
