"""What the lab says to its user when it cannot go on."""

import contextlib
from collections.abc import Iterator


class LabError(ValueError):
    """One line for the user: what is wrong, where, and what to do.

    It starts in lower case (names as they are spelt), joins its parts by semicolons, and has no
    full stop. The command line prints it on stderr and ends with exit code 2, without a traceback.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def is_for_the_user(error: BaseException) -> bool:
    """Whether an error is about the input: one of ours, which are written for one line."""
    if isinstance(error, LabError):
        return True
    from s2s_jax.data.pairs import DataError

    return isinstance(error, DataError)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether more memory was asked for than the host, or a program's device, has."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def out_of_memory_line(error: BaseException) -> str:
    """What was asked for, as the allocator says it, in one line.

    Example:
      >>> out_of_memory_line(MemoryError("Unable to allocate 8. TiB for an array"))
      'out of memory: Unable to allocate 8. TiB for an array; make the batch or the model smaller'
    """
    said = next(iter(str(error).splitlines()), "the host has no more")
    return f"out of memory: {said}; make the batch or the model smaller"


def one_line(error: BaseException) -> str:
    """What an error says, without its line breaks."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split())


@contextlib.contextmanager
def writing(where: object) -> Iterator[None]:
    """Says of what the system refuses here, a full disk or a missing right, that it is a write.

    Args:
      where: a file, or "to" a folder.

    Raises:
      LabError: in the place of an OSError.

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
