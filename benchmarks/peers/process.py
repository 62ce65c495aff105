"""A peer's process: it stays alive and answers one question at a time."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class PeerError(Exception):
    """A peer ended, or answered with an error."""


def find_python(peers: Path, name: str) -> Path | None:
    """The Python of a peer's environment, or None where `make bench-peers` has not made it."""
    return peers / name / "bin" / "python" if (peers / name / "installed").exists() else None


class Peer:
    """A script in another Python that answers lines of JSON with lines of JSON.

    While it is not asked it waits for input and takes no time, so that its samples and ours can be
    taken in turns. What it prints on standard error passes through.

    Args:
      python: of the peer's environment.
      script: its file.
    """

    def __init__(self, python: Path, script: Path):
        self._process = subprocess.Popen(
            [str(python), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, **question: Any) -> Mapping[str, Any]:
        """Sends a question and waits for its answer.

        Raises:
          PeerError: the process has ended, or answers {"error": ...}.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(question) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PeerError(f"the peer ended with exit code {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def close(self) -> None:
        """Ends the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
