"""Compares schedules over their seeds: computes the table and writes all files."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from s2s_jax.lab.base.decorations import Decorations
from s2s_jax.lab.base.errors import LabError, writing
from s2s_jax.lab.base.files import write_atomic
from s2s_jax.lab.base.markup import csv_cell, visible
from s2s_jax.lab.base.seed_statistics import estimate
from s2s_jax.lab.runs.collect import CollectedRuns as CollectedRuns
from s2s_jax.lab.runs.collect import FinishedRun as FinishedRun
from s2s_jax.lab.runs.collect import collect as collect
from s2s_jax.names import did_you_mean

if TYPE_CHECKING:
    from pandas import DataFrame


def compare(runs: CollectedRuns, metrics: Sequence[str] | None = None) -> DataFrame:
    """Schedules by metrics, with means and intervals over seeds.

    Args:
      runs: from `collect`.
      metrics: names such as "test/own/wer". The "test/" may be left out, or the "eval/" if the
        runs were not tested. None for the catalogue's `columns` that at least one run has.

    Returns:
      One row per schedule, indexed by it: "n", the number of its runs, and for each metric
      "<name>/mean", "<name>/half_width" (of the 95 % t-interval; NaN for fewer than two seeds) and
      "<name>/n", the number of its runs that have a value.

    Raises:
      LabError: no run has one of the metrics; the message suggests those that exist.
    """
    import pandas as pd

    rows = {}
    names = metric_names(runs, metrics)
    for schedule, members in runs.by_schedule.items():
        row: dict[str, float] = {"n": len(members)}
        for name in names:
            found = estimate(run.metrics.get(name, math.nan) for run in members)
            row[f"{name}/mean"] = found.mean
            row[f"{name}/half_width"] = found.half_width
            row[f"{name}/n"] = found.num_values
        rows[schedule] = row
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("schedule")
    counts = ["n", *(f"{name}/n" for name in names)]
    return frame.astype(dict.fromkeys(counts, int))


def metric_names(runs: CollectedRuns, metrics: Sequence[str] | None = None) -> list[str]:
    """The full names of the requested metrics, or of the default ones; see `compare`."""
    there = sorted({name for run in runs.compared for name in run.metrics})
    prefix = "test/" if any(name.startswith("test/") for name in there) else "eval/"
    if metrics is None:
        names = [prefix + name for name in runs.catalog.columns if prefix + name in there]
        return names or there
    names = []
    for metric in metrics:
        if metric in there:
            names.append(metric)
        elif prefix + metric in there:
            names.append(prefix + metric)
        else:
            raise LabError(f"no run has a metric {metric!r}; {did_you_mean(metric, there)}")
    return list(dict.fromkeys(names))


def points(runs: CollectedRuns) -> DataFrame:
    """Every number of every run: "schedule", "seed", "run", "step", "metric", "value".

    There is one row per number. Final metrics have the last step and a name that starts with
    "final/".
    """
    import pandas as pd

    found = [
        (run.schedule, run.seed, str(run.folder.relative_to(runs.folder)), step, name, value)
        for run in runs.compared
        for step, name, value in _run_points(run)
    ]
    frame = pd.DataFrame(found, columns=["schedule", "seed", "run", "step", "metric", "value"])
    return frame.astype({"seed": "int64", "step": "int64", "value": "float64"})


def _run_points(run: FinishedRun) -> list[tuple[int, str, float]]:
    logged = [
        (int(record["step"]), visible(str(name)), float(value))
        for record in run.records
        if isinstance(record.get("step"), int)
        for name, value in record.items()
        if name != "step" and isinstance(value, int | float)
    ]
    return logged + [(run.num_steps, f"final/{name}", v) for name, v in run.metrics.items()]


def write_comparison(
    sweep_dir: str | Path, metrics: Sequence[str] | None = None, baseline: str | None = None
) -> str:
    """Compares a sweep; writes tables, figures, a page and TensorBoard curves to its folder.

        compare.csv      means, intervals, differences, p-values
        compare.md       conclusions and tables in Markdown
        compare.tex      tables in LaTeX, for booktabs
        compare.parquet  every number of every run
        report.html      everything on one page, with the figures and examples
        *.png, *.svg     the figures
        over_seeds/      curves over seeds for TensorBoard

    Everything is computed before the first file is written, and each file is written atomically. A
    figure that fails is left out and mentioned in the returned text.

    Args:
      sweep_dir: the sweep's folder.
      metrics: see `compare`.
      baseline: what the others are compared with; see `differences.baselines`.

    Returns:
      The table as text, the differences, the runs that were left out and the files written.

    Raises:
      LabError: nothing can be compared, or the files cannot be written.
    """
    from s2s_jax.lab.base import figures
    from s2s_jax.lab.comparison import difference_tables, differences, html_report, plots, tables
    from s2s_jax.lab.comparison.difference_plots import make_difference_figures
    from s2s_jax.lab.comparison.tensorboard_layouts import event_files, remove_others

    runs = collect(sweep_dir)
    names = metric_names(runs, metrics)
    if not names:
        raise LabError(f"no run in {sweep_dir} has a metric")
    frame = compare(runs, metrics)
    rows = differences.find_differences(runs, names, baseline)
    first = differences.headline(names, metrics is not None, runs.catalog)
    left_out: list[str] = []
    attempt = Decorations(left_out.append).attempt
    drawn = plots.make_figures(runs, names, attempt) | make_difference_figures(runs, rows, attempt)
    pictures: dict[str, tuple[str, bytes]] = {}
    for name, figure in drawn.items():
        with attempt(f"figure {name}"):
            pictures[name] = figures.to_svg(figure), figures.to_png(figure)
    parquet = io.BytesIO()
    points(runs).to_parquet(parquet, index=False)
    together = frame.join(differences.to_frame(rows)) if rows else frame
    files: dict[str, str | bytes] = {
        "compare.csv": _to_csv(together),
        "compare.md": _joined(
            tables.to_markdown(runs, frame), difference_tables.to_markdown(rows, first)
        ),
        "compare.tex": _joined(
            tables.to_latex(runs, frame), difference_tables.to_latex(rows, first)
        ),
        "compare.parquet": parquet.getvalue(),
        "report.html": html_report.to_html(
            runs, frame, rows, first, {name: svg for name, (svg, _) in pictures.items()}
        ),
    }
    for name, (svg, png) in pictures.items():
        files[f"{name}.png"], files[f"{name}.svg"] = png, svg
    # The events come last, since TensorBoard may already be watching the folder.
    events = event_files(runs, [first, *(name for name in names if name != first)])
    for name, data in (files | events).items():
        path = runs.folder / name
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    remove_others(runs.folder, events)
    for name in html_report.CAPTIONS.keys() - pictures.keys():  # from an earlier comparison
        for old in (runs.folder / f"{name}.png", runs.folder / f"{name}.svg"):
            with writing(old):
                old.unlink(missing_ok=True)
    text = _joined(tables.to_text(runs, frame), difference_tables.to_text(rows, first))
    told = "".join(f"{line}\n" for line in left_out)
    return f"{text}\nIn {runs.folder}: {', '.join(files)}\n{told}"


def _to_csv(frame: DataFrame) -> str:
    """The table as CSV, with texts escaped so that no spreadsheet reads them as formulas."""

    def cell(value: object) -> object:
        return csv_cell(value) if isinstance(value, str) else value

    return frame.rename(index=cell, columns=cell).map(cell).to_csv()


def _joined(*texts: str) -> str:
    return "\n".join(text for text in texts if text)
