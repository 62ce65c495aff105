"""The sweep's side of a process that trains the runs it is sent."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from s2s_jax.lab.base.errors import writing
from s2s_jax.lab.sweeps.assignment import Assignment
from s2s_jax.lab.sweeps.sent_jobs import NO_MORE_JOBS


class Answer(NamedTuple):
    """The answer of a process to a job.

    Attributes:
      worker: the process that answers.
      code: the exit code of the job or, if the process has ended, of the process; if negative, the
        signal that killed it.
      ended: whether the process has ended.
    """

    worker: "WorkerProcess"
    code: int
    ended: bool


class WorkerProcess:
    """Starts a process of `s2s_jax.lab.sweeps.worker`.

    Args:
      log: takes what it prints before its first job.
      num_threads: number of XLA threads; None for one per core.
      answers: receives its answers, from a thread.

    Attributes:
      num_jobs: the number of jobs that it was sent.

    Raises:
      LabError: the log cannot be written.
    """

    def __init__(self, log: Path, num_threads: int | None, answers: "SimpleQueue[Answer]"):
        environment = dict(os.environ)
        # Keeps everything it prints in order in the log.
        environment["PYTHONUNBUFFERED"] = "1"
        if num_threads is not None:  # XLA reads this variable
            environment["NPROC"] = str(num_threads)
        with writing(log), log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "s2s_jax.lab.sweeps.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                text=True,
                errors="replace",
                # Ctrl-C in a terminal goes only to the sweep, which passes it on once.
                start_new_session=True,
            )
        self._answers = answers
        self.num_jobs = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, job: Sequence[Assignment]) -> None:
        """Sends a job, a list of runs; an answer will follow."""
        self.num_jobs += 1
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and that is the answer
            stdin.write(f"{json.dumps([one.to_json() for one in job])}\n")
            stdin.flush()

    def close(self) -> None:
        """Tells the process that there are no more jobs, so that it ends; may be called again."""
        stdin = self._process.stdin
        assert stdin is not None
        if stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            stdin.write(f"{NO_MORE_JOBS}\n")
            stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            stdin.close()

    def wait(self) -> int:
        """Waits for the process to end; returns its exit code, negative for a signal."""
        return self._process.wait()

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def signal(self, number: int) -> None:
        """Sends a signal, if the process has not ended."""
        self._process.send_signal(number)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            with self._process.stdout as lines:
                for line in lines:
                    if (
                        line.strip().isdecimal()
                    ):  # anything else was not printed by the worker itself
                        self._answers.put(Answer(self, int(line), ended=False))
        finally:  # the sweep waits for this answer
            self._answers.put(Answer(self, self._process.wait(), ended=True))
