"""Divergence and dependence of distributions, in nats; numpy in double precision."""

import numpy as np
from numpy.typing import ArrayLike

_TOLERANCE = 1e-6  # how far a sum of probabilities may be from 1


def kl_divergence(p: ArrayLike, q: ArrayLike, *, where: ArrayLike = True) -> np.ndarray:
    """KL divergence between distributions along the last axis, in nats.

        KL(p || q) = sum_b p(b) log(p(b) / q(b)),   0 log 0 = 0

    Args:
      p: [..., num_symbols] probabilities.
      q: [..., num_symbols] probabilities.
      where: [...] bool; where it is False the result is 0, whatever p and q are.

    Returns:
      [...] float64, inf where q is 0 and p is not.

    Example:
      >>> round(float(kl_divergence([0.5, 0.5], [0.25, 0.75])), 6)
      0.143841
    """
    p, q = np.broadcast_arrays(np.asarray(p, np.float64), np.asarray(q, np.float64))
    counts = (p > 0) & np.asarray(where)[..., None]
    with np.errstate(divide="ignore"):
        terms = np.where(counts, p, 0.0) * np.log(np.where(counts, p, 1.0))
        cross = np.where(counts, p, 0.0) * np.log(np.where(counts, q, 1.0))
    return np.maximum((terms - cross).sum(-1), 0.0)


def total_correlation(joint: ArrayLike) -> float:
    """How much several variables depend on each other, in nats; for two, the mutual information.

        C(X_1, ..., X_T) = sum_t H(X_t) - H(X_1, ..., X_T)

    Watanabe (1960), "Information theoretical analysis of multivariate correlation".

    Args:
      joint: one axis for each variable, at least one; sums to 1.

    Raises:
      ValueError: joint is not a distribution.

    Example:
      >>> round(total_correlation([[0.63, 0.07], [0.06, 0.24]]), 6)
      0.241422
    """
    joint = np.asarray(joint, np.float64)
    if joint.ndim == 0:
        raise ValueError("joint is a number; it must have an axis for each variable")
    check_probs("joint", joint.reshape(1, -1), "it")
    axes = range(joint.ndim)
    marginals = (joint.sum(tuple(other for other in axes if other != axis)) for axis in axes)
    return max(0.0, sum(map(_entropy, marginals)) - _entropy(joint))


def mutual_information(joint: ArrayLike) -> float:
    """What one of two variables says about the other, in nats.

        I(X; Y) = H(X) + H(Y) - H(X, Y)

    Args:
      joint: [num_x, num_y]; sums to 1.

    Raises:
      ValueError: joint is not a distribution of two variables.

    Example:
      >>> mutual_information([[0.25, 0.25], [0.25, 0.25]])
      0.0
    """
    if np.ndim(joint) != 2:
        raise ValueError(f"joint has {np.ndim(joint)} axes; mutual information needs 2")
    return total_correlation(joint)


def check_probs(name: str, rows: np.ndarray, what: str) -> np.ndarray:
    """Checks that each row is a distribution, and normalises it."""
    for number, row in enumerate(rows):
        label = name if what == "it" else f"{name} {what} {number}"
        wrong = row[~((row >= 0) & (row <= 1 + _TOLERANCE))]
        if wrong.size:
            raise ValueError(f"{label} holds {wrong[0]:g}; probabilities are in [0, 1]")
        if abs(row.sum() - 1) > _TOLERANCE:
            raise ValueError(f"{label} sums to {row.sum():.6g}, not to 1")
    return rows / rows.sum(-1, keepdims=True)


def _entropy(probs: np.ndarray) -> float:
    positive = probs[probs > 0]
    return float(-(positive * np.log(positive)).sum())
