"""What a comparison adds to a sweep's TensorBoard: curves over seeds, a layout, the metrics.

In the folder `over_seeds` each schedule has a TensorBoard run with the mean, the lowest and the
highest seed of its curves. One of them also holds the layout of the custom scalars and the names of
the metrics in the HPARAMS table, once for the sweep. The files have fixed names and the same
content for the same runs, so that comparing again does not duplicate anything.
"""

# TensorBoard's message classes are created at import, so a type checker does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Collection, Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.summary.writer.record_writer import RecordWriter

from s2s_jax.lab.base.markup import visible
from s2s_jax.lab.base.metric_catalog import ACCURACIES, GAP, Catalog
from s2s_jax.lab.comparison.plots import curve
from s2s_jax.lab.runs.names import HPARAM_NAMES, trial_of

if TYPE_CHECKING:
    from s2s_jax.lab.runs.collect import CollectedRuns, FinishedRun

FOLDER = "over_seeds"
"""Below the sweep's folder."""

_FILE = "events.out.tfevents.0000000000.compare"
_MOST_BYTES = 200
"""The limit for a folder's name; file systems allow 255, and the name of a copy may be longer."""

_PARTS = ("mean", "low", "high")
_CURVES = (*ACCURACIES, GAP)
_MISSING = object()


def address(port: int = 6006) -> str:
    """The address of the page with the time series, coloured by schedule.

    Example:
      >>> address().partition("?")[0]
      'http://localhost:6006/'
    """
    # TensorBoard's own syntax: runs with the same groups of this expression share a colour.
    group = quote(f"regex:(?:{FOLDER}/)?([^/]+)", safe="")
    return f"http://localhost:{port}/?runColorGroup={group}#timeseries"


def event_files(runs: CollectedRuns, metrics: Sequence[str]) -> dict[str, bytes]:
    """The event files of a comparison: path below the sweep's folder -> content.

    Args:
      runs: from `collect`.
      metrics: full names of the final metrics that the HPARAMS table shows, the headline first.
    """
    files: dict[str, bytes] = {}
    rows = runs.by_schedule
    time = max(_written(run.folder) for run in runs.compared)
    score, catalog = _score(runs), runs.catalog
    for label, members in rows.items():
        events = []
        for name in [*_CURVES, *([score] if score else [])]:
            steps, values = curve(members, f"eval/{name}")
            metric = catalog.describe(name)
            values = metric.scale * values
            known = np.isfinite(values).all(0) if len(steps) else np.zeros(0, bool)
            for step, column in zip(steps[known], values[:, known].T, strict=True):
                points = (column.mean(), column.min(), column.max())
                events.append(_scalars(name, int(step), points, metric.axis_label, time))
        if not events:
            continue
        if not files:
            events = [_layout(score, catalog, time), _experiment(runs, metrics, time), *events]
        files[_file_of(label, files)] = _records(events, time)
    return files


def _file_of(label: str, taken: Container[str]) -> str:
    """A row's event file, in a valid and unused folder below `FOLDER`."""
    name = re.sub(r"[^\w.,=+-]+", "_", label).strip("._") or "row"
    short = name.encode()[:_MOST_BYTES].decode(errors="ignore")
    names = itertools.chain([short], (f"{short}-{number}" for number in itertools.count(2)))
    paths = (f"{FOLDER}/{one}/{_FILE}" for one in names)
    return next(path for path in paths if path not in taken)


def remove_others(sweep_dir: Path, files: Collection[str]) -> None:
    """Removes the files of an earlier comparison for rows that no longer exist.

    Args:
      sweep_dir: the sweep's folder.
      files: the names from `event_files`, which are kept.
    """
    for path in sweep_dir.glob(f"{FOLDER}/*/{_FILE}"):
        if str(path.relative_to(sweep_dir)) not in files:
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


def _written(folder: Path) -> float:
    """When a run's result was written, which is the same for every comparison of the run."""
    path = folder / "result.json"
    return path.stat().st_mtime if path.exists() else 0.0


def _score(runs: CollectedRuns) -> str:
    """The headline metric in the records, such as "own/wer"; "" if there is none."""
    there = {name for run in runs.compared for record in run.records for name in record}
    found = runs.catalog.headline(sorted(name for name in there if name.startswith("eval/")))
    return found.removeprefix("eval/") if found else ""


def _records(events: Sequence[Any], time: float) -> bytes:
    file = io.BytesIO()
    writer = RecordWriter(file)
    for event in [Event(wall_time=time, file_version="brain.Event:2"), *events]:
        writer.write(event.SerializeToString(deterministic=True))
    return file.getvalue()


def _titled(name: str, catalog: Catalog) -> str:
    """Such as "token accuracy (%), gold prefixes"."""
    metric = catalog.describe(name)
    return metric.axis_label + (f", {metric.prefixes} prefixes" if metric.prefixes else "")


def _scalars(name: str, step: int, points: Sequence[float], about: str, time: float) -> Any:
    summary = Summary()
    for part, value in zip(_PARTS, points, strict=True):
        tag = f"{FOLDER}/{name}/{part}"
        summary.value.add(
            tag=tag,
            tensor=TensorProto(
                dtype=DT_FLOAT, tensor_shape=TensorShapeProto(), float_val=[np.float32(value)]
            ),
            metadata=scalar_metadata.create_summary_metadata(display_name=tag, description=about),
        )
    return Event(step=step, wall_time=time, summary=summary)


def _layout(score: str, catalog: Catalog, time: float) -> Any:
    """Two categories: gold against own prefixes with margins; the schedule and the score."""
    layout = layout_pb2.Layout()
    margins = layout.category.add(title="Gold against own prefixes, over seeds")
    for name in [*_CURVES, *([score] if score else [])]:
        chart = margins.chart.add(title=f"{_titled(name, catalog)}: mean, lowest and highest seed")
        tags = (f"{FOLDER}/{name}/{part}" for part in _PARTS)
        chart.margin.series.add(**dict(zip(("value", "lower", "upper"), tags, strict=True)))
    against = layout.category.add(title="Schedule against score")
    for title, tags in (
        ("teacher_prob and the realised share of gold", ("train/teacher_prob", "train/gold_share")),
        (catalog.describe(_CURVES[0]).axis_label, [f"eval/{name}" for name in ACCURACIES]),
        (_titled(score, catalog) if score else "", [f"eval/{score}"]),
    ):
        if title:
            chart = against.chart.add(title=title)
            chart.multiline.tag.extend(f"^{re.escape(tag)}$" for tag in tags)
    tensor = TensorProto(
        dtype=DT_STRING,
        tensor_shape=TensorShapeProto(),
        string_val=[layout.SerializeToString(deterministic=True)],
    )
    value = Summary.Value(
        tag=layout_metadata.CONFIG_SUMMARY_TAG,
        tensor=tensor,
        metadata=layout_metadata.create_summary_metadata(),
    )
    return Event(step=0, wall_time=time, summary=Summary(value=[value]))


def _experiment(runs: CollectedRuns, metrics: Sequence[str], time: float) -> Any:
    """Declares the columns of the HPARAMS table.

    They are schedule, coin, feed and every other key that the sweep varies, each with its values,
    and the metrics. TensorBoard shows no key without a column here, even if the runs have it.
    """
    experiment = api_pb2.Experiment(name=runs.folder.resolve().name, time_created_secs=time)
    columns: dict[str, list[bool | float | str]] = {"schedule": []}
    for run in runs.compared:
        for name, value in _shown_hparams(run).items():
            columns.setdefault(name, []).append(value)
    for name, values in columns.items():
        kinds = set(map(type, values))
        known = {bool: api_pb2.DATA_TYPE_BOOL, float: api_pb2.DATA_TYPE_FLOAT64}
        # Mixed types are declared as text, but each value is listed as its runs have it, since the
        # table hides rows whose value is not listed.
        kind = known.get(kinds.pop()) if len(kinds) == 1 else None
        info = experiment.hparam_infos.add(name=name, type=kind or api_pb2.DATA_TYPE_STRING)
        info.domain_discrete.extend(sorted(set(values), key=lambda one: (str(type(one)), one)))
    for metric in metrics:
        shown = runs.catalog.describe(metric)
        unit = f" ({shown.unit})" if shown.unit else ""
        info = experiment.metric_infos.add(
            display_name=f"{shown.title}{unit}, {metric.split('/')[0]}", description=metric
        )
        info.name.tag = metric
    data = plugin_data_pb2.HParamsPluginData(experiment=experiment)
    value = Summary.Value(
        tag=hparams_metadata.EXPERIMENT_TAG,
        tensor=hparams_metadata.NULL_TENSOR,
        metadata=hparams_metadata.create_summary_metadata(data),
    )
    return Event(step=0, wall_time=time, summary=Summary(value=[value]))


def _shown_hparams(run: FinishedRun) -> dict[str, bool | float | str]:
    """The values of a run in the columns of the table: a bool, a number or a text each."""
    _, varied = trial_of(run.folder, str(run.config["schedule"]["name"]), run.overrides)
    shown: dict[str, bool | float | str] = {}
    for key in ("schedule.name", "rollout.coin", "rollout.feed", *sorted(varied)):
        value: Any = run.config
        for part in key.split("."):
            value = value.get(part, _MISSING) if isinstance(value, Mapping) else _MISSING
        if value is _MISSING:
            continue
        if isinstance(value, int | float):
            value = value if isinstance(value, bool) else float(value)
        else:
            value = visible(str(_restored(value)))
        shown[HPARAM_NAMES.get(key, key)] = value
    return shown


def _restored(value: Any) -> Any:
    """Turns the lists of a value from JSON back into the tuples of its config."""
    return tuple(map(_restored, value)) if isinstance(value, list) else value
