"""The standard streams of a command, whose failures do not interrupt its work."""

import contextlib
import errno
import io
import os
import sys

from s2s_jax.lab.base.errors import LabError


class _Stdout(io.FileIO):
    """Descriptor 1; after its first failure, nothing more is printed.

    Attributes:
      error: the first failure; None if there was none.
      is_decoration: whether the output only accompanies the command's work. A failure is then
        reported once and has no other effect.
    """

    def __init__(self):
        super().__init__(1, "w", closefd=False)
        self.error: OSError | None = None
        self.is_decoration = False

    def write(self, data: "io.ReadableBuffer", /) -> int:  # pyright: ignore
        try:
            return super().write(data) or 0
        except BlockingIOError:  # another process has made the descriptor non-blocking
            raise
        except OSError as error:
            self.error = error
            _null_device(1, os.O_WRONLY)  # for the output of C++ code and later lines
            if self.is_decoration:
                warn(f"cannot print: {error.strerror}; the command continues without it")
            return memoryview(data).nbytes


_stdout: _Stdout | None = None


def take_streams() -> None:
    """Prepares the standard streams of this process; has to be called first.

    Printing never raises, whatever happens to standard output: the command does its work, writes
    its files and then calls `check_stdout`. A stream that was closed before the start is replaced
    by an unusable one, so that no file opened by the command gets its descriptor.
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
        return  # a stream of the caller
    before = sys.stdout
    _stdout = _Stdout()
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_stdout),
        encoding=before.encoding if before else "utf-8",
        errors="replace",  # for table rules on a terminal that lacks them
        line_buffering=_stdout.isatty(),
        write_through=isinstance(before, io.TextIOWrapper) and before.write_through,
    )


def printing_is_decoration() -> None:
    """Declares that output from here on only accompanies the work and may be lost."""
    if _stdout is not None:
        _stdout.is_decoration = True


def check_stdout() -> bool:
    """Flushes standard output and checks whether everything could be written.

    Returns:
      False if the reader has closed the pipe, as `head` does, which is not an error.

    Raises:
      LabError: the output could not be written, for example because of a full disk.
    """
    sys.stdout.flush()
    if _stdout is None or _stdout.error is None or _stdout.is_decoration:
        return True
    if _stdout.error.errno == errno.EPIPE:
        return False
    raise LabError(f"cannot write standard output: {_stdout.error.strerror}")


def warn(line: str) -> None:
    """Prints one line on standard error, as `tell` does, with the program's name."""
    tell(f"s2s: {line}")


def tell(line: str) -> None:
    """Prints a line on standard error; ignores failures."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def _null_device(descriptor: int, flags: int) -> None:
    """Replaces a descriptor by /dev/null, which is opened with the given flags."""
    null = os.open(os.devnull, flags)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
