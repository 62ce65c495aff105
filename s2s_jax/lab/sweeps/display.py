"""Shows a sweep while it runs: one line per run, updated in place, or plain log lines."""

import math
import os
import shutil
import time
import unicodedata
from collections.abc import Callable, Sequence
from typing import Protocol, TextIO

from s2s_jax.lab.sweeps.lines import RunState, failures, last_lines, live_lines

_REPORT_SECONDS = 15.0
_REDRAW_SECONDS = 0.4


class Display(Protocol):
    """Shows the runs of one sweep."""

    def begin(self, states: Sequence[RunState], num_jobs: int) -> None:
        """Takes the runs, whose states will be changed from outside, and how many run at a time."""
        ...

    def changed(self, state: RunState) -> None:
        """A run has started or ended."""
        ...

    def tick(self) -> None:
        """Some time has passed."""
        ...

    def note(self, line: str) -> None:
        """Shows a remark about the sweep."""
        ...

    def stopping(self) -> None:
        """The running processes are about to be stopped."""
        ...

    def close(self) -> None:
        """Everything has ended; shows the summary."""
        ...


class PlainDisplay:
    """Prints lines for a file or a pipe: what started and ended, and now and then the progress.

    Args:
      report: takes a line.
    """

    def __init__(self, report: Callable[[str], None] = print):
        self._report = report
        self._states: Sequence[RunState] = ()
        self._said: dict[str, str] = {}
        self._reported = time.monotonic()

    def begin(self, states: Sequence[RunState], num_jobs: int) -> None:
        """Prints which runs were finished before."""
        self._states = states
        for one in states:
            if one.status == "finished":
                self._report(f"{one.run.name}: finished before")

    def changed(self, state: RunState) -> None:
        """Prints what has started or ended."""
        ended = sum(one.status in ("finished", "failed") for one in self._states)
        done = f"({ended} of {len(self._states)} done)"
        if state.status == "running":
            self._report(f"{state.run.name}: started {done}")
        elif state.status == "failed":
            self._report(f"{state.run.name}: FAILED, {state.reason} {done}")
        else:
            self._report(f"{state.run.name}: {state.status} {done}")

    def tick(self) -> None:
        """Now and then prints the last line of each run's log."""
        if time.monotonic() - self._reported < _REPORT_SECONDS:
            return
        self._reported = time.monotonic()
        for one in self._states:
            if one.status == "running":
                line = f"{one.run.name}: {(last_lines(one) or ['starting'])[-1]}"
                if line != self._said.get(one.run.name):
                    self._said[one.run.name] = line
                    self._report(line)

    def note(self, line: str) -> None:
        """Prints the line."""
        self._report(line)

    def stopping(self) -> None:
        """Prints why stopping takes a moment."""
        self._report("stopping: the running processes save their checkpoints")

    def close(self) -> None:
        """Prints which runs failed."""
        for line in failures(self._states):
            self._report(line)


class LiveDisplay:
    """One line per run on a terminal, redrawn in place, and a total below.

    Only cursor movements that every terminal supports are used. Lines are cut to the terminal's
    width; if it has too few rows, waiting and finished runs appear only in the total.

    Args:
      stream: the terminal.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._states: Sequence[RunState] = ()
        self._num_jobs = 1
        self._drawn: list[int] = []  # the widths of the lines on the screen
        self._drawn_at = -math.inf
        self._note = ""

    def begin(self, states: Sequence[RunState], num_jobs: int) -> None:
        """Draws the runs."""
        self._states, self._num_jobs = states, num_jobs
        for one in states:
            one.look()
        self._draw()

    def changed(self, state: RunState) -> None:
        """Redraws the runs."""
        state.look()
        self._draw()

    def tick(self) -> None:
        """Redraws the runs, at most a few times a second."""
        if time.monotonic() - self._drawn_at < _REDRAW_SECONDS:
            return
        for one in self._states:
            if one.status == "running":
                one.look()
        self._draw()

    def note(self, line: str) -> None:
        """Shows the line below the runs."""
        self._note = line
        self._draw()

    def stopping(self) -> None:
        """Shows below the runs why stopping takes a moment."""
        self._note = "stopping: the running processes save their checkpoints ..."
        self._draw()

    def close(self) -> None:
        """Draws the runs a last time, and below them which ones failed."""
        self._note = ""
        for one in self._states:
            one.look()
        self._draw()
        self._write("".join(f"{line}\n" for line in failures(self._states)))

    def _draw(self) -> None:
        """Writes the lines over the previous ones, in a single write."""
        try:
            width, height = os.get_terminal_size(self._stream.fileno())
        except OSError:
            width, height = 0, 0
        fallback = shutil.get_terminal_size()
        width, height = width or fallback.columns, height or fallback.lines
        lines = live_lines(self._states, self._num_jobs, time.time(), max(1, height - 3))
        # The last column stays free, since a terminal may wrap there.
        lines = [_cut(one, width - 1) for one in [*lines, *filter(None, [self._note])]]
        # A line drawn earlier takes more rows if the terminal has become narrower.
        rows = sum(max(1, -(-one // width)) for one in self._drawn)
        up = f"\x1b[{rows}A" if rows else ""
        self._write(f"\r{up}" + "".join(f"{one}\x1b[K\n" for one in lines) + "\x1b[J")
        self._drawn, self._drawn_at = [_width(one) for one in lines], time.monotonic()

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(text.encode(encoding, "replace").decode(encoding))
        self._stream.flush()


def make_display(stream: TextIO, report: Callable[[str], None]) -> Display:
    """The display for a stream: in place on a terminal, otherwise lines through `report`."""
    if stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb"):
        return LiveDisplay(stream)
    return PlainDisplay(report)


def _cut(line: str, width: int) -> str:
    """The line without control characters, cut to the width."""
    line = "".join(one if one.isprintable() else " " for one in line)
    if _width(line) <= width:
        return line
    while line and _width(line) > width - 1:
        line = line[:-1]
    return f"{line}\N{HORIZONTAL ELLIPSIS}" if width > 0 else ""


def _width(line: str) -> int:
    """The number of columns that a line takes."""
    return sum(
        0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in ("W", "F"))
        for one in line
    )
