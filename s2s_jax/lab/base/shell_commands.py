"""Shell commands that call the programs of this environment."""

import shlex
import shutil
import sys
from pathlib import Path


def command_line(program: str, *arguments: object) -> str:
    """A command, quoted for a shell.

    Example:
      >>> command_line("no such program", "--logdir", "my runs")
      "'no such program' --logdir 'my runs'"
    """
    return shlex.join([called(program), *map(str, arguments)])


def called(program: str) -> str:
    """How to call a program from here: by its name if a shell finds this environment's own.

    Otherwise by its path, relative to the current folder if it is inside it. This is for users who
    start `.venv/bin/s2s`, as `make demo` does, without activating the environment.

    Example:
      >>> called("no such program")
      'no such program'
    """
    own = Path(sys.executable).with_name(program)
    found = shutil.which(program)
    if not own.exists() or (found and own.samefile(found)):
        return program
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)
