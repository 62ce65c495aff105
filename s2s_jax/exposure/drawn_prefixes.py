"""Exposure bias against a known truth, over sampled prefixes if there are too many for all of them.

A function of prefixes may be for a single source or for one source per row. In the second case row
i of every call is the prefix of source i, for both truth and model, and num_samples is the number
of sources. The bootstrap draws row i of the truth's prefixes together with row i of the model's: if
the rows have the same source, they depend on each other; if not, this does no harm.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from s2s_jax.exposure.distances import find_distance
from s2s_jax.exposure.intervals import Bootstrap
from s2s_jax.exposure.known_truth import AccumulatedError, RelativeDistance, accumulate, relate
from s2s_jax.exposure.next_token import NextTokenProbs, ask, check_known, check_support
from s2s_jax.theory.chains import draw
from s2s_jax.theory.information import kl_divergence

_PLACE = "a prefix of row"


class AccumulatedErrorEstimate(NamedTuple):
    """An accumulated error, estimated from sampled sequences.

    Attributes:
      value: the estimate.
      low: lower ends of the intervals.
      high: upper ends of the intervals.
      num_samples: number of sequences sampled from the truth, and from the model.
    """

    value: AccumulatedError
    low: AccumulatedError
    high: AccumulatedError
    num_samples: int


def estimate_accumulated_error(
    truth: NextTokenProbs,
    model: NextTokenProbs,
    length: int,
    *,
    num_samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    num_resamples: int = 1000,
) -> AccumulatedErrorEstimate:
    """`accumulated_error` over sampled prefixes, for when there are too many to enumerate.

    The divergence after each sampled prefix is exact; only the prefixes are sampled, num_samples
    from the truth and num_samples from the model. Intervals are percentiles of the bootstrap over
    whole sequences.

    Args:
      truth: prefixes [n, t] -> [n, num_symbols].
      model: likewise; both are called twice per step.
      length: of the sequences.
      num_samples: n, at least 2.
      seed: of the draws.
      confidence: of the intervals, in (0, 1).
      num_resamples: of the bootstrap.

    Returns:
      Estimates with their intervals, separately for each length.

    Raises:
      ValueError: as for `accumulated_error`, after the sampled prefixes; a number is out of range.
    """
    found = _draw_both(truth, model, length, num_samples, seed, _divergence)
    bootstrap = Bootstrap(num_samples, num_resamples, confidence, seed)
    interval = bootstrap.of(
        lambda gold, own: np.stack(accumulate(gold, own), axis=-2),
        *(np.cumsum(values, axis=1) for values in found),
    )
    value, low, high = (AccumulatedError(*ends) for ends in interval)
    return AccumulatedErrorEstimate(value, low, high, num_samples)


def estimate_relative_distance(
    truth: NextTokenProbs,
    model: NextTokenProbs,
    length: int,
    distance: str = "total_variation",
    *,
    num_samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    num_resamples: int = 1000,
) -> tuple[RelativeDistance, RelativeDistance, RelativeDistance]:
    """`relative_distance` over sampled prefixes; see `estimate_accumulated_error`.

    Args:
      truth: see `estimate_accumulated_error`.
      model: likewise.
      length: likewise.
      distance: a name of `DISTANCES`.
      num_samples: likewise.
      seed: likewise.
      confidence: likewise.
      num_resamples: likewise.

    Returns:
      The estimate, and the lower and upper ends of its bootstrap intervals.

    Raises:
      ValueError: a number is out of range, the distance is unknown, or truth or model does not
        return distributions.
    """
    measure = find_distance(distance)

    def between(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        check_known(p, q, np.ones(len(p), bool), _PLACE)
        return measure(q, p)

    found = _draw_both(truth, model, length, num_samples, seed, between)
    bootstrap = Bootstrap(num_samples, num_resamples, confidence, seed)
    interval = bootstrap.of(lambda gold, own: np.stack(relate(gold, own), axis=-2), *found)
    value, low, high = (RelativeDistance(*ends) for ends in interval)
    return value, low, high


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    check_support(p, q, np.ones(len(p), bool), _PLACE)
    return kl_divergence(p, q)


def _draw_both(
    truth: NextTokenProbs,
    model: NextTokenProbs,
    length: int,
    num_samples: int,
    seed: int,
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """`_draw` from the truth and from the model: both [num_samples, length]."""
    for name, value, least in (("length", length, 1), ("num_samples", num_samples, 2)):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    generator = np.random.default_rng(seed)
    gold, own = (
        _draw(source, truth, model, length, num_samples, generator, measure)
        for source in (truth, model)
    )
    return gold, own


def _draw(
    source: NextTokenProbs,
    truth: NextTokenProbs,
    model: NextTokenProbs,
    length: int,
    num_samples: int,
    generator: np.random.Generator,
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """measure(truth, model) after every prefix of sequences sampled from source: [n, length]."""
    prefixes = np.zeros((num_samples, 0), np.int32)
    found = []
    for _ in range(length):
        p, q = ask(truth, prefixes), ask(model, prefixes)
        if p.shape != q.shape:
            raise ValueError(f"truth and model answer with shapes {p.shape} and {q.shape}")
        found.append(measure(p, q))
        tokens = draw(p if source is truth else q, generator)
        prefixes = np.concatenate([prefixes, tokens[:, None]], axis=1)
    return np.stack(found, axis=1)
