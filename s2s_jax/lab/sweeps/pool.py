"""The processes of a sweep: so many at a time, until all runs have ended."""

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
    """Runs that a process trains, one alone or several as lanes of one program.

    Attributes:
      states: the runs'.
      log_begins: bytes that each run's log had before.
      earlier: what tells the `result.json` that each run had before from a later one.
    """

    states: list[RunState]
    log_begins: list[int]
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

    A process goes on with the next group when it has done one, and with a group of the same program
    if there is any: it has data and compiled programs for that already. A run that fails does not
    stop the others. An interrupt is passed on to the processes, which save a checkpoint; the same
    sweep goes on from there. A second interrupt does not wait for that. With several jobs each has
    its share of the machine's cores. A run's own output is in `<run folder>.log`. A group for which
    the memory does not suffice goes on as two of half the size, down to one run after another. A
    run that a process of somebody else trains is looked at once more when that has ended.

    Args:
      plan: of `plan_sweep`.
      num_jobs: processes at a time, at least 1.
      display: shows how the runs fare; by default lines on standard output.
      groups: of `make_groups`; by default every run is alone.

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
        with contextlib.suppress(KeyboardInterrupt):  # all is done; they are asked to hurry below
            pool.close()
    except KeyboardInterrupt:
        display.stopping()
        pool.stop()
        display.close()
        raise
    finally:
        # Whatever else went wrong, no process is left behind.
        pool.stop()
    display.close()
    return [one.run.name for one in states if one.status == "failed"]


class _Pool:
    """The processes of a sweep.

    Args:
      num_workers: the most at a time.
      display: is told of every run that starts or ends.

    Attributes:
      num_workers: likewise.
      jobs: what each process that is at work trains.
      elsewhere: groups of runs that processes of somebody else train.
    """

    def __init__(self, num_workers: int, display: Display):
        self.num_workers, self._display = num_workers, display
        self.jobs: dict[WorkerProcess, _Job] = {}
        self.elsewhere: list[list[RunState]] = []
        self._idle: dict[WorkerProcess, str] = {}
        """Those that have just done a job, and the program that each has compiled last."""
        self._leaving: list[WorkerProcess] = []
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()

    def hand_out(self, waiting: list[list[RunState]]) -> None:
        """Takes from the groups that wait as many as there are processes for."""
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
            job = _Job(states, list(map(_log_size, runs)), list(map(_result_mark, runs)))
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
            self._dismiss()  # they end while the others work

    def look(self, seconds: float) -> list[list[RunState]]:
        """Waits for an answer, but not for long, and notes which runs have ended.

        Returns:
          Groups that are to be tried again.
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
                # Somebody may have been quicker by a moment.
                self._not_elsewhere([one for one in job.running if not _is_finished(one)])
                for state in _end(job, code):
                    self._display.changed(state)
        for job in self.jobs.values():
            for state in _ended_lanes(job):
                self._display.changed(state)
        return again

    def freed(self) -> list[list[RunState]]:
        """The groups that were trained elsewhere, and no longer are: to be looked at once more."""
        free = [
            group
            for group in self.elsewhere
            if not any(RunFolder(one.run.workdir).trained_by() for one in group)
        ]
        self.elsewhere = [group for group in self.elsewhere if group not in free]
        return free

    def close(self) -> None:
        """Waits until the processes have ended, which are not at work."""
        self._dismiss()
        for worker in self._leaving:
            worker.wait()

    def stop(self) -> None:
        """Asks the processes to save and end, and waits; an interrupt meanwhile asks harder."""
        # A process ends at once at the second SIGTERM.
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
            while True:  # of a job that was done, and of its process after that, the first counts
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
        """The runs that no process of somebody else trains; the others wait for its end.

        That is another sweep's of the same folder, or one that a killed sweep has left behind and
        that is about to save.
        """
        owners = {state: RunFolder(state.run.workdir).trained_by() for state in states}
        held = [state for state, owner in owners.items() if owner]
        for state in held:
            state.status, state.reason = "waiting", f"is being trained by {owners[state]}"
            self._display.note(f"{state.run.name}: {state.reason}; waiting for its end")
        if held:
            self.elsewhere.append(held)
        return [state for state in states if state not in held]

    def _dismiss(self) -> None:
        """There is nothing more to do for the processes that wait."""
        for worker in self._idle:
            worker.close()
            self._leaving.append(worker)
        self._idle.clear()

    def _start(self, log: Path) -> WorkerProcess:
        # Processes that each take every core get in each other's way.
        share = max(1, (os.cpu_count() or 1) // self.num_workers)
        return WorkerProcess(log, share if self.num_workers > 1 else None, self._answers)

    def _again(self, worker: WorkerProcess, job: _Job, code: int) -> list[list[RunState]]:
        """What of a job is to be tried once more, since there was too little memory for it."""
        if code not in (EXIT_OUT_OF_MEMORY, -signal.SIGKILL):
            return []
        for state in _ended_lanes(job):
            self._display.changed(state)
        if len(job.states) > 1:
            return _halves(job, self._display)
        if worker.num_jobs == 1:
            return []
        # What earlier runs have left may be what was too much.
        [state] = job.states
        state.status = "waiting"
        self._display.note(f"{state.run.name}: out of memory; once more in a process of its own")
        return [job.states]


def _log_size(run: PlannedRun) -> int:
    """The bytes of a run's log, which is made where it is missing."""
    with writing(f"to {run.workdir.parent}"):
        run.workdir.parent.mkdir(parents=True, exist_ok=True)
        with run.log_file.open("ab") as log:
            return log.tell()


def _end(job: _Job, code: int) -> list[RunState]:
    """Notes how the runs of a job have ended that were still running; and returns them.

    A run has finished when its result says so, whatever the code of the process was.
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
        said = last_error(state.run, job.log_begins[job.states.index(state)])
        failed_itself = not alone and _new_result(job, state).get("status") == "failed"
        state.reason = said if failed_itself else f"{how}: {said}" if said else how
    return ended


def _ended_lanes(job: _Job) -> list[RunState]:
    """The runs of a group that have ended while their process goes on with the others."""
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
    """What a run has written of its end since it was started; {} before."""
    earlier = job.earlier[job.states.index(state)]
    return _result(state.run) if _result_mark(state.run) != earlier else {}


def _result(run: PlannedRun) -> dict[str, Any]:
    """What a run has written of its end; {} before."""
    try:
        return read_json(run.workdir / "result.json", ENDING)
    except LabError:  # it is not there, or not whole
        return {}


def _result_mark(run: PlannedRun) -> tuple[int, ...]:
    """Tells a `result.json` from the one that is written in its place; () where there is none."""
    try:
        found = (run.workdir / "result.json").stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _was_stopped(job: _Job, state: RunState) -> bool:
    """Whether a run ended because it was asked to; one of a group may have failed before."""
    return len(job.states) == 1 or _new_result(job, state).get("status") != "failed"


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
