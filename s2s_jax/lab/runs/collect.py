"""Collects the runs in a sweep's folder: those that can be compared, and why others cannot."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.files import read_json, read_jsonl
from s2s_jax.lab.base.markup import visible
from s2s_jax.lab.base.metric_catalog import CATALOG, Catalog, Metric
from s2s_jax.lab.runs.labels import json_leaves, row_labels, schedule_order
from s2s_jax.lab.runs.provenance import Provenance, differing_data, differing_vocabularies
from s2s_jax.lab.runs.result_shapes import ENDING, METRICS_FILE, METRICS_LINE, RESULT


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
      folder: the run's folder.
      schedule: the label of its row: the schedule's name, the parameters in which the sweep's
        schedules of that name differ, and `varied`.
      seed: its seed.
      config: its resolved config, nested.
      metrics: the final metrics by name; NaN for a missing value.
      records: the lines of its `metrics.jsonl`.
      varied: (key, value as JSON) of everything the sweep varies besides schedule and seed.
      overrides: the values that its command or its sweep set, by dotted key.
      num_steps: the number of updates that it made.
      wall_seconds: the time that it took; NaN if not known.
      provenance: what else its metrics depend on; None if that was not recorded.
      versions: of the packages when it ended.
      score_metrics: how the scores of its scorer are shown, the headline first; empty if that was
        not recorded.
      started_from: the run that it started from, see `STARTED_FROM`; None for a start from scratch.
      teacher: the run that was its teacher, likewise; None without one.
    """

    folder: Path
    schedule: str
    seed: int
    config: dict[str, Any]
    metrics: dict[str, float]
    records: list[dict[str, Any]]
    varied: tuple[tuple[str, str], ...] = ()
    overrides: dict[str, Any] = field(default_factory=dict)
    num_steps: int = 0
    wall_seconds: float = math.nan
    provenance: Provenance | None = None
    versions: dict[str, str] = field(default_factory=dict)
    score_metrics: tuple[Metric, ...] = ()
    started_from: dict[str, Any] | None = None
    teacher: dict[str, Any] | None = None


@dataclass(frozen=True)
class CollectedRuns:
    """The runs of a sweep.

    Attributes:
      folder: the sweep's folder.
      compared: the runs that differ only in schedule, seed and what the sweep varies, in the order
        of the rows.
      left_out: (folder relative to the sweep's, reason) for the others.
      notes: other remarks for readers of the table.
    """

    folder: Path
    compared: list[FinishedRun]
    left_out: list[tuple[str, str]]
    notes: list[str]

    @property
    def by_schedule(self) -> dict[str, list[FinishedRun]]:
        """Row label -> its runs, in the order of the rows."""
        rows: dict[str, list[FinishedRun]] = defaultdict(list)
        for run in self.compared:
            rows[run.schedule].append(run)
        return dict(rows)

    @property
    def catalog(self) -> Catalog:
        """How the runs' metrics are shown: the lab's catalogue with the runs' own scores."""
        return CATALOG.with_scores(one for run in self.compared for one in run.score_metrics)


def collect(sweep_dir: str | Path) -> CollectedRuns:
    """Reads the runs `<sweep>/<schedule>/seed_<n>`.

    A run is compared if it has finished and its config differs from that of most others only in
    `schedule`, `seed` and the keys that the sweep itself varies. The latter are the overrides in
    folder names such as `linear,coin=sequence/seed_0`. Each combination of them is a row, in which
    each seed counts once. The data, vocabularies, the user's own modules and JAX switches must also
    be those of most other runs. All other runs are listed with the reason.

    Args:
      sweep_dir: the sweep's folder.

    Raises:
      LabError: the folder is missing or has no runs, the runs are of different tasks, or fewer
        than two can be compared.
    """
    folder = Path(sweep_dir)
    if not folder.is_dir():
        raise LabError(f"there is no folder {folder}; give the folder of a sweep")
    if (folder / "config.json").exists():
        raise LabError(f"{folder} is a single run; give the folder of its sweep")
    paths = run_folders(folder)
    if not paths:
        raise LabError(f"there are no runs in {folder}; looked for <schedule>/seed_<n> in it")
    finished: list[FinishedRun] = []
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
        raise LabError(f"the runs in {folder} are of different tasks: {', '.join(tasks)}")
    compared, differing = _alike(finished, folder)
    compared, of_others = _of_one_provenance(compared, folder)
    left_out = sorted(left_out + differing + of_others)
    notes += _provenance_notes(compared)
    if len(compared) < 2:
        reasons = "".join(f"; {name}: {reason}" for name, reason in left_out[:3])
        number = "only one run" if compared else "no run"
        raise LabError(
            f"nothing can be compared: {number} in {folder} has finished and is comparable{reasons}"
        )
    return CollectedRuns(folder, _named(compared), left_out, notes)


def run_folders(sweep_dir: Path) -> list[Path]:
    """The folders `<schedule>/seed_<n>` of a sweep that contain a run, finished or not."""
    return sorted(
        path for path in sweep_dir.glob("*/seed_*") if any(path.glob("*.json*")) and path.is_dir()
    )


def finished_result(folder: Path) -> dict[str, Any]:
    """The `result.json` of a finished run.

    Raises:
      LabError: the run has not finished; the message is only the reason, without the folder.
    """
    if not (folder / "result.json").exists():
        raise LabError("has not finished: there is no result.json")
    result = read_json(folder / "result.json", ENDING)
    if result["status"] != "finished":
        reason = result.get("error")
        raise LabError(f"its status is {result['status']}" + (f": {reason}" if reason else ""))
    result = read_json(folder / "result.json", RESULT)
    steps, train = result["steps"], result["config"].get("train")
    asked = train.get("num_steps", steps) if isinstance(train, dict) else steps
    if steps != asked:
        raise LabError(f"its status is finished after {steps} of {asked} updates")
    return result


def left_out_lines(left_out: Sequence[tuple[str, str]]) -> list[str]:
    """The lines that list left out runs, given as (folder, reason); empty if there are none.

    Example:
      >>> left_out_lines([("linear/seed_0", "its status is stopped")])
      ['Left out (1):', '  linear/seed_0: its status is stopped']
    """
    lines = [visible(f"  {name}: {reason}") for name, reason in left_out]
    return [f"Left out ({len(left_out)}):", *lines] if lines else []


def _read_run(folder: Path) -> tuple[FinishedRun, int]:
    """A finished run, and the number of broken lines in its `metrics.jsonl`."""
    result = finished_result(folder)
    records, num_bad = [], 0
    if (folder / METRICS_FILE).exists():
        records, num_bad = read_jsonl(folder / METRICS_FILE, METRICS_LINE)
    config, provenance = result["config"], result.get("provenance")
    run = FinishedRun(
        folder,
        config["schedule"]["name"],
        config["seed"],
        config,
        {
            name: math.nan if value is None else float(value)
            for name, value in result["metrics"].items()
        },
        records,
        overrides=result.get("overrides", {}),
        num_steps=result["steps"],
        wall_seconds=float(result["wall_seconds"]),
        provenance=Provenance.from_dict(provenance) if provenance else None,
        versions=result.get("versions", {}),
        score_metrics=_score_metrics(folder, result),
        started_from=result.get("started_from"),
        teacher=result.get("teacher"),
    )
    return run, num_bad


def _score_metrics(folder: Path, result: Mapping[str, Any]) -> tuple[Metric, ...]:
    """How a run's own scores are shown, with escaped texts.

    Raises:
      LabError: the recorded metrics are invalid.
    """
    try:
        return tuple(
            Metric.from_dict(
                {key: visible(one) if isinstance(one, str) else one for key, one in kept.items()}
            )
            for kept in result.get("score_metrics", ())
        )
    except ValueError as error:
        raise LabError(f"{folder / 'result.json'} is damaged: score_metrics: {error}") from error


def _of_one_provenance(
    runs: list[FinishedRun], folder: Path
) -> tuple[list[FinishedRun], list[tuple[str, str]]]:
    """The runs with the data, vocabularies, modules and switches of most; the others with a reason.

    Since a sweep may vary its data, only runs with the same data section are checked against each
    other. A run that did not record its data is compared. Of the user's own modules, those that
    runs have in common must be the same.
    """
    switches = _usual([one.provenance.switches for one in runs if one.provenance])
    versions: dict[str, list[dict[str, str]]] = defaultdict(list)
    for run in runs:
        for name, about in (run.provenance.code if run.provenance else {}).items():
            versions[name].append({"fingerprint": about["fingerprint"]})
    code = {name: _usual(some)["fingerprint"] for name, some in versions.items()}
    alike, others = [], []
    for run in runs:
        own = run.provenance
        if own is None:
            alike.append(run)
            continue
        beside = [
            one.provenance
            for one in runs
            if one.provenance and one.config["data"] == run.config["data"]
        ]
        reasons = [
            differing_data(_usual([one.data for one in beside]), own.data),
            differing_vocabularies(_usual([one.vocabularies for one in beside]), own.vocabularies),
        ]
        modules = [name for name, about in own.code.items() if about["fingerprint"] != code[name]]
        reasons.append(f"code ({', '.join(modules)})" if modules else "")
        told = [f"most runs had other {one}" for one in reasons if one]
        told += [
            f"{name} is {own.switches.get(name)}, most runs have {value}"
            for name, value in switches.items()
            if own.switches.get(name) != value
        ]
        if told:
            others.append((str(run.folder.relative_to(folder)), "; ".join(told)))
        else:
            alike.append(run)
    return alike, others


def _usual(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The most common record; the first one of equally common ones."""
    counts = Counter(tuple(sorted(one.items())) for one in records)
    return dict(counts.most_common(1)[0][0]) if counts else {}


def _provenance_notes(runs: Sequence[FinishedRun]) -> list[str]:
    """Notes on runs whose data are not known, and on versions that differ."""
    unknown = sum(run.provenance is None for run in runs)
    notes = []
    if 0 < unknown < len(runs):
        plural = "runs" if unknown > 1 else "run"
        notes.append(f"{unknown} {plural} did not record which data they were trained on.")
    names = sorted({name for run in runs for name in run.versions})
    found = {name: {run.versions.get(name, "none") for run in runs} for name in names}
    told = [f"{name} {' or '.join(sorted(some))}" for name, some in found.items() if len(some) > 1]
    if told:
        notes.append(f"The runs are of different versions: {', '.join(told)}.")
    return notes


def _varied_keys(runs: Sequence[FinishedRun]) -> list[str]:
    """The keys that the sweep varies besides schedule and seed: the overrides in folder names.

    See `names.row_name`. An override that is in no folder name was given to all runs, or to one run
    by hand; in a folder that is named after a method, every override belongs to the method. The
    BLEU tokenizer does not count, since scores with different ones are not comparable.
    """
    return sorted(
        {
            key
            for run in runs
            for key in run.overrides
            if key not in ("seed", "eval.bleu_tokenize") and not key.startswith("schedule.")
            if run.overrides.get("method")
            or f",{key.rsplit('.', 1)[-1]}=" in run.folder.parent.name
        }
    )


def _alike(
    runs: list[FinishedRun], folder: Path
) -> tuple[list[FinishedRun], list[tuple[str, str]]]:
    """The runs with the most common config, apart from what the sweep varies; the others.

    Each seed is kept once per row. The runs that are kept have their `varied` set.
    """
    if not runs:
        return [], []
    varied = _varied_keys(runs)
    flat = [dict(json_leaves(run.config)) for run in runs]
    settings = [
        {
            key: value
            for key, value in one.items()
            if key != "seed" and not key.startswith("schedule.") and key not in varied
        }
        for one in flat
    ]
    common = dict(Counter(tuple(sorted(one.items())) for one in settings).most_common(1)[0][0])
    alike, others = [], []
    seen: dict[tuple[Any, ...], str] = {}
    for run, values, setting in zip(runs, flat, settings, strict=True):
        name = str(run.folder.relative_to(folder))
        own = tuple((key, values[key]) for key in varied if key in values)
        identity = (run.seed, json.dumps(run.config["schedule"], sort_keys=True), own)
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
        elif identity in seen:
            others.append((name, f"repeats {seen[identity]}: the same schedule and seed"))
        else:
            seen[identity] = name
            alike.append(replace(run, varied=own))
    constant = {key for key in varied if len({dict(run.varied).get(key) for run in alike}) == 1}
    return [
        replace(run, varied=tuple(one for one in run.varied if one[0] not in constant))
        for run in alike
    ], others


def _named(runs: list[FinishedRun]) -> list[FinishedRun]:
    """The runs in the order of the rows, with their labels in `schedule`."""
    labels = row_labels([run.config for run in runs], [run.varied for run in runs])
    named = [
        replace(
            run,
            schedule=label,
            metrics={visible(name): value for name, value in run.metrics.items()},
        )
        for run, label in zip(runs, labels, strict=True)
    ]
    return sorted(named, key=lambda run: (*schedule_order(run.schedule), run.seed))
