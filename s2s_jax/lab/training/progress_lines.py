"""What a run in training prints of itself, and the clocks of what it says."""

import time
from collections.abc import Callable, Mapping

from s2s_jax.lab.base.metric_catalog import CATALOG

_REPORT_SECONDS = 5.0


class Clock:
    """Seconds since it was started."""

    def __init__(self, before: float = 0.0):
        self._begin = time.perf_counter() - before

    @property
    def seconds(self) -> float:
        """Until now."""
        return time.perf_counter() - self._begin

    def restart(self) -> float:
        """Starts anew; returns the seconds until now."""
        seconds = self.seconds
        self._begin = time.perf_counter()
        return seconds

    def skip(self, seconds: float) -> None:
        """Takes some of the last seconds out."""
        self._begin += seconds


class ProgressPrinter:
    """Prints where a run is, at most every few seconds.

    Args:
      report: takes a line.
      first: the step at which it goes on.
      num_steps: updates to make in all.
    """

    def __init__(self, report: Callable[[str], None], first: int, num_steps: int):
        self._report, self._first, self._num_steps = report, first, num_steps
        self._clock, self._last = Clock(), Clock(_REPORT_SECONDS)

    def restart(self) -> None:
        """The first step follows."""
        self._clock.restart()

    def skip(self, seconds: float) -> None:
        """What has just taken so long will not come again."""
        self._clock.skip(seconds)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Prints a step's metrics, unless it has just printed others."""
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
        """Prints something about a step."""
        width = len(str(self._num_steps))
        self._report(f"step {step:{width}d}/{self._num_steps}  {text}")
