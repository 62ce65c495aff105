"""The progress lines that a run prints while it trains, and the clocks that they need."""

import time
from collections.abc import Callable, Mapping

from s2s_jax.lab.base.metric_catalog import CATALOG

_REPORT_SECONDS = 5.0


class Clock:
    """A clock that counts the seconds since it was started."""

    def __init__(self, before: float = 0.0):
        self._begin = time.perf_counter() - before

    @property
    def seconds(self) -> float:
        """The seconds until now."""
        return time.perf_counter() - self._begin

    def restart(self) -> float:
        """Restarts the clock; returns the seconds until now."""
        seconds = self.seconds
        self._begin = time.perf_counter()
        return seconds

    def skip(self, seconds: float) -> None:
        """Excludes some of the seconds that have passed."""
        self._begin += seconds


class ProgressPrinter:
    """Prints the progress of a run, at most once every few seconds.

    Args:
      report: called with each line.
      first: the step from which the run continues.
      num_steps: total number of updates to make.
    """

    def __init__(self, report: Callable[[str], None], first: int, num_steps: int):
        self._report, self._first, self._num_steps = report, first, num_steps
        self._clock, self._last = Clock(), Clock(_REPORT_SECONDS)

    def restart(self) -> None:
        """Restarts the clock, just before the first step."""
        self._clock.restart()

    def skip(self, seconds: float) -> None:
        """Excludes time that was spent once and says nothing about the time left."""
        self._clock.skip(seconds)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Prints a step's metrics, unless others were printed a moment ago."""
        if self._last.seconds < _REPORT_SECONDS and step < self._num_steps:
            return
        self._last.restart()
        left = self._clock.seconds / (step - self._first) * (self._num_steps - step)
        loss, teacher_prob, rate = (
            CATALOG.describe(name).text(metrics[name])
            for name in ("train/loss", "train/teacher_prob", "train/tokens_per_second")
        )
        clock = f"{int(left) // 60}:{int(left) % 60:02d}"
        self.say(step, f"loss {loss}  teacher_prob {teacher_prob}  {rate}  {clock} left")

    def say(self, step: int, text: str) -> None:
        """Prints a line about a step."""
        width = len(str(self._num_steps))
        self._report(f"step {step:{width}d}/{self._num_steps}  {text}")
