"""The form of every measure of exposure bias: values with their intervals and counts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.exposure.intervals import Bootstrap, Interval

AXES = ("", "position", "distance", "length", "n-gram")
"""The possible axes of a curve; "" for a single value."""

MIN_COUNT = 30
"""The default minimum number of sequences for a point on a curve."""


@dataclass(frozen=True)
class Measure:
    """A value, or a curve, with its interval and the number of sequences that it is based on.

    Attributes:
      value: [k] float64, or a scalar of shape (); NaN where it is undefined.
      low: as `value`: lower ends of the intervals; NaN where there is none.
      high: as `value`: upper ends of the intervals; NaN where there is none.
      n: as `value`, int: the number of sequences for each value (of prefixes, if it is exact).
      axis: one of `AXES`.
      at: [k] int, the points on the axis: positions, distances and lengths count from 1; None for a
        single value.
      unit: "share", "nats", "ratio", "percent", "tokens", "probability" or "MMD^2".
      left_out: points on the axis that have data, but from too few sequences.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    axis: str
    at: np.ndarray | None
    unit: str
    left_out: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.axis not in AXES:
            raise ValueError(
                f"axis is {self.axis!r}; it must be one of {', '.join(AXES[1:])} or ''"
            )
        if (self.at is None) != (not self.axis):
            raise ValueError("a curve has an axis and places on it, and a single value has neither")
        shapes = {np.shape(values) for values in (self.value, self.low, self.high, self.n)}
        shapes.add(() if self.at is None else np.shape(self.at))
        if len(shapes) > 1 or len(shapes.pop()) > 1:
            raise ValueError("value, low, high, n and at must have one shape: [k], or () alone")


def single(interval: Interval, n: ArrayLike, unit: str) -> Measure:
    """A measure that is a single number.

    Args:
      interval: of scalars.
      n: number of sequences that it is based on.
      unit: of the value.
    """
    return Measure(*interval, n=np.asarray(n, np.int64), axis="", at=None, unit=unit)


def curve(
    bootstrap: Bootstrap,
    statistic: Callable[..., np.ndarray],
    *arrays: np.ndarray,
    n: ArrayLike,
    axis: str,
    unit: str,
    min_count: int = MIN_COUNT,
) -> Measure:
    """A measure along an axis, at the points with enough sequences.

    Args:
      bootstrap: over the sequences.
      statistic: see `Bootstrap.of`, from means [..., k] to values [..., k], point by point.
      *arrays: [num_sequences, points] numbers to be averaged over the sequences.
      n: [points] number of sequences for each point.
      axis: one of `AXES`; the first point is 1.
      unit: of the values.
      min_count: the minimum number of sequences; a point with fewer is left out, and listed in
        `left_out` if it has any at all. A curve may have no point left.

    Returns:
      A measure of the k points that are left.
    """
    n = np.asarray(n, np.int64)
    kept = n >= max(min_count, 1)
    at = np.arange(1, len(n) + 1)
    interval = bootstrap.of(statistic, *(array[:, kept] for array in arrays))
    left_out = tuple(at[(n > 0) & ~kept].tolist())
    return Measure(*interval, n=n[kept], axis=axis, at=at[kept], unit=unit, left_out=left_out)
