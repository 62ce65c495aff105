"""Errors by position: with gold and with own prefixes, before and after the first error.

`right` says where the token is the gold one, [num_sequences, time] bool, and `mask` where there is
a gold token, up to and including EOS. With own prefixes, positions after the end of the hypothesis
are errors. The likelihood of gold tokens given the model's own prefixes is left out on purpose: it
rewards a model for ignoring its prefix.
"""

from typing import Any, NamedTuple

import numpy as np

from s2s_jax.exposure.intervals import Bootstrap, divide
from s2s_jax.exposure.measure import MIN_COUNT, Measure, curve, single


class ErrorCourse(NamedTuple):
    """Each sequence, divided at its first error; NumPy or JAX arrays.

    Attributes:
      at_risk: [num_sequences, time] bool, positions with no earlier error.
      fails: likewise, the first error.
      after: likewise, positions after the first error.
      errs: likewise, the errors among `after`.
    """

    at_risk: Any
    fails: Any
    after: Any
    errs: Any


def error_course(right: Any, mask: Any) -> ErrorCourse:
    """Divides each sequence at its first error tau.

    Args:
      right: [num_sequences, time] bool, from NumPy or JAX.
      mask: likewise.

    Example:
      >>> right = np.array([[True, False, True, False, False]])
      >>> course = error_course(right, np.array([[True, True, True, True, False]]))
      >>> course.fails.astype(int).tolist(), course.errs.astype(int).tolist()
      ([[0, 1, 0, 0, 0]], [[0, 0, 0, 1, 0]])
    """
    wrong = mask & ~right
    clean = (wrong.cumsum(1) - wrong) == 0
    return ErrorCourse(mask & clean, wrong & clean, mask & ~clean, wrong & ~clean)


def token_mean(values: np.ndarray, mask: np.ndarray, bootstrap: Bootstrap, unit: str) -> Measure:
    """The mean over all tokens with equal weight (token-micro).

        sum_i sum_t v_it m_it / sum_i sum_t m_it

    Args:
      values: [num_sequences, time] numbers; those outside the mask are ignored.
      mask: [num_sequences, time] bool.
      bootstrap: over the sequences.
      unit: of the values.
    """
    total, weight = np.where(mask, values, 0).sum(1, dtype=np.float64), mask.sum(1)
    return single(bootstrap.of(divide, total, weight), np.count_nonzero(weight), unit)


def sequence_mean(values: np.ndarray, mask: np.ndarray, bootstrap: Bootstrap, unit: str) -> Measure:
    """The mean over sequences of the mean over their tokens (sequence-macro).

        mean_i (sum_t v_it m_it / sum_t m_it)

    Args:
      values: [num_sequences, time] numbers; those outside the mask are ignored.
      mask: [num_sequences, time] bool; a sequence without a token is ignored.
      bootstrap: over the sequences.
      unit: of the values.
    """
    weight = mask.sum(1)
    means = np.where(mask, values, 0).sum(1, dtype=np.float64) / np.maximum(weight, 1)
    return single(bootstrap.of(divide, means, weight > 0), np.count_nonzero(weight), unit)


def mean_by_position(
    values: np.ndarray,
    mask: np.ndarray,
    bootstrap: Bootstrap,
    unit: str,
    min_count: int = MIN_COUNT,
    axis: str = "position",
) -> Measure:
    """The mean at each position over the sequences that reach it.

        v(t) = sum_i v_it m_it / n(t),   n(t) = sum_i m_it

    Args:
      values: [num_sequences, time] numbers; those outside the mask are ignored.
      mask: [num_sequences, time] bool.
      bootstrap: over the sequences.
      unit: of the values.
      min_count: the minimum number of sequences for a position.
      axis: of the columns.
    """
    arrays = np.where(mask, values, 0), mask
    return curve(
        bootstrap, divide, *arrays, n=mask.sum(0), axis=axis, unit=unit, min_count=min_count
    )


def exposure_gap(
    gold_right: np.ndarray,
    own_right: np.ndarray,
    mask: np.ndarray,
    bootstrap: Bootstrap,
    min_count: int = MIN_COUNT,
) -> dict[str, Measure]:
    """Accuracy with gold prefixes minus accuracy with own ones.

        G(t) = acc_gold(t) - acc_own(t)

    The interval is that of the difference, since both accuracies are of the same sequences.

    Args:
      gold_right: [num_sequences, time] bool, whether the most likely token after the gold prefix is
        the gold one.
      own_right: [num_sequences, time] bool, whether the model's own token is the gold one.
      mask: [num_sequences, time] bool.
      bootstrap: over the sequences.
      min_count: the minimum number of sequences for a position.

    Returns:
      "gap" over tokens, "gap_macro" over sequences, and "gap_by_position".
    """
    gap = gold_right.astype(np.int8) - own_right
    return {
        "gap": token_mean(gap, mask, bootstrap, "share"),
        "gap_macro": sequence_mean(gap, mask, bootstrap, "share"),
        "gap_by_position": mean_by_position(gap, mask, bootstrap, "share", min_count),
    }


def first_errors(
    right: np.ndarray, mask: np.ndarray, bootstrap: Bootstrap, min_count: int = MIN_COUNT
) -> dict[str, Measure]:
    """How likely the first error is, and how likely errors are after it.

        h(t) = P(error at t | none before)           e(d) = P(error at tau + d | first at tau)
        amplification = mean e / mean h

    The means are over tokens: all first errors over all positions at risk, and all later errors
    over all positions after a first one. An amplification of 1 means that an error has no effect on
    later ones.

    Args:
      right: [num_sequences, time] bool, whether the model's own token is the gold one.
      mask: [num_sequences, time] bool.
      bootstrap: over the sequences.
      min_count: the minimum number of sequences for a position or distance.

    Returns:
      "hazard", "hazard_by_position", "post_error_rate", "post_error_rate_by_distance" and
      "amplification". Values are NaN, and curves have no points, if no sequence has an error with
      tokens after it.
    """
    course = error_course(right, mask)
    at_distance, errs = (
        _from_first_error(some, course.fails) for some in (course.after, course.errs)
    )
    totals = [np.asarray(some).sum(1) for some in course]
    num_after = np.count_nonzero(totals[2])
    amplification = bootstrap.of(
        lambda at_risk, fails, after, errs: divide(divide(errs, after), divide(fails, at_risk)),
        *totals,
    )
    return {
        "hazard": token_mean(course.fails, course.at_risk, bootstrap, "probability"),
        "hazard_by_position": mean_by_position(
            course.fails, course.at_risk, bootstrap, "probability", min_count
        ),
        "post_error_rate": token_mean(course.errs, course.after, bootstrap, "probability"),
        "post_error_rate_by_distance": mean_by_position(
            errs, at_distance, bootstrap, "probability", min_count, "distance"
        ),
        "amplification": single(amplification, num_after, "ratio"),
    }


def _from_first_error(values: np.ndarray, fails: np.ndarray) -> np.ndarray:
    """[num_sequences, time - 1]: column d - 1 is column tau + d; False after the end."""
    return shift(values, np.where(fails.any(1), fails.argmax(1), values.shape[1]) + 1)


def shift(values: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Each row from its `start` on; zeros after the end.

    Args:
      values: [num_sequences, time].
      start: [num_sequences] the index that becomes the first.

    Returns:
      [num_sequences, time - 1].

    Example:
      >>> shift(np.array([[1, 2, 3], [4, 5, 6]]), np.array([1, 2])).tolist()
      [[2, 3], [6, 0]]
    """
    time = values.shape[1]
    index = start[:, None] + np.arange(time - 1)
    found = np.take_along_axis(values, np.minimum(index, time - 1), axis=1)
    return np.where(index < time, found, np.zeros((), values.dtype))
