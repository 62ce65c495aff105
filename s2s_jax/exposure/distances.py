"""Distances between two distributions of the next token."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.theory.information import kl_divergence


def total_variation(p: ArrayLike, q: ArrayLike) -> np.ndarray:
    """Total variation distance along the last axis, in [0, 1].

        TV(p, q) = 1/2 sum_b |p(b) - q(b)|

    Args:
      p: [..., num_symbols] probabilities.
      q: [..., num_symbols] probabilities.

    Returns:
      [...] float64.

    Example:
      >>> float(total_variation([1.0, 0.0], [0.5, 0.5]))
      0.5
    """
    return np.abs(np.asarray(p, np.float64) - np.asarray(q, np.float64)).sum(-1) / 2


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> np.ndarray:
    """Jensen-Shannon divergence along the last axis, in nats, in [0, log 2].

        JS(p, q) = (KL(p || m) + KL(q || m)) / 2,   m = (p + q) / 2

    Args:
      p: [..., num_symbols] probabilities.
      q: [..., num_symbols] probabilities.

    Returns:
      [...] float64.

    Example:
      >>> round(float(jensen_shannon([1.0, 0.0], [0.0, 1.0])), 6)  # log 2
      0.693147
    """
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    middle = (p + q) / 2
    return (kl_divergence(p, middle) + kl_divergence(q, middle)) / 2


Distance = Callable[[ArrayLike, ArrayLike], np.ndarray]
"""Two distributions [..., num_symbols] -> [...] float64."""

DISTANCES: dict[str, Distance] = {
    "total_variation": total_variation,
    "jensen_shannon": jensen_shannon,
}
"""The distances that `relative_distance` can use."""


def find_distance(name: str) -> Distance:
    """One of `DISTANCES`; raises a ValueError for another name."""
    if name not in DISTANCES:
        raise ValueError(f"distance is {name!r}; it must be one of {', '.join(DISTANCES)}")
    return DISTANCES[name]
