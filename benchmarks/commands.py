"""Running `s2s` commands from a benchmark, in folders and caches of the benchmark's own."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

S2S = (sys.executable, "-m", "s2s_jax.lab.cli")

TINY_ADDITION = (
    "--config.model.hidden_size=8",
    "--config.model.embedding_size=4",
    "--config.data.num_train=64",
    "--config.data.num_dev=16",
    "--config.data.num_test=16",
    "--config.train.batch_size=4",
    "--config.eval.batch_size=16",
)
"""What makes experiments/addition.py small enough to show in seconds that a command runs."""


class CommandError(Exception):
    """A command ended with an error, or never printed what it was waited for."""


def environment(cache: Path) -> dict[str, str]:
    """The environment for a command, with the compilation cache in a folder of its own."""
    ours = {"XDG_CACHE_HOME": str(cache), "PYTHONUNBUFFERED": "1"}
    kept = {name: value for name, value in os.environ.items() if name[:15] != "JAX_COMPILATION"}
    return kept | ours


def seconds_to_line(command: Sequence[str], start: str, environment: dict[str, str]) -> float:
    """How long a command takes to print a line that starts so; then it is ended.

    Args:
      command: program and arguments.
      start: of the line.
      environment: the command's.

    Returns:
      Seconds from before the process is started.

    Raises:
      CommandError: it ended without such a line.
    """
    begin = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        said: list[str] = []
        for line in process.stdout:
            said.append(line)
            if line.startswith(start):
                seconds = time.perf_counter() - begin
                process.kill()
                return seconds
    raise CommandError(f"{' '.join(command)}\n{''.join(said[-20:])}")


def seconds_to_end(command: Sequence[str], environment: dict[str, str]) -> float:
    """How long a command takes to end.

    Raises:
      CommandError: its exit code is not 0.
    """
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise CommandError(f"{' '.join(command)}\n{(done.stdout + done.stderr)[-2000:]}")
    return seconds
