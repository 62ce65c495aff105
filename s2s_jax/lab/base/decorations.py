"""Figures and texts that are optional: if one fails, it is left out and the results are kept."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

Attempt = Callable[[str], AbstractContextManager[None]]
"""The context in which a figure or text is made: `Decorations.attempt`, or a null context."""

_MOST_LETTERS = 200  # of the reason


class Decorations:
    """Makes optional figures and texts, and reports those that fail as left out.

    Args:
      report: takes a line; called once for each kind that fails, however often it does.

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
        """The context in which to make one of them.

        Args:
          kind: what is made, in words.
        """
        try:
            yield
        except Exception as error:
            if kind not in self._failed:
                self._failed.add(kind)
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                self._report(f"left out: {kind} ({reason[:_MOST_LETTERS].rstrip(': ')})")
