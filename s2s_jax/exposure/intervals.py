"""Intervals for all measures: one bootstrap over whole sequences."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

_ROUNDING = 1e-12  # a mean up to this counts as 0
_BLOCK = 2**23  # counts that are multiplied at a time


class Interval(NamedTuple):
    """Values and the ends of their intervals, all of the same shape.

    Attributes:
      value: from all sequences.
      low: lower ends.
      high: upper ends.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Bootstrap:
    """Draws whole sequences with replacement, once for all statistics of a data set.

    The tokens of a sequence depend on each other, so they are drawn together. A drawn data set is
    represented by how often each sequence is in it, so that a statistic of means over sequences
    costs one matrix product, and all statistics of one `Bootstrap` use the same draws.
    Efron & Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13: percentiles.

    Attributes:
      counts: [num_resamples, num_sequences] how often each sequence was drawn.
      confidence: of the intervals.

    Example:
      >>> right = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]])
      >>> bootstrap = Bootstrap(len(right), num_resamples=200)
      >>> value, low, high = bootstrap.of(divide, right, np.ones(right.shape))
      >>> value.tolist(), bool((low <= value).all() and (value <= high).all())
      ([0.75, 0.5, 0.25], True)
    """

    def __init__(
        self,
        num_sequences: int,
        num_resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> None:
        """Draws the data sets.

        Args:
          num_sequences: number of sequences, at least 1.
          num_resamples: number of data sets to draw, at least 1.
          confidence: in (0, 1).
          seed: of the draws.

        Raises:
          ValueError: a number is out of range.
        """
        for name, value in (("num_sequences", num_sequences), ("num_resamples", num_resamples)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if not 0 < confidence < 1:
            raise ValueError(f"confidence is {confidence}; it must be in (0, 1)")
        self.confidence = confidence
        generator = np.random.default_rng(seed)
        self.counts = np.empty((num_resamples, num_sequences), np.uint16)
        for row in self.counts:
            drawn = generator.integers(num_sequences, size=num_sequences)
            row[:] = np.bincount(drawn, minlength=num_sequences)

    def of(self, statistic: Callable[..., ArrayLike], *arrays: np.ndarray) -> Interval:
        """A statistic of means over sequences, with its interval.

            value = f(mean_i a_i, mean_i b_i, ...),   low, high = percentiles of f over the draws

        A ratio of two totals is the ratio of their means. Draws in which the statistic is undefined
        (NaN) are left out if their share is at most what the interval leaves out at one end; if
        there are more, or the value itself is NaN, there is no interval.

        Args:
          statistic: from one [..., *a.shape[1:]] array of means for each of `arrays` to values
            [..., *], whatever the leading axes are: () for the value, [resamples] for draws.
          *arrays: [num_sequences, ...] numbers.

        Returns:
          Values and ends in float64. Ends are not interpolated, so they may be infinite.

        Raises:
          ValueError: an array has a different length.
        """
        num_sequences = self.counts.shape[1]
        for array in arrays:
            if len(array) != num_sequences:
                raise ValueError(f"{len(array)} rows for a bootstrap of {num_sequences} sequences")
        value = np.asarray(statistic(*(array.mean(0, dtype=np.float64) for array in arrays)))
        flat = [array.reshape(num_sequences, math.prod(array.shape[1:])) for array in arrays]
        matrix = np.concatenate(flat, axis=1).astype(np.float64)
        size = max(1, _BLOCK // num_sequences)
        means = np.concatenate(
            [
                self.counts[start : start + size].astype(np.float64) @ matrix / num_sequences
                for start in range(0, len(self.counts), size)
            ]
        )
        parts = np.split(means, np.cumsum([part.shape[1] for part in flat])[:-1], axis=1)
        drawn = statistic(
            *(
                part.reshape(len(means), *array.shape[1:])
                for part, array in zip(parts, arrays, strict=True)
            )
        )
        return self.around(value, drawn)

    def around(self, value: ArrayLike, drawn: ArrayLike) -> Interval:
        """The percentile interval of a statistic that the caller has computed from `counts`.

        Args:
          value: [...] from all sequences.
          drawn: [num_resamples, ...] from each draw.

        Returns:
          The value with its interval, see `of`.
        """
        value, drawn = np.asarray(value, np.float64), np.asarray(drawn, np.float64)
        tail = (1 - self.confidence) / 2
        ordered = np.sort(drawn, axis=0)  # NaN come last
        last = (~np.isnan(ordered)).sum(0) - 1
        known = (last + 1 >= (1 - tail) * len(ordered)) & ~np.isnan(value)
        low, high = (
            np.take_along_axis(ordered, np.maximum(index, 0).astype(int)[None], axis=0)[0]
            for index in (np.floor(tail * last), np.ceil((1 - tail) * last))
        )
        return Interval(value, np.where(known, low, np.nan), np.where(known, high, np.nan))


def divide(above: ArrayLike, below: ArrayLike) -> np.ndarray:
    """The ratio above / below: NaN for 0/0, inf for other x/0; numbers up to 1e-12 count as 0.

    Example:
      >>> divide([1.0, 1.0, 0.0], [2.0, 0.0, 0.0]).tolist()
      [0.5, inf, nan]
    """
    above, below = (np.asarray(values, np.float64) for values in (above, below))
    above, below = (np.where(np.abs(values) > _ROUNDING, values, 0.0) for values in (above, below))
    with np.errstate(divide="ignore", invalid="ignore"):
        return above / below
