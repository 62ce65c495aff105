"""The progress of a run, read from its `metrics.jsonl` while it trains."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2s_jax.data.json_shapes import parse
from s2s_jax.lab.runs.result_shapes import METRICS_FILE, METRICS_LINE

_READ_BYTES = 65536
"""How much to read at each end of the file, since a long file must not be read repeatedly."""


@dataclass(frozen=True)
class RunProgress:
    """The progress of a run.

    Attributes:
      step: the last logged step.
      score: the last value of its score; NaN before the first evaluation.
      seconds: the time taken up to that step; NaN if not known.
      seconds_per_step: without compilation; NaN if not known.
      logged_at: when the file was last written, in seconds since the epoch; 0 for never.
    """

    step: int = 0
    score: float = math.nan
    seconds: float = math.nan
    seconds_per_step: float = math.nan
    logged_at: float = 0.0


def read_progress(workdir: Path, score: str) -> RunProgress:
    """The progress of a run; broken and incomplete lines are ignored.

        seconds_per_step = (seconds_last - seconds_first) / (step_last - step_first)

    Args:
      workdir: the run's folder, which need not exist.
      score: the metric to show, such as "eval/own/wer".
    """
    path = workdir / METRICS_FILE
    try:
        with path.open("rb") as file:
            head = file.read(_READ_BYTES)
            size = file.seek(0, 2)
            file.seek(max(len(head), size - _READ_BYTES))
            tail = file.read()
            logged_at = path.stat().st_mtime
    except OSError:
        return RunProgress()
    step, value, seconds, compiling = 0, math.nan, math.nan, 0.0
    points: list[tuple[int, float]] = []
    for record in _records(head + b"\n" + tail):
        step = max(step, record["step"])
        value = _number(record.get(score), value)
        compiling = _number(record.get("train/compile_seconds"), compiling)
        # Step 0 ends after the time that compilation took.
        otherwise = compiling if record["step"] == 0 else seconds
        seconds = _number(record.get("train/seconds"), otherwise)
        if math.isfinite(seconds - compiling):
            points.append((record["step"], seconds - compiling))
    rate = math.nan
    if points and points[-1][0] > points[0][0]:
        rate = (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])
    return RunProgress(step, value, seconds, rate, logged_at)


def _records(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        try:
            yield parse(line, METRICS_LINE)
        except ValueError:
            continue


def _number(value: Any, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) else otherwise
