"""What to type to call the programs that this environment has."""

import shlex
import shutil
import sys
from pathlib import Path


def command_line(program: str, *arguments: object) -> str:
    """A command that a shell takes as it is.

    Example:
      >>> command_line("no such program", "--logdir", "my runs")
      "'no such program' --logdir 'my runs'"
    """
    return shlex.join([called(program), *map(str, arguments)])


def called(program: str) -> str:
    """How to call a program from here: by its name where a shell finds this environment's own.

    Else by its path, below the current folder where it is there. A user who starts
    `.venv/bin/s2s`, as `make demo` does, has not activated the environment.

    Example:
      >>> called("no such program")
      'no such program'
    """
    own = Path(sys.executable).with_name(program)
    found = shutil.which(program)
    if not own.exists() or (found and own.samefile(found)):
        return program
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)
