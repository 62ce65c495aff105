"""The lines that describe a running sweep: one per run, the total, and why runs failed."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from s2s_jax.lab.runs.progress import RunProgress, read_progress
from s2s_jax.lab.sweeps.log_errors import error_of
from s2s_jax.lab.sweeps.plan import PlannedRun

_IMPORTANT = ("running", "failed", "stopped", "waiting", "finished")
"""Which runs are shown first if the terminal has too few rows."""


@dataclass(eq=False)
class RunState:
    """The state of a run in a running sweep.

    Attributes:
      run: the run as planned.
      status: "waiting", "running", "finished", "failed" or "stopped".
      reason: why it failed, or why it waits.
      started_at: in seconds since the epoch; 0 before it starts.
      log_begin: number of bytes in its log that are from earlier attempts.
      progress: the progress that was read last.
    """

    run: PlannedRun
    status: str
    reason: str = ""
    started_at: float = 0.0
    log_begin: int = 0
    progress: RunProgress = field(default_factory=RunProgress)

    def look(self) -> None:
        """Reads the run's progress."""
        self.progress = read_progress(self.run.workdir, self.run.score)

    @property
    def steps_left(self) -> int:
        """The number of updates still to make."""
        return max(0, self.run.num_steps - self.progress.step)

    def seconds_left(self, now: float) -> float:
        """How long a running run will still take; NaN if it has not logged since it started."""
        if self.status != "running" or self.progress.logged_at < self.started_at:
            return math.nan
        rest = self.steps_left * self.progress.seconds_per_step
        return max(0.0, rest - (now - self.progress.logged_at))


def live_lines(states: Sequence[RunState], num_jobs: int, now: float, max_runs: int) -> list[str]:
    """One line per run with its step, its score and the time left; and the total.

    Args:
      states: the runs.
      num_jobs: number of runs at a time.
      now: in seconds since the epoch.
      max_runs: maximum number of runs to show.
    """
    chosen = sorted(states, key=lambda one: _IMPORTANT.index(one.status))[:max_runs]
    shown = set(map(id, chosen))
    names = max((len(one.run.name) for one in chosen), default=0)
    steps = max((len(_steps(one)) for one in chosen), default=0)
    scores = max((len(_score(one)) for one in chosen), default=0)
    lines = [
        f"{one.run.name:{names}}  {one.status:8}  {_steps(one):>{steps}}  {_score(one):{scores}}"
        f"  {_note(one, now)}".rstrip()
        for one in states
        if id(one) in shown
    ]
    return [*lines, _total(states, num_jobs, now)]


def failures(states: Sequence[RunState]) -> list[str]:
    """The runs that failed, each with its reason; empty if none did."""
    failed = [one for one in states if one.status == "failed"]
    if not failed:
        return []
    return [
        f"{len(failed)} of {len(states)} runs failed:",
        *(f"  {one.run.name}: {one.reason} (full log: {one.run.log_file})" for one in failed),
    ]


def last_error(state: RunState) -> str:
    """Why a run that has ended failed; see `error_of`; "" if it has printed nothing."""
    return error_of(last_lines(state, 100_000))


def last_lines(state: RunState, num_bytes: int = 4000) -> list[str]:
    """The last lines that a run has printed since it started, at most num_bytes of them."""
    try:
        with state.run.log_file.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(state.log_begin, size - num_bytes))
            return log.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return []


def _steps(state: RunState) -> str:
    step, total = state.progress.step, state.run.num_steps
    return f"{step:,}/{total:,}" if step or state.status == "running" else ""


def _score(state: RunState) -> str:
    if math.isnan(state.progress.score):
        return ""
    metric = state.run.catalog.describe(state.run.score)
    return f"{metric.label} {metric.text(state.progress.score)}"


def _note(state: RunState, now: float) -> str:
    if state.status in ("failed", "waiting"):
        return state.reason
    if state.status == "finished":
        seconds = state.progress.seconds
        return "" if math.isnan(seconds) else f"in {_clock(seconds)}"
    if state.status != "running":
        return ""
    left = state.seconds_left(now)
    return "starting" if math.isnan(left) else f"{_clock(left)} left"


def _total(states: Sequence[RunState], num_jobs: int, now: float) -> str:
    counts = Counter(one.status for one in states)
    others = [
        f"{counts[name]} {name}"
        for name in ("failed", "running", "stopped", "waiting")
        if counts[name]
    ]
    line = ", ".join([f"{counts['finished']} of {len(states)} runs done", *others])
    left = _seconds_left(states, num_jobs, now)
    return line if math.isnan(left) else f"{line}; about {_clock(left)} left"


def _seconds_left(states: Sequence[RunState], num_jobs: int, now: float) -> float:
    """The time for all remaining updates, at the mean rate of the runs whose rate is known."""
    rates = [rate for one in states if math.isfinite(rate := one.progress.seconds_per_step)]
    todo = [one for one in states if one.status in ("running", "waiting")]
    if not rates or not todo:
        return math.nan
    rate = sum(rates) / len(rates)
    seconds = []
    for one in todo:
        left = one.seconds_left(now)
        seconds.append(one.steps_left * rate if math.isnan(left) else left)
    return max(*seconds, sum(seconds) / num_jobs) if len(seconds) > 1 else seconds[0]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
