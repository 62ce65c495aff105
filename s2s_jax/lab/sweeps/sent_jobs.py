"""The jobs that a sweep sends to one of its processes, and how the process learns of its death."""

import json
import os
import queue
import signal
import threading
from collections.abc import Iterator
from typing import Any

NO_MORE_JOBS = "null"
"""The line that a sweep sends last; a pipe that ends without it has lost its sweep."""


class SentJobs:
    """Jobs in the order in which they come, one at a time, until there are no more.

    Where the sweep dies while a job is under way, this process gets a SIGTERM, so that it saves a
    checkpoint and ends as it does where the sweep asks it to.

    Args:
      descriptor: of the pipe from the sweep; nobody else may read it.
    """

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._num_sent = self._num_done = 0
        # A file object that a thread is reading cannot be closed when the interpreter ends.
        threading.Thread(target=self._read, daemon=True).start()

    def __iter__(self) -> Iterator[Any]:
        """Each job as JSON holds it; one is done when the next is asked for."""
        while (job := self._jobs.get()) is not None:
            yield job
            self._num_done += 1

    def _read(self) -> None:
        rest = b""
        while data := os.read(self._descriptor, 65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                job = json.loads(line)
                self._num_sent += job is not None
                self._jobs.put(job)
                if job is None:
                    return
        self._jobs.put(None)
        if self._num_sent > self._num_done:
            os.kill(os.getpid(), signal.SIGTERM)
