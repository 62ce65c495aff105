"""The comparison as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.markup import visible
from s2s_jax.lab.comparison import budgets as budget_lines
from s2s_jax.lab.comparison import tables
from s2s_jax.lab.comparison.difference_tables import ABOUT, table_parts
from s2s_jax.lab.comparison.differences import ScheduleDifference, sentence
from s2s_jax.lab.comparison.item_scores import read_predictions

if TYPE_CHECKING:
    from pandas import DataFrame

    from s2s_jax.lab.runs.collect import CollectedRuns

CAPTIONS = {
    "differences": "How large the differences are",
    "schedules": "Schedules, and the share of gold tokens that the coins gave",
    "learning": "Learning curves",
    "gold_own": "Gold against own prefixes",
    "positions": "Accuracy by position",
    "final": "Seeds and their means",
}
"""The caption of every figure that a comparison can have."""

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff; margin: 2rem auto;
  max-width: 68rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-top: 2px solid #111; border-bottom: 1px solid #111; }
tbody tr:last-child td { border-bottom: 2px solid #111; }
.scroll { overflow-x: auto; } .examples td { text-align: left; }
.right { font-weight: 700; } .small { color: #444; font-size: .9rem; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
"""


@dataclass(frozen=True)
class Examples:
    """Test items that some schedules get exactly right and others do not, for one seed.

    Attributes:
      seed: the seed of the runs.
      labels: the schedules.
      items: (source, accepted texts, one hypothesis per schedule).
      num_differing: how many such items there are.
      num_items: the number of items in the test set.
    """

    seed: int
    labels: tuple[str, ...]
    items: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]
    num_differing: int
    num_items: int


def find_examples(runs: CollectedRuns, most: int = 10) -> Examples | None:
    """Items on which the schedules differ, spread over the test set and not chosen by hand.

    Args:
      runs: from `collect`.
      most: how many to show.

    Returns:
      The examples; None if there is no seed for which every schedule has complete hypotheses of the
      same items.
    """
    rows = runs.by_schedule
    common = set.intersection(*({run.seed for run in members} for members in rows.values()))
    for seed in sorted(common):
        members = [next(run for run in some if run.seed == seed) for some in rows.values()]
        try:
            found = [read_predictions(run.folder / "predictions_test.jsonl") for run in members]
        except LabError:
            continue
        if not all(one.same_items(found[0]) for one in found):
            continue
        exact = np.array(
            [
                [said in texts for said, texts in zip(one.hypotheses, one.references, strict=True)]
                for one in found
            ]
        )
        differing = np.flatnonzero(exact.any(0) & ~exact.all(0))
        chosen = differing[
            np.linspace(0, len(differing) - 1, min(most, len(differing))).astype(int)
        ]
        items = tuple(
            (found[0].sources[i], found[0].references[i], tuple(one.hypotheses[i] for one in found))
            for i in chosen
        )
        return Examples(seed, tuple(rows), items, len(differing), exact.shape[1])
    return None


def to_html(
    runs: CollectedRuns,
    frame: DataFrame,
    rows: Sequence[ScheduleDifference],
    headline: str,
    pictures: Mapping[str, str],
) -> str:
    """The page: conclusions first, then the data that they are based on.

    Args:
      runs: from `collect`.
      frame: from `comparison.compare`.
      rows: from `find_differences`.
      headline: the metric that the conclusions are about.
      pictures: name -> SVG.
    """
    title = f"Comparison of {runs.folder.resolve().name}"
    parts = [f"<h1>{_text(title)}</h1>"]
    conclusions = [sentence(row) for row in rows if row.metric == headline]
    if conclusions:
        parts += ["<h2>Conclusions</h2>", _list(conclusions)]
    parts += ["<h2>Schedules</h2>", _table(*tables.table_parts(runs, frame))]
    remarks = tables.remarks(runs, frame)
    parts.append(_list([one.strip() for one in remarks], "small"))
    parts += ["<h2>Budgets</h2>", _table(*_budget_parts(runs))]
    parts.append(_list(budget_lines.unequal(budget_lines.budgets(runs)) or ["Equal budgets."]))
    if rows:
        parts.append("<h2>Differences from the baseline</h2>")
    for caption, labels, cells, notes in table_parts(rows):
        parts += [f"<h3>{_text(caption)}</h3>", _table(labels, cells), _list(notes, "small")]
    if rows:
        parts.append(_list([ABOUT], "small"))
    for name in [*CAPTIONS, *(one for one in pictures if one not in CAPTIONS)]:
        if name in pictures:
            parts.append(_figure(CAPTIONS.get(name, name), pictures[name]))
    parts += _examples(find_examples(runs))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _budget_parts(runs: CollectedRuns) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            one.schedule,
            one.updates_text,
            tables.NO_INTERVAL if one.tokens != one.tokens else f"{one.tokens:,.3g}",
            tables.NO_INTERVAL
            if one.seconds != one.seconds
            else f"{one.seconds:,.0f} ({one.seconds_low:,.0f} to {one.seconds_high:,.0f})",
        ]
        for one in budget_lines.budgets(runs)
    ]
    return ["schedule", "updates", "target tokens", "seconds (lowest to highest)"], rows


def _examples(found: Examples | None) -> list[str]:
    if found is None or not found.items:
        return []
    lines = []
    for source, texts, hypotheses in found.items:
        cells = [f"<td>{_text(source)}</td>", f"<td>{_text(' | '.join(texts))}</td>"]
        for said in hypotheses:
            right = said in texts
            mark = ' class="right"' if right else ""
            cells.append(f"<td{mark}>{'✓ ' if right else ''}{_text(said)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    labels = ["source", "reference", *found.labels]
    heads = "".join(f"<th>{_text(label)}</th>" for label in labels)
    about = (
        f"Of {found.num_items:,} test items, {found.num_differing:,} were decoded exactly by some"
        f" schedules but not by others (seed {found.seed}). {len(found.items)} of them are shown,"
        " spread evenly."
    )
    return [
        "<h2>Examples where the schedules differ</h2>",
        f"<p>{_text(about)}</p>",
        f'<div class="scroll"><table class="examples"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>",
    ]


def _figure(caption: str, svg: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    return (
        f"<h2>{_text(caption)}</h2>\n<figure>"
        f'<img alt="{_text(caption)}" src="data:image/svg+xml;base64,{data}"></figure>'
    )


def _table(labels: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(label)}</th>" for label in labels)
    lines = (f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _list(lines: Sequence[str], kind: str = "") -> str:
    if not lines:
        return ""
    return f'<ul class="{kind}">{"".join(f"<li>{_text(line)}</li>" for line in lines)}</ul>'


def _text(text: str) -> str:
    return html.escape(visible(text))
