"""Schedules compared over their seeds, from what the runs of a sweep have left."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2s_jax.lab.errors import LabError, nearest
from s2s_jax.lab.files import read_json, read_jsonl, write_atomic
from s2s_jax.lab.statistics import estimate

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEDULE_ORDER = (
    "teacher_forcing",
    "constant",
    "linear",
    "exponential",
    "inverse_sigmoid",
    "free_running",
)
"""The order of a table's rows; other names follow in the alphabet's."""

DEFAULT_METRICS = (
    "gold/nll",
    "gold/token_accuracy",
    "own/token_accuracy",
    "own/exact_match",
    "own/wer",
    "own/per",
    "own/cer",
    "own/bleu",
    "own/chrf",
    "gap",
)
"""A table's columns, as far as the runs have them: gold prefixes, own prefixes beside, the gap."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
      folder: where it is.
      schedule: what its row is called: the schedule's name, with the parameters in which the
        sweep's schedules of that name differ.
      seed: its seed.
      config: its resolved config, nested.
      metrics: final name -> value, NaN for none.
      records: the lines of its `metrics.jsonl`.
    """

    folder: Path
    schedule: str
    seed: int
    config: dict[str, Any]
    metrics: dict[str, float]
    records: list[dict[str, Any]]


@dataclass(frozen=True)
class Runs:
    """The runs of a sweep.

    Attributes:
      folder: the sweep's folder.
      compared: the runs that differ in schedule and seed alone, in the order of the rows.
      left_out: (folder below the sweep's, reason) of the others.
      notes: what else a reader of the table should know.
    """

    folder: Path
    compared: list[Run]
    left_out: list[tuple[str, str]]
    notes: list[str]

    @property
    def by_schedule(self) -> dict[str, list[Run]]:
        """Schedule -> its runs, in the order of the rows."""
        rows: dict[str, list[Run]] = defaultdict(list)
        for run in self.compared:
            rows[run.schedule].append(run)
        return dict(rows)


def collect(sweep_dir: str | Path) -> Runs:
    """Reads the runs `<sweep>/<schedule>/seed_<n>`.

    A run is compared if it has finished and its config differs from that of most others in nothing
    but `schedule` and `seed`; one seed counts once. Every other run is listed with the reason.

    Args:
      sweep_dir: the sweep's folder.

    Raises:
      LabError: the folder is missing or has no runs, the runs are of different tasks, or fewer
        than two can be compared.
    """
    folder = Path(sweep_dir)
    if not folder.is_dir():
        raise LabError(f"There is no folder {folder}: give the folder of a sweep.")
    if (folder / "config.json").exists():
        raise LabError(f"{folder} is one run: give the folder of the sweep that it is part of.")
    paths = sorted(
        path for path in folder.glob("*/seed_*") if any(path.glob("*.json*")) and path.is_dir()
    )
    if not paths:
        raise LabError(f"There are no runs in {folder}: looked for <schedule>/seed_<n> in it.")
    finished: list[Run] = []
    left_out: list[tuple[str, str]] = []
    notes: list[str] = []
    for path in paths:
        name = str(path.relative_to(folder))
        try:
            run, num_bad = _read_run(path)
        except LabError as error:
            left_out.append((name, str(error)))
            continue
        finished.append(run)
        if num_bad:
            plural = "lines of" if num_bad > 1 else "line of"
            notes.append(f"{num_bad} broken {plural} {name}/metrics.jsonl left out.")
    tasks = sorted({str(run.config["data"]["name"]) for run in finished})
    if len(tasks) > 1:
        raise LabError(f"The runs in {folder} are of different tasks: {', '.join(tasks)}.")
    compared, differing = _alike(finished, folder)
    left_out = sorted(left_out + differing)
    if len(compared) < 2:
        reasons = "".join(f" {name}: {reason}" for name, reason in left_out[:3])
        number = "only one run" if compared else "no run"
        raise LabError(
            f"Nothing can be compared: {number} in {folder} has finished and fits.{reasons}"
        )
    return Runs(folder, _named(compared), left_out, notes)


def compare(runs: Runs, metrics: Sequence[str] | None = None) -> DataFrame:
    """Schedules by metrics, with means and intervals over seeds.

    Args:
      runs: of `collect`.
      metrics: names such as "test/own/wer", or without the "test/", or "eval/" where the runs were
        not tested; None for those of `DEFAULT_METRICS` that any run has.

    Returns:
      One row a schedule, indexed by it: "n", the number of its runs, and for each metric
      "<name>/mean", "<name>/half_width" (of the 95 % t-interval; NaN below two seeds) and
      "<name>/n", the number of its runs that have a value.

    Raises:
      LabError: no run has a metric; those that there are, are named.
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


def metric_names(runs: Runs, metrics: Sequence[str] | None = None) -> list[str]:
    """The full names of the metrics asked for, or of the default ones; see `compare`."""
    there = sorted({name for run in runs.compared for name in run.metrics})
    prefix = "test/" if any(name.startswith("test/") for name in there) else "eval/"
    if metrics is None:
        names = [prefix + name for name in DEFAULT_METRICS if prefix + name in there]
        return names or there
    names = []
    for metric in metrics:
        if metric in there:
            names.append(metric)
        elif prefix + metric in there:
            names.append(prefix + metric)
        else:
            raise LabError(
                f"No run has a metric {metric}.{nearest(metric, there)} There are: "
                f"{', '.join(there) or 'none'}."
            )
    return list(dict.fromkeys(names))


def report(sweep_dir: str | Path, metrics: Sequence[str] | None = None) -> str:
    """Compares a sweep and leaves `compare.csv`, `.md`, `.tex` and three PNG plots in its folder.

    Everything is made before anything is written, and each file is written whole.

    Args:
      sweep_dir: the sweep's folder.
      metrics: see `compare`.

    Returns:
      The table as text, with the runs that were left out and the files written.

    Raises:
      LabError: nothing can be compared, or the files cannot be written.
    """
    from s2s_jax.lab import figures, plots, tables

    runs = collect(sweep_dir)
    frame = compare(runs, metrics)
    files: dict[str, str | bytes] = {
        "compare.csv": frame.to_csv(),
        "compare.md": tables.to_markdown(runs, frame),
        "compare.tex": tables.to_latex(runs, frame),
    }
    names = metric_names(runs, metrics)
    for name, figure in plots.make_figures(runs, names).items():
        files[f"{name}.png"] = figures.to_png(figure)
    for name, data in files.items():
        write_atomic(runs.folder / name, data)
    return f"{tables.to_text(runs, frame)}\nIn {runs.folder}: {', '.join(files)}\n"


def _read_run(folder: Path) -> tuple[Run, int]:
    """A finished run, and the number of broken lines in its record."""
    if not (folder / "result.json").exists():
        raise LabError("has not finished: there is no result.json.")
    result = read_json(folder / "result.json")
    status = result.get("status")
    if status != "finished":
        reason = result.get("error") or result.get("reason")
        raise LabError(f"its status is {status}" + (f": {reason}" if reason else "."))
    try:
        config = result["config"]
        seed = int(config["seed"])
        schedule = str(config["schedule"]["name"])
        str(config["data"]["name"])
        metrics = {
            str(name): math.nan if value is None else float(value)
            for name, value in result["metrics"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LabError(f"its result.json is not that of a run ({error!r}).") from error
    records, num_bad = [], 0
    if (folder / "metrics.jsonl").exists():
        records, num_bad = read_jsonl(folder / "metrics.jsonl")
    return Run(folder, schedule, seed, config, metrics, records), num_bad


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a nested config as (dotted key, JSON)."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value, sort_keys=True)


def _alike(runs: list[Run], folder: Path) -> tuple[list[Run], list[tuple[str, str]]]:
    """The runs of the most common config, schedule and seed aside, once a seed; and the others."""
    settings = [
        tuple(sorted(_flat({k: v for k, v in run.config.items() if k not in ("schedule", "seed")})))
        for run in runs
    ]
    if not runs:
        return [], []
    common = dict(Counter(settings).most_common(1)[0][0])
    alike, others = [], []
    seen: dict[tuple[int, str], str] = {}
    for run, setting in zip(runs, map(dict, settings), strict=True):
        name = str(run.folder.relative_to(folder))
        key = (run.seed, json.dumps(run.config["schedule"], sort_keys=True))
        if setting != common:
            differences = [
                f"{key} is {setting.get(key, 'missing')}, most runs have "
                f"{common.get(key, 'no such key')}"
                for key in sorted(setting | common)
                if setting.get(key) != common.get(key)
            ]
            others.append(
                (name, "differs in more than schedule and seed: " + "; ".join(differences))
            )
        elif key in seen:
            others.append((name, f"is {seen[key]} once more: the same schedule and seed."))
        else:
            seen[key] = name
            alike.append(run)
    return alike, others


def schedule_labels(schedules: Sequence[Mapping[str, Any]]) -> list[str]:
    """What to call schedules side by side: their name, with what tells those of one name apart.

    Args:
      schedules: the "schedule" section of each config.

    Example:
      >>> schedule_labels([{"name": "linear", "k": 0.9}, {"name": "linear", "k": 0.8}])
      ['linear (k=0.9)', 'linear (k=0.8)']
    """
    variants: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for schedule in schedules:
        for key, value in _flat(schedule):
            variants[schedule["name"]][key].add(value)

    def label(schedule: Mapping[str, Any]) -> str:
        name, values = schedule["name"], dict(_flat(schedule))
        keys = [key for key, found in variants[name].items() if len(found) > 1]
        told = ", ".join(f"{key}={values.get(key)}" for key in keys if values.get(key) != "null")
        return f"{name} ({told})" if told else name

    return [label(schedule) for schedule in schedules]


def schedule_order(label: str) -> tuple[int, str]:
    """The sorting key of a table's rows by their label."""
    name = label.split(" (")[0]
    known = name in SCHEDULE_ORDER
    return SCHEDULE_ORDER.index(name) if known else len(SCHEDULE_ORDER), label


def _named(runs: list[Run]) -> list[Run]:
    """The runs in the order of the rows, called by their schedule and what tells it from others."""
    labels = schedule_labels([run.config["schedule"] for run in runs])
    named = [replace(run, schedule=label) for run, label in zip(runs, labels, strict=True)]
    return sorted(named, key=lambda run: (*schedule_order(run.schedule), run.seed))
