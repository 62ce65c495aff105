"""Finds in a log why a process failed."""

import re
from collections.abc import Sequence

_LAST_WORDS = ("s2s: ", "out of memory: ")
"""The beginnings of the lines in which a run itself says why it ended."""

_TRACEBACK = "Traceback (most recent call last):"
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_ASIDE = ("Exception ignored", "Exception in thread", "--- Logging error", "Error in ")
"""The beginnings of lines before the traceback of an exception that did not end the run."""

_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)(: .*|:)?$")
_FRAME = re.compile(r'\s+File "(?:.*/)?(?P<file>[^/]+)", (?P<line>line \d+)')
_FATAL = re.compile(r"Fatal Python error: |F\d{4} \d\d:\d\d|[FE]\d{4,8} .*Check failed: ")
_LONGEST = 500


def error_of(lines: Sequence[str]) -> str:
    """The error that ended a process, in one line; "" if the log is empty.

    This is the last of the run's own error messages and of the exceptions in tracebacks. The
    exception is the first line of a traceback that is not indented; notes after it are ignored. If
    there is none, it is the fatal error of the interpreter or of XLA, then an exception that did
    not end the run, such as in a destructor or in another thread, and finally the last line.

    Args:
      lines: the lines of the log; the first may be in the middle of a traceback.

    Example:
      >>> error_of(["Traceback (most recent call last):", '  File "a.py", line 3, in f',
      ...           "ValueError: no such thing", "----", "For simplicity, JAX has removed"])
      'ValueError: no such thing'
    """
    lines = [one.rstrip() for one in lines]
    own, aside = _exceptions(lines)
    own += [
        (number, one.split(": ", 1)[1] if one.startswith("s2s: ") else one)
        for number, one in enumerate(lines)
        if one.startswith(_LAST_WORDS)
    ]
    # A traceback that is longer than the part that was read lacks its first line.
    cut = [(number, one) for number, one in enumerate(lines) if _EXCEPTION.match(one)]
    fatal = [(-number, one) for number, one in enumerate(lines) if _FATAL.match(one)]  # the first
    rest = [(number, one.strip()) for number, one in enumerate(lines) if one]
    found = own or fatal or aside or cut or rest
    text = max(found)[1] if found else ""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _exceptions(lines: Sequence[str]) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """(line, exception) of tracebacks: those that may have ended the run, and the others."""
    own: list[tuple[int, str]] = []
    aside: list[tuple[int, str]] = []
    found, before = own, ""
    for number, line in enumerate(lines):
        if line == _TRACEBACK:
            if not before.startswith(
                _CHAINED
            ):  # a chained one is of the same kind as the one before
                found = aside if before.startswith(_ASIDE) else own
            error = _exception_at(lines, number + 1)
            if error:
                found.append(error)
        if line:
            before = line
    return own, aside


def _exception_at(lines: Sequence[str], begin: int) -> tuple[int, str] | None:
    """(line, exception) of the traceback whose frames begin there; None if it is truncated."""
    place = ""
    for number in range(begin, len(lines)):
        line = lines[number]
        frame = _FRAME.match(line)
        if frame:
            place = f"{frame['file']}, {frame['line']}"
        if not line or line[0].isspace():
            continue
        line = line.removeprefix("s2s_jax.lab.base.errors.LabError: ")
        line = line.removeprefix("s2s_jax.data.pairs.DataError: ")
        if line.endswith(":") and number + 1 < len(lines):  # a message that begins on the next line
            return number, f"{line} {lines[number + 1].strip()}"
        return number, f"{line} ({place})" if re.fullmatch(r"[\w.]+", line) and place else line
    return None
