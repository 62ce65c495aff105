"""The jobs that a sweep sends to a process, which also notices when the sweep dies."""

import json
import os
import queue
import signal
import threading
from collections.abc import Iterator
from typing import Any

NO_MORE_JOBS = "null"
"""The last line that a sweep sends; if the pipe ends without it, the sweep has died."""


class SentJobs:
    """Yields jobs one at a time, in the order in which they arrive.

    If the sweep dies during a job, this process sends itself SIGTERM, so that it saves a checkpoint
    and exits as if the sweep had asked it to.

    Args:
      descriptor: of the pipe from the sweep; nothing else may read it.
    """

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._num_sent = self._num_done = 0
        # No file object: one that a thread is reading cannot be closed when the interpreter exits.
        threading.Thread(target=self._read, daemon=True).start()

    def __iter__(self) -> Iterator[Any]:
        """Each job, parsed from JSON; a job is done when the next one is requested."""
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
