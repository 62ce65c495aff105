"""The standard streams of a command: one that fails does not end what the command does."""

import contextlib
import errno
import io
import os
import sys

from s2s_jax.lab.base.errors import LabError


class _Stdout(io.FileIO):
    """Descriptor 1; from its first failure on, nothing is printed any more.

    Attributes:
      error: that failure; None before.
      is_decoration: whether what is printed only accompanies the command's work. A failure is then
        said at once, and has no other consequence.
    """

    def __init__(self):
        super().__init__(1, "w", closefd=False)
        self.error: OSError | None = None
        self.is_decoration = False

    def write(self, data: "io.ReadableBuffer", /) -> int:  # pyright: ignore
        try:
            return super().write(data) or 0
        except BlockingIOError:  # a descriptor that somebody else has made non-blocking
            raise
        except OSError as error:
            self.error = error
            _null_device(1, os.O_WRONLY)  # what C++ code and later lines print has to go somewhere
            if self.is_decoration:
                warn(f"cannot print: {error.strerror}; the command goes on without it")
            return memoryview(data).nbytes


_stdout: _Stdout | None = None


def take_streams() -> None:
    """Prepares the standard streams of this process; to be called first.

    Whatever happens to standard output, printing raises nothing: the command does its work, writes
    its files and then ends by `check_stdout`. A stream that was closed before the start is replaced
    by one that cannot be used, so that no file of the command takes its descriptor.
    """
    global _stdout
    for descriptor, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            _null_device(descriptor, flags)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    if sys.stdout is not None and sys.stdout is not sys.__stdout__:
        return  # a caller's own
    before = sys.stdout
    _stdout = _Stdout()
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_stdout),
        encoding=before.encoding if before else "utf-8",
        errors="replace",  # the rules of a table, in a terminal without
        line_buffering=_stdout.isatty(),
        write_through=isinstance(before, io.TextIOWrapper) and before.write_through,
    )


def printing_is_decoration() -> None:
    """From here on, what is printed accompanies the work, and the work is what counts."""
    if _stdout is not None:
        _stdout.is_decoration = True


def check_stdout() -> bool:
    """Flushes standard output; whether all that was printed has been read.

    Returns:
      False where the reader has gone, as `head` does, which is nobody's error.

    Raises:
      LabError: what was printed could not be written, to a full disk say.
    """
    sys.stdout.flush()
    if _stdout is None or _stdout.error is None or _stdout.is_decoration:
        return True
    if _stdout.error.errno == errno.EPIPE:
        return False
    raise LabError(f"cannot write standard output: {_stdout.error.strerror}")


def warn(line: str) -> None:
    """Says one line to the user on standard error, as `tell` does, with the program's name."""
    tell(f"s2s: {line}")


def tell(line: str) -> None:
    """Prints a line on standard error; where that is impossible, it is nobody's loss."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def _null_device(descriptor: int, flags: int) -> None:
    """Puts /dev/null in the place of a descriptor, opened for the wrong direction if so asked."""
    null = os.open(os.devnull, flags)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
