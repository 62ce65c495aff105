"""What is only there to be looked at, and must not cost anybody a result."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

Attempt = Callable[[str], AbstractContextManager[None]]
"""What a picture or a text, named in words, is made in: `Decorations.attempt`, or nothing else."""

_MOST_LETTERS = 200  # of a reason


class Decorations:
    """Has pictures and texts made, and says of those that fail that they are left out.

    Args:
      report: takes a line; one for each kind of what fails, however often it does.

    Example:
      >>> decorations = Decorations(print)
      >>> for step in range(3):
      ...     with decorations.attempt("attention picture"):
      ...         raise ValueError("too large")
      left out: attention picture (ValueError: too large)
    """

    def __init__(self, report: Callable[[str], None]):
        self._report = report
        self._failed: set[str] = set()

    @contextlib.contextmanager
    def attempt(self, kind: str) -> Iterator[None]:
        """Makes one of them.

        Args:
          kind: what it is, in words.
        """
        try:
            yield
        except Exception as error:
            if kind not in self._failed:
                self._failed.add(kind)
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                self._report(f"left out: {kind} ({reason[:_MOST_LETTERS].rstrip(': ')})")
