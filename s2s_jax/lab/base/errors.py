"""The errors that the lab shows to its user."""

import contextlib
from collections.abc import Iterator


class LabError(ValueError):
    """One line for the user: what is wrong, where, and what to do.

    It starts in lower case (except for names), separates its parts with semicolons and has no full
    stop. The command line prints it on stderr and exits with code 2, without a traceback.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def is_for_the_user(error: BaseException) -> bool:
    """Whether an error is one of ours about the input, which are meant for the user."""
    if isinstance(error, LabError):
        return True
    from s2s_jax.data.pairs import DataError

    return isinstance(error, DataError)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the host or the device ran out of memory."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def out_of_memory_line(error: BaseException) -> str:
    """The allocator's message in one line, with advice.

    Example:
      >>> out_of_memory_line(MemoryError("Unable to allocate 8. TiB for an array"))
      'out of memory: Unable to allocate 8. TiB for an array; make the batch or the model smaller'
    """
    said = next(iter(str(error).splitlines()), "the host has no more")
    return f"out of memory: {said}; make the batch or the model smaller"


def one_line(error: BaseException) -> str:
    """The message of an error, without line breaks."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split())


@contextlib.contextmanager
def writing(where: object) -> Iterator[None]:
    """Turns an OSError, such as a full disk or missing permissions, into a "cannot write" LabError.

    Args:
      where: a file, or "to FOLDER".

    Raises:
      LabError: instead of an OSError.

    Example:
      >>> with writing("a.txt"):
      ...     raise OSError(28, "No space left on device")
      Traceback (most recent call last):
      s2s_jax.lab.base.errors.LabError: cannot write a.txt: No space left on device
    """
    try:
        yield
    except OSError as error:
        raise LabError(f"cannot write {where}: {error.strerror or error}") from error
