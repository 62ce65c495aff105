"""Writes docs/results.md, with its figures, from finished sweeps.

    python docs/scripts/results.py g2p=runs/g2p addition=runs/addition \
        reverse=runs/reverse markov=runs/markov [--out=docs]

Name any of the four; the page has a section for each that is named. Everything on it is computed
from the runs: run it again after new sweeps. Measure the sweeps with `s2s exposure` before, and
the figure of positions has gold prefixes too. Exit code 2, and nothing written, where a sweep
cannot be used.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import results_conclusions
import results_sweeps
import results_theory
from results_page import Page, write
from results_sweeps import Sweep, read_sweep

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.comparison import (
    compare,
    difference_plots,
    difference_tables,
    metric_names,
    plots,
    tables,
)
from s2s_jax.lab.comparison.differences import ScheduleDifference, find_differences, headline
from s2s_jax.names import did_you_mean


@dataclass(frozen=True)
class Task:
    """The subject of a section: its title, and a sentence on the task."""

    title: str
    about: str


TASKS = {
    "g2p": Task(
        "Spelling to phonemes",
        "CMUdict: a word's letters in, its phonemes out. WER counts a word as right if it equals"
        " any of its pronunciations. Many spellings have more than one right continuation.",
    ),
    "addition": Task(
        "Addition",
        "`12+345` → `357`. The target is a function of the source. `test` has sums that were not"
        " seen in training, `test_long` sums of longer numbers.",
    ),
    "reverse": Task(
        "Reversal",
        "`bca` → `acb`. The target is a function of the source. `test_long` has strings longer"
        " than any in training.",
    ),
    "markov": Task(
        "A Markov chain",
        "The source reveals nothing and the targets are drawn from a known chain, so both the"
        " distance of a model from the truth and the distance that scheduled sampling must end at"
        " are known. Each row is a constant `teacher_prob`.",
    ),
}
"""The sections that there can be, in the page's order, by the name of their experiment."""

_THEORY = ("markov",)

_ABOUT = """\
Written by `{command}`
from finished sweeps, including the conclusions, which follow from the runs by rules. Do not edit
it; run the command again.

Every mean has its number of seeds `n` and half its 95 % t-interval; every difference is of pairs
of runs of the same seed, with its 95 % interval. Two schedules are called different where the
p-value, corrected by Holm for the number of schedules, is at most 0.05.
[comparing.md](comparing.md) explains how everything is computed.
"""


def add_schedules(page: Page, sweep: Sweep) -> None:
    """Adds the results of a sweep of schedules, for each of its test splits."""
    runs, name = sweep.runs, sweep.name
    there = {metric for run in runs.compared for metric in run.metrics}
    names = [metric_names(runs)]
    long = [f"test_long/{one}" for one in runs.catalog.columns if f"test_long/{one}" in there]
    names += [long] if long else []
    headlines = [headline(some, False, runs.catalog) for some in names]
    rows = [find_differences(runs, some) for some in names]
    every = [row for some in rows for row in some]
    can, cannot = results_conclusions.find_conclusions(sweep, every, headlines)
    page.add(results_conclusions.to_markdown(can, cannot))
    for some, first, of_split in zip(names, headlines, rows, strict=True):
        split, frame = first.split("/")[0], compare(runs, some)
        page.add(f"### {TASKS[name].title}: `{split}`", _table(*tables.table_parts(runs, frame)))
        if some is names[0]:
            page.add(_remarks(tables.remarks(runs, frame)))
        page.add(*_difference_tables(of_split, first))
    page.add(difference_tables.ABOUT)
    page.add(f"### {TASKS[name].title}: figures")
    page.add_picture(
        f"{name}_schedules",
        "teacher_prob over the steps, and as open marks the share of gold tokens that was realised",
        [plots.schedule_figure(runs)],
    )
    page.add_picture(
        f"{name}_learning",
        "Learning curves on dev with gold and with own prefixes, bands over seeds",
        [plots.learning_figure(runs)],
    )
    page.add_picture(
        f"{name}_scores",
        "Scores of every seed, their means with intervals, and the differences from the baseline",
        [plots.final_figure(runs, names[0]), difference_plots.differences_figure(runs, rows[0])],
    )
    page.add_picture(
        f"{name}_prefixes",
        "Accuracy with gold against own prefixes, the gap over the steps, accuracy by position",
        [difference_plots.gold_own_figure(runs), difference_plots.positions_figure(runs)],
    )


def add_theory(page: Page, sweep: Sweep) -> None:
    """Adds the results of a sweep whose truth is known, next to what theory predicts."""
    name, title = sweep.name, TASKS[sweep.name].title
    rows = results_theory.theory_rows(sweep)
    against = results_theory.differences(sweep, rows)
    can, cannot = results_theory.find_conclusions(rows, against)
    cannot += results_conclusions.limits(sweep)
    page.add(results_conclusions.to_markdown(can, cannot))
    page.add(f"### {title}: measured and predicted", results_theory.to_markdown(rows))
    frame = compare(sweep.runs, [results_theory.MEASURED])
    page.add(_remarks(tables.remarks(sweep.runs, frame)[1:]))
    page.add(*_difference_tables(against, results_theory.MEASURED), difference_tables.ABOUT)
    page.add(f"### {title}: figures")
    page.add_picture(
        f"{name}_theory",
        "KL from the truth by teacher_prob and over the steps: predicted and measured",
        [results_theory.theory_figure(sweep, rows)],
    )
    page.add_picture(
        f"{name}_schedules",
        "teacher_prob, and as open marks the share of gold tokens that was realised",
        [plots.schedule_figure(sweep.runs)],
    )


def make_page(sweeps: Sequence[Sweep], command: str) -> Page:
    """The page of some sweeps, in the order of `TASKS`."""
    page = Page()
    page.add("# Results", _ABOUT.format(command=command))
    page.add(
        "\n".join(
            f"- [{TASKS[one.name].title}](#{_anchor(TASKS[one.name].title)}): {one.seeds_text}"
            f" a schedule, {one.config['train']['num_steps']:,} updates"
            + (", reduced size" if one.reduced else "")
            for one in sweeps
        )
    )
    for sweep in sweeps:
        task = TASKS[sweep.name]
        page.add(f"## {task.title}", task.about, results_sweeps.to_markdown(sweep))
        (add_theory if sweep.name in _THEORY else add_schedules)(page, sweep)
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the sweeps, writes the page; 0, or 2 for bad input."""
    parser = _Parser(description="Writes docs/results.md from finished sweeps.")
    parser.add_argument(
        "sweeps", nargs="+", metavar="NAME=FOLDER", help=f"NAME is one of {', '.join(TASKS)}"
    )
    parser.add_argument(
        "--out", type=Path, default=results_sweeps.ROOT / "docs", help="of the page (default docs)"
    )
    try:
        options = parser.parse_args(arguments)
        folders = _folders(options.sweeps)
        sweeps = [read_sweep(name, folders[name]) for name in TASKS if name in folders]
        words = [f"{one.name}=runs/{one.name}" for one in sweeps]
        page = make_page(sweeps, shlex.join(["python", "docs/scripts/results.py", *words]))
        write(page, options.out)
    except LabError as error:
        print(f"results.py: {error}", file=sys.stderr)
        return 2
    print(f"{options.out / 'results.md'}: {len(sweeps)} sweeps, {len(page.pictures)} figures")
    return 0


class _Parser(argparse.ArgumentParser):
    """One line instead of the usage on an error."""

    def error(self, message: str):
        raise LabError(f"{message} (--help lists the rest)")


def _folders(arguments: Sequence[str]) -> dict[str, str]:
    """Name -> folder of NAME=FOLDER."""
    found: dict[str, str] = {}
    for one in arguments:
        name, equals, folder = one.partition("=")
        if not equals or not folder:
            raise LabError(f"{one} names no sweep; write NAME=FOLDER, such as g2p=runs/g2p")
        if name not in TASKS:
            raise LabError(f"there is no section {name!r}; {did_you_mean(name, TASKS)}")
        if name in found:
            raise LabError(f"{name} is named twice")
        found[name] = folder
    return found


def _difference_tables(rows: Sequence[ScheduleDifference], first: str) -> list[str]:
    """The table by the metric of the conclusions, and those by the others folded away."""
    others = [row for row in rows if row.metric != first]
    found = _tables([row for row in rows if row.metric == first])
    if others:
        found += [
            "<details><summary>By the other metrics</summary>",
            *_tables(others),
            "</details>",
        ]
    return found


def _tables(rows: Sequence[ScheduleDifference]) -> list[str]:
    found: list[str] = []
    for title, labels, cells, remarks in difference_tables.table_parts(rows):
        found += [f"**{title}**", _table(labels, cells), *remarks]
    return found


def _table(labels: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [labels, [":--", *["--:"] * (len(labels) - 1)], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _remarks(lines: Sequence[str]) -> str:
    """As a list, with what is indented one level down."""
    return "\n".join(
        f"  - {line.strip()}" if line.startswith("  ") else f"- {line}" for line in lines
    )


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main())
