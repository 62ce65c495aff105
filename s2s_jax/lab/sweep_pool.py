"""The processes of a sweep: so many at a time, each a run or a group, until all have ended."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from s2s_jax.lab.errors import LabError
from s2s_jax.lab.files import read_json
from s2s_jax.lab.processes import EXIT_OUT_OF_MEMORY
from s2s_jax.lab.sweep import PlannedRun
from s2s_jax.lab.sweep_display import Display, PlainDisplay
from s2s_jax.lab.sweep_groups import make_groups
from s2s_jax.lab.sweep_lines import RunState, last_error

_POLL_SECONDS = 0.5


@dataclass
class _Job:
    """A process, and the runs that it trains.

    Attributes:
      states: the runs'.
      process: it.
      log_begins: bytes that each run's log had before.
    """

    states: list[RunState]
    process: "subprocess.Popen[bytes]"
    log_begins: list[int]

    @property
    def running(self) -> list[RunState]:
        """The runs that have not ended."""
        return [one for one in self.states if one.status == "running"]


def run_sweep(
    plan: Sequence[PlannedRun],
    num_jobs: int,
    *,
    display: Display | None = None,
    groups: Sequence[Sequence[PlannedRun]] | None = None,
) -> list[str]:
    """Trains the runs of a plan that are not finished, each group in a process of its own.

    A run that fails does not stop the others. An interrupt is passed on to the running processes,
    which save a checkpoint; the same sweep goes on from there. A second interrupt does not wait for
    that. With several jobs each has its share of the machine's cores. A run's own output is in
    `<run folder>.log`. A group for which the memory does not suffice goes on as two of half the
    size, down to one run after another.

    Args:
      plan: of `plan_sweep`.
      num_jobs: processes at a time, at least 1.
      display: shows how the runs fare; by default lines on standard output.
      groups: of `make_groups`; by default every run is alone.

    Returns:
      The names of the runs that failed.

    Raises:
      LabError: num_jobs is below 1, or the sweep's folder cannot be written.
      KeyboardInterrupt: after the running processes have saved their checkpoints.
    """
    if num_jobs < 1:
        raise LabError(f"--jobs is {num_jobs}; it must be at least 1")
    states = [RunState(one, "finished" if one.status == "finished" else "waiting") for one in plan]
    known = {one.run.workdir: one for one in states}
    groups = make_groups(plan, 1) if groups is None else groups
    waiting = [[known[run.workdir] for run in group] for group in groups]
    num_jobs = min(num_jobs, len(waiting)) or 1
    display = display or PlainDisplay()
    jobs: list[_Job] = []
    try:
        display.begin(states, num_jobs * max(map(len, waiting), default=1))
        while waiting or jobs:
            while waiting and len(jobs) < num_jobs:
                jobs.append(_start(waiting.pop(0), num_jobs))
                for state in jobs[-1].states:
                    display.changed(state)
            display.tick()
            time.sleep(_POLL_SECONDS)
            for job in [one for one in jobs if one.process.poll() is not None]:
                jobs.remove(job)
                if _lacked_memory(job):
                    waiting[:0] = _halves(job, display)
                    continue
                for state in _end(job):
                    display.changed(state)
            for job in jobs:
                for state in _ended_lanes(job):
                    display.changed(state)
    except KeyboardInterrupt:
        display.stopping()
        _stop(jobs)
        for job in jobs:
            for state in _end(job):
                if state.status == "failed" and _was_stopped(job, state):
                    state.status, state.reason = "stopped", ""
        display.close()
        raise
    finally:
        # Whatever else went wrong, no process is left behind.
        _stop(jobs)
    display.close()
    return [one.run.name for one in states if one.status == "failed"]


def _start(states: list[RunState], num_jobs: int) -> _Job:
    runs, environment = [one.run for one in states], dict(os.environ)
    # What it prints is in the log in the order in which it was said.
    environment["PYTHONUNBUFFERED"] = "1"
    if num_jobs > 1:
        # Processes that each take every core get in each other's way; XLA's threads go by this.
        environment["NPROC"] = str(max(1, (os.cpu_count() or 1) // num_jobs))
    command = ["s2s_jax.lab.cli", *runs[0].arguments]
    if len(runs) > 1:  # what it says of each run goes to that run's log by itself
        command = ["s2s_jax.lab.group_process", *(json.dumps(one.arguments) for one in runs)]
    folder = runs[0].workdir.parent
    try:
        begins = []
        for run in reversed(runs):  # the first one's log stays open
            folder = run.workdir.parent
            folder.mkdir(parents=True, exist_ok=True)
            with run.log_file.open("ab") as log:
                begins.insert(0, log.tell())
        with runs[0].log_file.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                # Ctrl-C in a terminal is for the sweep alone, which passes it on once.
                start_new_session=True,
            )
    except OSError as error:
        raise LabError(f"cannot write to {folder}: {error.strerror}") from error
    for state in states:
        state.status, state.reason, state.started_at = "running", "", time.time()
    return _Job(states, process, begins)


def _end(job: _Job) -> list[RunState]:
    """Notes how the runs of a process have ended that were still running; and returns them."""
    code, alone = job.process.returncode, len(job.states) == 1
    how = f"exit code {code}" if code > 0 else f"killed by {_signal_name(-code)}"
    ended = job.running
    for state in ended:
        if code == 0 if alone else _result(state).get("status") == "finished":
            state.status = "finished"
            continue
        state.status = "failed"
        said = last_error(state.run, job.log_begins[job.states.index(state)])
        failed_itself = not alone and _result(state).get("status") == "failed"
        state.reason = said if failed_itself else f"{how}: {said}" if said else how
    return ended


def _ended_lanes(job: _Job) -> list[RunState]:
    """The runs of a group that have ended while their process goes on with the others."""
    if len(job.states) == 1:
        return []
    ended = []
    for state in job.running:
        result = _result(state)
        if result.get("status") in ("finished", "failed"):
            state.status, state.reason = result["status"], result.get("error", "")
            ended.append(state)
    return ended


def _result(state: RunState) -> dict[str, Any]:
    """What a run has written of its end since it was started; {} before."""
    path = state.run.workdir / "result.json"
    try:
        return read_json(path) if path.stat().st_mtime >= state.started_at - 0.1 else {}
    except (OSError, LabError):
        return {}


def _was_stopped(job: _Job, state: RunState) -> bool:
    """Whether a run ended because it was asked to; one of a group may have failed before."""
    return len(job.states) == 1 or _result(state).get("status") != "failed"


def _lacked_memory(job: _Job) -> bool:
    """Whether a group ended since it was too large: by its own word, or by the system's."""
    return len(job.states) > 1 and job.process.returncode in (EXIT_OUT_OF_MEMORY, -signal.SIGKILL)


def _halves(job: _Job, display: Display) -> list[list[RunState]]:
    """What is left of a group, as two groups that wait."""
    left = job.running
    for state in left:
        state.status = "waiting"
    middle = -(-len(left) // 2)
    lanes = f"{middle} lanes at a time" if middle > 1 else "one run after another"
    display.note(f"out of memory with {len(job.states)} lanes; going on with {lanes}")
    return [half for half in (left[:middle], left[middle:]) if half]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _stop(jobs: Sequence[_Job]) -> None:
    """Asks the processes to save and end, and waits; an interrupt meanwhile asks harder."""
    # `s2s train` ends at once at the second SIGTERM.
    asked = iter((signal.SIGTERM, signal.SIGTERM))
    while any(job.process.poll() is None for job in jobs):
        try:
            number = next(asked, signal.SIGKILL)
            for job in jobs:
                job.process.send_signal(number)
            for job in jobs:
                job.process.wait()
        except KeyboardInterrupt:
            continue
