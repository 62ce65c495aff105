"""Tests whether the decoder's states after its own prefixes differ from those after gold ones.

The states come in pairs, after a gold prefix and after one sampled from the model for the same
source. If the model were the true distribution, both would have the same distribution, so the two
states of a pair could be swapped; this is tested. So own prefixes must be sampled: after greedy
ones the states would differ even for the true distribution.
"""

import math

import numpy as np

from s2s_jax.exposure.intervals import Bootstrap
from s2s_jax.exposure.measure import MIN_COUNT, Measure


def median_distance(states: np.ndarray, mask: np.ndarray) -> float:
    """The median distance between two states at the same position, over all positions.

    Args:
      states: [num_sequences, time, size] float.
      mask: [num_sequences, time] bool, which of them count.

    Returns:
      The median of the nonzero distances; 1 if there are none.
    """
    found = []
    for position in range(states.shape[1]):
        some = states[mask[:, position], position]
        squares = _squared_distances(some, some)
        found.append(squares[np.triu_indices(len(some), 1)])
    squares = np.concatenate(found) if found else np.zeros(0)
    squares = squares[squares > 0]
    return float(np.sqrt(np.median(squares))) if len(squares) else 1.0


def pair_kernel(gold: np.ndarray, own: np.ndarray, bandwidth: float) -> np.ndarray:
    """The summands of the unbiased MMD^2 of paired samples, with a Gaussian kernel.

        h_ij = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i),   h_ii = 0
        k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2))

    Args:
      gold: [m, size] states x.
      own: [m, size] states y, in pairs with x.
      bandwidth: of the kernel.

    Returns:
      [m, m] float64.
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(_squared_distances(a, b) / (-2 * bandwidth**2))

    cross = kernel(gold, own)
    pairs = kernel(gold, gold) + kernel(own, own) - cross - cross.T
    np.fill_diagonal(pairs, 0)
    return pairs


def swap_signs(num_permutations: int, num_sequences: int, seed: int) -> np.ndarray:
    """Draws which pairs are swapped: [num_permutations, num_sequences] of 1 and -1 (swapped)."""
    drawn = np.random.default_rng(seed).integers(2, size=(num_permutations, num_sequences))
    return 1.0 - 2.0 * drawn


def state_divergence(
    gold_states: np.ndarray,
    own_states: np.ndarray,
    mask: np.ndarray,
    bootstrap: Bootstrap,
    *,
    bandwidth: float | None = None,
    num_permutations: int = 1000,
    seed: int = 0,
    min_count: int = MIN_COUNT,
) -> dict[str, Measure]:
    """How far apart the two kinds of states are at each position, and a test whether by chance.

        MMD^2 = sum_{i != j} h_ij / (m (m - 1))
        p = (1 + #{permutations with sum_ij s_i s_j h_ij >= sum_ij h_ij}) / (1 + permutations)

    The estimate is that of Gretton et al. (2012), "A Kernel Two-Sample Test", equation 4; it may be
    below 0. Swapping pair i changes the sign of all h_ij. At position 1 both have read only BOS, so
    the divergence is 0 and p = 1. The interval shows how certain the size of a divergence is; to
    see whether there is one, read p.

    Args:
      gold_states: [num_sequences, time, size] after gold prefixes.
      own_states: [num_sequences, time, size] after prefixes sampled from the model.
      mask: [num_sequences, time] bool, where both exist.
      bootstrap: over these sequences; a sequence drawn twice is not paired with itself.
      bandwidth: of the kernel, one for all positions; None for the median distance of the gold
        states, which does not depend on the own states.
      num_permutations: of the test, at least 1.
      seed: of the permutations.
      min_count: the minimum number of sequences for a position, at least 2.

    Returns:
      "mmd_by_position" and "p_value_by_position", which has no interval.

    Raises:
      ValueError: the shapes do not fit, or a number is out of range.
    """
    if gold_states.shape != own_states.shape or gold_states.shape[:2] != mask.shape:
        shapes = gold_states.shape, own_states.shape, mask.shape
        raise ValueError(f"gold states, own states and mask have shapes {shapes}")
    if num_permutations < 1:
        raise ValueError(f"num_permutations is {num_permutations}; it must be at least 1")
    if bandwidth is None:
        bandwidth = median_distance(gold_states, mask)
    if not 0 < bandwidth < math.inf:
        raise ValueError(f"bandwidth is {bandwidth}; it must be above 0 and finite")
    counts = mask.sum(0)
    at = np.arange(1, mask.shape[1] + 1)
    kept = counts >= max(min_count, 2)
    signs = swap_signs(num_permutations, len(mask), seed)
    values, drawn, p_values = [], [], []
    for position in at[kept] - 1:
        chosen = mask[:, position]
        pairs = pair_kernel(gold_states[chosen, position], own_states[chosen, position], bandwidth)
        total = pairs.sum()
        num = len(pairs)
        values.append(total / (num * (num - 1)))
        weights = bootstrap.counts[:, chosen].astype(np.float64)
        num_pairs = weights.sum(1) ** 2 - (weights**2).sum(1)
        with np.errstate(invalid="ignore"):
            drawn.append(_quadratic(weights, pairs) / num_pairs)
        # Values that are equal up to rounding count as reached; kernels are at most 1.
        reached = _quadratic(signs[:, chosen], pairs) >= total - 1e-10 * pairs.size
        p_values.append((1 + reached.sum()) / (1 + num_permutations))
    shape = len(bootstrap.counts), len(values)
    interval = bootstrap.around(np.array(values), np.array(drawn).reshape(shape[::-1]).T)
    nothing = np.full(len(values), np.nan)
    place = {
        "n": counts[kept],
        "axis": "position",
        "at": at[kept],
        "left_out": tuple(at[(counts > 0) & ~kept].tolist()),
    }
    return {
        "mmd_by_position": Measure(*interval, unit="MMD^2", **place),
        "p_value_by_position": Measure(
            np.array(p_values), nothing, nothing, unit="probability", **place
        ),
    }


def _quadratic(weights: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The values of w' M w for each row w."""
    return np.einsum("ri,ri->r", weights @ matrix, weights)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[len(a), len(b)] float64; exactly 0 between equal rows of one array."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    of_a, of_b = (np.einsum("is,is->i", some, some) for some in (a, b))
    squares = np.maximum(of_a[:, None] + of_b - 2 * a @ b.T, 0)
    return np.where(squares > 1e-12 * (of_a[:, None] + of_b), squares, 0)
