"""Logs a run's progress: `metrics.jsonl`, and TensorBoard's event files."""

# TensorBoard's message classes are created at import, so a type checker does not see them.
# pyright: reportAttributeAccessIssue=false

import contextlib
import functools
import io
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import (
    Summary,
    SummaryMetadata,
)
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from s2s_jax.data.json_shapes import parse
from s2s_jax.lab.base.errors import writing
from s2s_jax.lab.base.files import to_json, write_atomic
from s2s_jax.lab.base.metric_catalog import CATALOG, Catalog
from s2s_jax.lab.runs.result_shapes import METRICS_FILE, METRICS_LINE

_EVENT_FILES = "events.out.tfevents.*"
_HPARAMS_TAGS = "_hparams_/"


class Tracker:
    """Writes one run's scalars, texts, images and hyperparameters to its folder.

    A scalar goes to two places: to a line of `metrics.jsonl`, which has been handed to the system
    when `scalars` returns, and to TensorBoard's writer, which may buffer it until `flush`. Flush
    before every checkpoint, so that everything logged up to its step survives a kill.

    A run that resumes at step n opens its tracker with `resume_step=n`. Everything from later
    steps, which the run is about to log again, is removed from both places, so that a resumed run's
    `metrics.jsonl` equals that of a run that was never stopped (except for measured times) and
    TensorBoard shows no step twice. The events that are kept are moved to a new file, and the old
    files are deleted. TensorBoard's own mark of a resumption, a session start, would not work: its
    data server ignores it, and so does its Python backend for scalars in today's format. The data
    server, which `tensorboard` uses by default, notices the change while it is running; the Python
    backend has to be restarted.

    Args:
      workdir: the run's folder, created if missing. TensorBoard names the run by its path relative
        to the log directory, `<schedule>/seed_<n>` in a sweep.
      resume_step: the step of the checkpoint from which the run continues; None for a run that
        starts from the beginning and removes what an earlier attempt has logged.

    Raises:
      LabError: the folder cannot be written to.
    """

    def __init__(self, workdir: str | Path, resume_step: int | None = None):
        self._folder = Path(workdir)
        self._has_hparams = False
        self._closed = False
        _quiet_writers()
        last_step = -1 if resume_step is None else resume_step
        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=True)
            _cut_metrics(self._folder / METRICS_FILE, last_step)
            old_files = sorted(self._folder.glob(_EVENT_FILES))
            kept = _kept_events(old_files, last_step)
            self._writer = EventFileWriter(str(self._folder), flush_secs=10)
            for event in kept:
                self._writer.add_event(event)
            self._writer.flush()
            for path in old_files:
                path.unlink()
            self._metrics = (self._folder / METRICS_FILE).open("a", buffering=1, encoding="utf-8")

    def scalars(self, step: int, values: Mapping[str, Any], catalog: Catalog = CATALOG) -> None:
        """Logs the values of one step: a line of `metrics.jsonl`, and points in TensorBoard.

        The line has the stored values; TensorBoard has them as shown, with percentages in percent.

        Args:
          step: the training step.
          values: name -> number or scalar array; NaN and the infinities become null in
            `metrics.jsonl`.
          catalog: how they are shown.
        """
        numbers = {name: float(value) for name, value in values.items()}
        line = json.dumps({"step": int(step)} | to_json(numbers), allow_nan=False)
        with self._writing():
            self._metrics.write(line + "\n")
        summary = Summary()
        for name, number in numbers.items():
            metric = catalog.describe(name)
            metadata = scalar_metadata.create_summary_metadata(
                display_name=name, description=metric.axis_label
            )
            tensor = TensorProto(
                dtype=DT_FLOAT,
                tensor_shape=TensorShapeProto(),
                float_val=[np.float32(metric.scale * number)],
            )
            summary.value.add(tag=name, tensor=tensor, metadata=metadata)
        self._add(step, summary)

    def text(self, step: int, tag: str, markdown: str) -> None:
        """Logs a text.

        Args:
          step: the training step.
          tag: its name in TensorBoard.
          markdown: the text, which TensorBoard renders as Markdown.
        """
        metadata = text_metadata.create_summary_metadata(display_name=tag, description="")
        self._add_strings(step, tag, metadata, [markdown.encode()])

    def image(self, step: int, tag: str, pixels: np.ndarray | bytes) -> None:
        """Logs an image.

        Args:
          step: the training step.
          tag: its name in TensorBoard.
          pixels: [height, width, 3] uint8, or the bytes of a PNG file.
        """
        if isinstance(pixels, bytes):
            png = pixels
            width, height = Image.open(io.BytesIO(png)).size
        else:
            height, width, _ = pixels.shape
            file = io.BytesIO()
            Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "PNG")
            png = file.getvalue()
        metadata = image_metadata.create_summary_metadata(display_name=tag, description="")
        size = [str(width).encode(), str(height).encode()]
        self._add_strings(step, tag, metadata, [*size, png])

    def hparams(self, hparams: Mapping[str, Any], trial_id: str) -> None:
        """Enters the run into TensorBoard's HPARAMS table.

        The runs with the same `trial_id` are one row, whose metrics are the means of their last
        scalars. TensorBoard shows the hyperparameters of an arbitrary one of them, so `hparams`
        should be what they have in common, without the seed. The metrics to show are chosen in the
        table. They are not listed in every run (in an Experiment message), since TensorBoard would
        use the list of a single run, with its hyperparameter values, and hide the other schedules.

        Args:
          hparams: name -> bool, number or string; anything else is converted to a string.
          trial_id: what the runs of a row have in common, such as the schedule.
        """
        start = plugin_data_pb2.SessionStartInfo(
            group_name=trial_id, start_time_secs=time.time(), model_uri=""
        )
        for name, value in sorted(hparams.items()):
            if isinstance(value, np.generic):
                value = value.item()
            if isinstance(value, bool):
                start.hparams[name].bool_value = value
            elif isinstance(value, int | float):
                start.hparams[name].number_value = value
            else:
                start.hparams[name].string_value = str(value)
        data = plugin_data_pb2.HParamsPluginData(session_start_info=start)
        self._add_hparams(hparams_metadata.SESSION_START_INFO_TAG, data)
        self._has_hparams = True

    def flush(self) -> None:
        """Hands everything logged so far to the operating system, so that it survives a kill."""
        with self._writing():
            self._metrics.flush()
            self._writer.flush()

    def close(self, failed: bool = False) -> None:
        """Ends the session in the HPARAMS table and closes the files; a second call does nothing.

        Args:
          failed: whether the run ended early.
        """
        if self._closed:
            return
        self._closed = True
        if self._has_hparams:
            status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
            end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
            data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
            self._add_hparams(hparams_metadata.SESSION_END_INFO_TAG, data)
        with self._writing():
            self._metrics.close()
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(failed=kind is not None)

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return writing(f"to {self._folder}")

    def _add(self, step: int, summary: Summary) -> None:
        with self._writing():
            self._writer.add_event(Event(step=int(step), wall_time=time.time(), summary=summary))

    def _add_strings(
        self, step: int, tag: str, metadata: SummaryMetadata, strings: list[bytes]
    ) -> None:
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(strings))])
        tensor = TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=strings)
        self._add(step, Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)]))

    def _add_hparams(self, tag: str, data: plugin_data_pb2.HParamsPluginData) -> None:
        metadata = hparams_metadata.create_summary_metadata(data)
        value = Summary.Value(tag=tag, tensor=hparams_metadata.NULL_TENSOR, metadata=metadata)
        self._add(0, Summary(value=[value]))


@functools.cache
def _quiet_writers() -> None:
    """Keeps threads of TensorBoard's writer from printing errors, such as a full disk.

    The writer raises the error again at the next event or flush.
    """
    shown = threading.excepthook

    def show(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("tensorboard."):
            shown(failure)

    threading.excepthook = show


def _cut_metrics(path: Path, last_step: int) -> None:
    """Removes lines of steps after `last_step`, and incomplete lines, from a file."""
    if not path.exists():
        return
    old = path.read_bytes()
    new = b"".join(line for line in old.splitlines(keepends=True) if _step(line) <= last_step)
    if new != old:
        write_atomic(path, new)


def _step(line: bytes) -> float:
    """The step of a line of `metrics.jsonl`; infinite if the line is incomplete."""
    try:
        return parse(line, METRICS_LINE)["step"] if line.endswith(b"\n") else float("inf")
    except ValueError:
        return float("inf")


def _kept_events(paths: list[Path], last_step: int) -> Iterator[Event]:
    """The summaries up to `last_step`, without duplicates or those of the HPARAMS table."""
    kept: dict[tuple[int, tuple[str, ...]], Event] = {}
    for path in paths:
        for event in LegacyEventFileLoader(str(path)).Load():
            tags = tuple(value.tag for value in event.summary.value)
            if tags and event.step <= last_step and not tags[0].startswith(_HPARAMS_TAGS):
                kept[event.step, tags] = event
    return iter(sorted(kept.values(), key=lambda event: event.step))
