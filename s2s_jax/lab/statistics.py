"""What a handful of seeds can say of a mean."""

import math
from collections.abc import Iterable
from typing import NamedTuple


class Estimate(NamedTuple):
    """A mean over seeds with its interval.

    Attributes:
      mean: NaN where there are no values.
      half_width: half the width of the interval around the mean; NaN below two values, where
        nothing is known of the spread.
      num_values: how many values there were.
    """

    mean: float
    half_width: float
    num_values: int


def t_half_width(values: Iterable[float], confidence: float = 0.95) -> float:
    """Half the width of Student's t-interval of a mean.

        h = t_{n-1, (1 + confidence)/2} * s / sqrt(n),   s^2 = sum_i (x_i - mean)^2 / (n - 1)

    It covers the true mean with the given probability where the values are independent and
    normal.

    Args:
      values: one a seed, finite.
      confidence: the share of intervals that cover the true mean, in (0, 1).

    Returns:
      The half width, in the values' unit; NaN below two values.

    Raises:
      ValueError: the confidence is outside (0, 1).

    Example:
      >>> round(t_half_width([30.1, 30.4, 30.9]), 4)
      1.004
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, outside (0, 1).")
    values = list(values)
    count = len(values)
    if count < 2:
        return math.nan
    from scipy.special import stdtrit  # here, since it costs half a second

    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return float(stdtrit(count - 1, (1 + confidence) / 2)) * math.sqrt(variance / count)


def estimate(values: Iterable[float], confidence: float = 0.95) -> Estimate:
    """The mean of the finite values among those given, with its t-interval.

    Args:
      values: one a seed; a seed without a value gives NaN and does not count.
      confidence: of the interval, in (0, 1).

    Example:
      >>> estimate([1.0, float("nan")])
      Estimate(mean=1.0, half_width=nan, num_values=1)
    """
    finite = [value for value in values if math.isfinite(value)]
    mean = math.fsum(finite) / len(finite) if finite else math.nan
    return Estimate(mean, t_half_width(finite, confidence), len(finite))
