"""The processes of a sweep: so many at a time, each a run, until all have ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from s2s_jax.lab.errors import LabError
from s2s_jax.lab.sweep import PlannedRun
from s2s_jax.lab.sweep_display import Display, PlainDisplay
from s2s_jax.lab.sweep_lines import RunState, last_error

_POLL_SECONDS = 0.5


@dataclass
class _Job:
    """A run's process.

    Attributes:
      state: the run's.
      process: it.
      log_begin: bytes that the run's log had before.
    """

    state: RunState
    process: "subprocess.Popen[bytes]"
    log_begin: int


def run_sweep(
    plan: Sequence[PlannedRun], num_jobs: int, *, display: Display | None = None
) -> list[str]:
    """Trains the runs of a plan that are not finished, each in a process of its own.

    A run that fails does not stop the others. An interrupt is passed on to the running processes,
    which save a checkpoint; the same sweep goes on from there. A second interrupt does not wait for
    that. With several jobs each has its share of the machine's cores. A run's own output is in
    `<run folder>.log`.

    Args:
      plan: of `plan_sweep`.
      num_jobs: runs at a time, at least 1.
      display: shows how the runs fare; by default lines on standard output.

    Returns:
      The names of the runs that failed.

    Raises:
      LabError: num_jobs is below 1, or the sweep's folder cannot be written.
      KeyboardInterrupt: after the running processes have saved their checkpoints.
    """
    if num_jobs < 1:
        raise LabError(f"--jobs is {num_jobs}; it must be at least 1")
    states = [RunState(one, "finished" if one.status == "finished" else "waiting") for one in plan]
    waiting = [one for one in states if one.status == "waiting"]
    num_jobs = min(num_jobs, len(waiting)) or 1
    display = display or PlainDisplay()
    jobs: list[_Job] = []
    try:
        display.begin(states, num_jobs)
        while waiting or jobs:
            while waiting and len(jobs) < num_jobs:
                jobs.append(_start(waiting.pop(0), num_jobs))
                display.changed(jobs[-1].state)
            display.tick()
            time.sleep(_POLL_SECONDS)
            for job in [one for one in jobs if one.process.poll() is not None]:
                jobs.remove(job)
                _end(job)
                display.changed(job.state)
    except KeyboardInterrupt:
        display.stopping()
        _stop(jobs)
        for job in jobs:
            _end(job)
            if job.state.status == "failed":  # it was asked to
                job.state.status, job.state.reason = "stopped", ""
        display.close()
        raise
    finally:
        # Whatever else went wrong, no process is left behind.
        _stop(jobs)
    display.close()
    return [one.run.name for one in states if one.status == "failed"]


def _start(state: RunState, num_jobs: int) -> _Job:
    run, environment = state.run, dict(os.environ)
    # What it prints is in the log in the order in which it was said.
    environment["PYTHONUNBUFFERED"] = "1"
    if num_jobs > 1:
        # Processes that each take every core get in each other's way.
        flags = environment.get("XLA_FLAGS", "")
        if (os.cpu_count() or 1) <= num_jobs:
            flags += " --xla_cpu_multi_thread_eigen=false"
        environment["XLA_FLAGS"] = flags.strip()
    try:
        run.workdir.parent.mkdir(parents=True, exist_ok=True)
        with run.log_file.open("ab") as log:
            begin = log.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "s2s_jax.lab.cli", *run.arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                # Ctrl-C in a terminal is for the sweep alone, which passes it on once.
                start_new_session=True,
            )
    except OSError as error:
        raise LabError(f"cannot write to {run.workdir.parent}: {error.strerror}") from error
    state.status, state.started_at = "running", time.time()
    return _Job(state, process, begin)


def _end(job: _Job) -> None:
    """Notes how a process has ended."""
    code = job.process.returncode
    if code == 0:
        job.state.status = "finished"
        return
    job.state.status = "failed"
    how = f"exit code {code}" if code > 0 else f"killed by {_signal_name(-code)}"
    said = last_error(job.state.run, job.log_begin)
    job.state.reason = f"{how}: {said}" if said else how


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
