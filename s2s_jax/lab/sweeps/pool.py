"""Runs the processes of a sweep, a given number at a time, until all runs have ended."""

import contextlib
import os
import queue
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2s_jax.lab.base.errors import LabError, writing
from s2s_jax.lab.base.files import read_json
from s2s_jax.lab.base.processes import EXIT_OUT_OF_MEMORY
from s2s_jax.lab.runs.result_shapes import ENDING
from s2s_jax.lab.runs.run_folder import RunFolder
from s2s_jax.lab.sweeps.display import Display, PlainDisplay
from s2s_jax.lab.sweeps.groups import make_groups
from s2s_jax.lab.sweeps.lines import RunState, last_error
from s2s_jax.lab.sweeps.plan import PlannedRun
from s2s_jax.lab.sweeps.worker_process import Answer, WorkerProcess

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class _Job:
    """Runs that a process trains: a single one, or several as lanes of one program.

    Attributes:
      states: the states of the runs.
      earlier: a mark of each run's previous `result.json`, to tell it from a later one.
    """

    states: list[RunState]
    earlier: list[tuple[int, ...]]

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
    """Trains the runs of a plan that are not finished, each group by one of several processes.

    When a process has finished a group, it takes the next one, preferably a group with the same
    program, for which it already has the data and the compiled program. A run that fails does not
    stop the others. An interrupt is passed on to the processes, which save a checkpoint; the same
    sweep continues from there. A second interrupt does not wait for the checkpoints. With several
    jobs, each has its share of the machine's cores. A run's own output is in `<run folder>.log`. A
    group that runs out of memory is continued as two groups of half the size, down to one run after
    another. A run that a process outside this sweep is training is checked again when that process
    has ended.

    Args:
      plan: from `plan_sweep`.
      num_jobs: number of processes at a time, at least 1.
      display: shows the progress of the runs; by default as lines on standard output.
      groups: from `make_groups`; by default every run is alone.

    Returns:
      The names of the runs that failed.

    Raises:
      LabError: num_jobs is below 1, or the sweep's folder cannot be written.
      KeyboardInterrupt: after the processes have saved their checkpoints.
    """
    if num_jobs < 1:
        raise LabError(f"--jobs is {num_jobs}; it must be at least 1")
    states = [RunState(one, "finished" if one.status == "finished" else "waiting") for one in plan]
    known = {one.run.workdir: one for one in states}
    groups = make_groups(plan, 1) if groups is None else groups
    waiting = [[known[run.workdir] for run in group] for group in groups]
    display = display or PlainDisplay()
    pool = _Pool(min(num_jobs, len(waiting)) or 1, display)
    try:
        display.begin(states, pool.num_workers * max(map(len, waiting), default=1))
        while waiting or pool.jobs or pool.elsewhere:
            waiting += pool.freed()
            pool.hand_out(waiting)
            display.tick()
            waiting[:0] = pool.look(_POLL_SECONDS)
        with contextlib.suppress(
            KeyboardInterrupt
        ):  # all is done; `pool.stop` below ends them faster
            pool.close()
    except KeyboardInterrupt:
        display.stopping()
        pool.stop()
        display.close()
        raise
    finally:
        # No process is left running, whatever else went wrong.
        pool.stop()
    display.close()
    return [one.run.name for one in states if one.status == "failed"]


class _Pool:
    """The processes of a sweep.

    Args:
      num_workers: maximum number of processes at a time.
      display: is told of every run that starts or ends.

    Attributes:
      num_workers: maximum number of processes at a time.
      jobs: the job of each busy process.
      elsewhere: groups of runs that processes outside this sweep are training.
    """

    def __init__(self, num_workers: int, display: Display):
        self.num_workers, self._display = num_workers, display
        self.jobs: dict[WorkerProcess, _Job] = {}
        self.elsewhere: list[list[RunState]] = []
        self._idle: dict[WorkerProcess, str] = {}
        """Processes that have finished a job, with the group key of the runs that each trained."""
        self._leaving: list[WorkerProcess] = []
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()

    def hand_out(self, waiting: list[list[RunState]]) -> None:
        """Gives waiting groups to processes, as many as there are free ones."""
        while waiting and len(self.jobs) < self.num_workers:
            worker = next(iter(self._idle), None)
            group = self._idle[worker] if worker else None
            alike = (some for some in waiting if some[0].run.group == group)
            chosen = next(alike, waiting[0])
            waiting.remove(chosen)
            states = self._not_elsewhere(chosen)
            if not states:
                continue
            runs = [one.run for one in states]
            for state in states:
                state.log_begin = _log_size(state.run)
            job = _Job(states, list(map(_result_mark, runs)))
            worker = worker or self._start(states[0].run.log_file)
            self.jobs[worker] = job
            self._idle.pop(worker, None)
            for state in states:
                state.started_at = time.time()
            worker.send([one.run.assignment for one in states])
            for state in states:
                state.status, state.reason = "running", ""
                self._display.changed(state)
        if not waiting:
            self._dismiss()  # idle processes end while the others work

    def look(self, seconds: float) -> list[list[RunState]]:
        """Waits briefly for an answer and notes which runs have ended.

        Returns:
          Groups that have to be tried again.
        """
        again: list[list[RunState]] = []
        try:
            worker, code, ended = self._answers.get(timeout=seconds)
        except queue.Empty:
            pass
        else:
            job = self.jobs.pop(worker, None)
            if ended:
                worker.close()
            elif job:
                self._idle[worker] = job.states[0].run.group
            if job:
                again = self._again(worker, job, code)
            if job and not again:
                # Another process may have taken a run just before.
                self._not_elsewhere([one for one in job.running if not _is_finished(one)])
                for state in _end(job, code):
                    self._display.changed(state)
        for job in self.jobs.values():
            for state in _ended_lanes(job):
                self._display.changed(state)
        return again

    def freed(self) -> list[list[RunState]]:
        """Groups that are no longer being trained elsewhere and have to be checked again."""
        free = [
            group
            for group in self.elsewhere
            if not any(RunFolder(one.run.workdir).trained_by() for one in group)
        ]
        self.elsewhere = [group for group in self.elsewhere if group not in free]
        return free

    def close(self) -> None:
        """Dismisses the idle processes and waits until they have ended."""
        self._dismiss()
        for worker in self._leaving:
            worker.wait()

    def stop(self) -> None:
        """Asks the processes to save and end, and waits; an interrupt meanwhile hurries them."""
        # A process ends immediately at the second SIGTERM, and SIGKILL follows after that.
        asked = iter((signal.SIGTERM, signal.SIGTERM))
        workers = [*self.jobs, *self._idle, *self._leaving]
        while any(not worker.ended for worker in workers):
            try:
                number = next(asked, signal.SIGKILL)
                for worker in workers:
                    worker.signal(number)
                    worker.close()
                for worker in workers:
                    worker.wait()
            except KeyboardInterrupt:
                continue
        codes = {worker: worker.wait() for worker in self.jobs}
        with contextlib.suppress(queue.Empty):
            while True:  # a job's own code comes before that of its process; the first one counts
                worker, code, ended = self._answers.get(timeout=0 if not self.jobs else 0.1)
                if not ended and worker in codes:
                    codes[worker] = code
        for worker, job in self.jobs.items():
            _end(job, codes[worker])
            for state in job.states:
                if state.status == "failed" and _was_stopped(job, state):
                    state.status, state.reason = "stopped", ""
        self.jobs.clear()

    def _not_elsewhere(self, states: list[RunState]) -> list[RunState]:
        """The runs that no outside process is training; the others wait until that process ends.

        It belongs to another sweep of the same folder, or it was left by a killed sweep and is
        about to save.
        """
        owners = {state: RunFolder(state.run.workdir).trained_by() for state in states}
        held = [state for state, owner in owners.items() if owner]
        for state in held:
            state.status, state.reason = "waiting", f"is being trained by {owners[state]}"
            self._display.note(f"{state.run.name}: {state.reason}; waiting for it to end")
        if held:
            self.elsewhere.append(held)
        return [state for state in states if state not in held]

    def _dismiss(self) -> None:
        """Tells the idle processes that there are no more jobs."""
        for worker in self._idle:
            worker.close()
            self._leaving.append(worker)
        self._idle.clear()

    def _start(self, log: Path) -> WorkerProcess:
        # Processes that each use all cores would slow each other down.
        share = max(1, (os.cpu_count() or 1) // self.num_workers)
        return WorkerProcess(log, share if self.num_workers > 1 else None, self._answers)

    def _again(self, worker: WorkerProcess, job: _Job, code: int) -> list[list[RunState]]:
        """The groups of a job that have to be tried again because it ran out of memory."""
        if code not in (EXIT_OUT_OF_MEMORY, -signal.SIGKILL):
            return []
        for state in _ended_lanes(job):
            self._display.changed(state)
        if len(job.states) > 1:
            return _halves(job, self._display)
        if worker.num_jobs == 1:
            return []
        # Memory kept by earlier runs in the process may have been the problem.
        [state] = job.states
        state.status = "waiting"
        self._display.note(f"{state.run.name}: out of memory; trying again in a new process")
        return [job.states]


def _log_size(run: PlannedRun) -> int:
    """The size of a run's log in bytes; creates the log if it is missing."""
    with writing(f"to {run.workdir.parent}"):
        run.workdir.parent.mkdir(parents=True, exist_ok=True)
        with run.log_file.open("ab") as log:
            return log.tell()


def _end(job: _Job, code: int) -> list[RunState]:
    """Notes how the runs of a job that were still running have ended; returns them.

    A run has finished if its result says so, regardless of the exit code of the process.
    """
    alone = len(job.states) == 1
    how = (
        "it ended early"
        if not code
        else f"exit code {code}"
        if code > 0
        else f"killed by {_signal_name(-code)}"
    )
    ended = job.running
    for state in ended:
        if _is_finished(state):
            state.status = "finished"
            continue
        state.status = "failed"
        said = last_error(state)
        failed_itself = not alone and _new_result(job, state).get("status") == "failed"
        state.reason = said if failed_itself else f"{how}: {said}" if said else how
    return ended


def _ended_lanes(job: _Job) -> list[RunState]:
    """The runs of a group that have ended while their process continues with the others."""
    if len(job.states) == 1:
        return []
    ended = []
    for state in job.running:
        result = _new_result(job, state)
        if _is_finished(state):
            state.status = "finished"
        elif result.get("status") == "failed":
            state.status, state.reason = "failed", result.get("error", "")
        else:
            continue
        ended.append(state)
    return ended


def _is_finished(state: RunState) -> bool:
    """Whether a run's result says that it has made all of its updates."""
    result = _result(state.run)
    return result.get("status") == "finished" and result.get("steps") == state.run.num_steps


def _new_result(job: _Job, state: RunState) -> dict[str, Any]:
    """The result that a run has written since it was started; {} if there is none yet."""
    earlier = job.earlier[job.states.index(state)]
    return _result(state.run) if _result_mark(state.run) != earlier else {}


def _result(run: PlannedRun) -> dict[str, Any]:
    """The result that a run has written; {} if there is none yet."""
    try:
        return read_json(run.workdir / "result.json", ENDING)
    except LabError:  # it is missing or incomplete
        return {}


def _result_mark(run: PlannedRun) -> tuple[int, ...]:
    """A mark that changes when `result.json` is replaced; () if there is none."""
    try:
        found = (run.workdir / "result.json").stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _was_stopped(job: _Job, state: RunState) -> bool:
    """Whether a run ended because it was stopped; a run in a group may have failed before."""
    return len(job.states) == 1 or _new_result(job, state).get("status") != "failed"


def _halves(job: _Job, display: Display) -> list[list[RunState]]:
    """The remaining runs of a group, as two waiting groups."""
    left = job.running
    for state in left:
        state.status = "waiting"
    middle = -(-len(left) // 2)
    lanes = f"{middle} lanes at a time" if middle > 1 else "one run after another"
    display.note(f"out of memory with {len(job.states)} lanes; continuing with {lanes}")
    return [half for half in (left[:middle], left[middle:]) if half]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
