"""Statistics for means over a few seeds."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean over seeds with its interval.

    Attributes:
      mean: NaN if there are no values.
      half_width: half the width of the interval around the mean; NaN for fewer than two values,
        which do not show the spread.
      num_values: the number of values.
    """

    mean: float
    half_width: float
    num_values: int


def t_half_width(values: Iterable[float], confidence: float = 0.95) -> float:
    """Half the width of Student's t-interval for a mean.

        h = t_{n-1, (1 + confidence)/2} * s / sqrt(n),   s^2 = sum_i (x_i - mean)^2 / (n - 1)

    It covers the true mean with the given probability if the values are independent and normal.

    Args:
      values: one finite value per seed.
      confidence: the share of intervals that cover the true mean, in (0, 1).

    Returns:
      The half width, in the values' unit; NaN for fewer than two values.

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
    from scipy.special import stdtrit  # imported here because it takes half a second

    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return float(stdtrit(count - 1, (1 + confidence) / 2)) * math.sqrt(variance / count)


def estimate(values: Iterable[float], confidence: float = 0.95) -> Estimate:
    """The mean of the finite values among those given, with its t-interval.

    Args:
      values: one per seed; a seed without a value has NaN and does not count.
      confidence: of the interval, in (0, 1).

    Example:
      >>> estimate([1.0, float("nan")])
      Estimate(mean=1.0, half_width=nan, num_values=1)
    """
    finite = [value for value in values if math.isfinite(value)]
    mean = math.fsum(finite) / len(finite) if finite else math.nan
    return Estimate(mean, t_half_width(finite, confidence), len(finite))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of p-values for multiple tests.

        p~_(i) = max_{j <= i} min(1, (k - j + 1) * p_(j)),   p_(1) <= ... <= p_(k)

    If hypotheses with p~ <= alpha are rejected, the probability of any false rejection is at most
    alpha, whatever the dependence between the tests. Holm (1979), "A simple sequentially rejective
    multiple test procedure".

    Args:
      p_values: each in [0, 1]; NaN if there is none, which does not count as a test.

    Returns:
      The corrected p-values in the order given, NaN if there was none.

    Example:
      >>> holm([0.01, 0.04, 0.03])
      [0.03, 0.06, 0.06]
    """
    tried = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    corrected, highest = [math.nan] * len(p_values), 0.0
    for rank, (p, place) in enumerate(tried):
        highest = max(highest, min(1.0, (len(tried) - rank) * p))
        corrected[place] = highest
    return corrected


def probability_of_improvement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """How often one side scores higher than the other, with ties counted as half.

        P = mean over items i, our seeds s, their seeds u of [x_si > y_ui] + [x_si = y_ui] / 2

    Without a difference it is 1/2. Agarwal et al. (2021), "Deep reinforcement learning at the edge
    of the statistical precipice", who use tasks instead of items.

    Args:
      ours: [seeds, items] scores, higher is better; one item if only totals are known.
      theirs: [their seeds, items] scores of the same items.

    Returns:
      The probability, in [0, 1].

    Example:
      >>> import numpy as np
      >>> probability_of_improvement(np.array([[2.0], [3.0]]), np.array([[1.0], [3.0]]))
      0.625
    """
    wins = ours[:, None] - theirs[None]
    # Differences due to rounding are ties.
    wins[np.abs(wins) <= 1e-9 * max(np.abs(ours).max(), np.abs(theirs).max())] = 0
    return float((np.sign(wins).mean() + 1) / 2)


def seeds_needed(
    difference: float,
    seed_variance: float,
    item_variance: float = 0.0,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    most: int = 100,
) -> int | None:
    """How many seeds per side would be needed to detect a difference of this size.

    The smallest n >= 2 for which

        P(|T| > t_{f, 1 - alpha/2}) >= power,   T noncentral t with f degrees of freedom and
        noncentrality  |difference| / sqrt(seed_variance / n + item_variance),
        f = (n - 1) / r,   r = (seed_variance / n) / (seed_variance / n + item_variance)

    (f = 1 at n = 2), which approximates the test of `significance.paired_difference`. It assumes
    that the observed difference and spread are the true ones. With few seeds both are rough, so
    use the result as an order of magnitude for planning the next sweep, not as a finding.

    Args:
      difference: the true mean of the paired differences.
      seed_variance: their variance between seeds.
      item_variance: the variance of the mean due to the test items, which more seeds do not lower.
      power: the probability of detecting the difference.
      alpha: the significance level of the test.
      most: the largest number to try.

    Returns:
      n; None if `most` seeds are not enough.

    Example:
      >>> seeds_needed(0.5, 1.0)
      34
    """
    from scipy.special import nctdtr, stdtrit

    if not difference or not math.isfinite(difference):
        return None
    counts = np.arange(2, most + 1)
    from_seeds = np.maximum(seed_variance, 1e-12 * difference**2) / counts
    variance = from_seeds + item_variance
    freedom = np.where(counts == 2, 1, (counts - 1) * variance / from_seeds)
    critical = stdtrit(freedom, 1 - alpha / 2)
    shift = np.minimum(abs(difference) / np.sqrt(variance), 30.0)
    found = 1 - nctdtr(freedom, shift, critical) + nctdtr(freedom, shift, -critical)
    # Beyond 30 standard errors scipy's series does not end; there the power is 1 for most n.
    enough = counts[found >= power]
    return int(enough[0]) if len(enough) else None
