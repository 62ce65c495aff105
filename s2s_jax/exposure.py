"""Exposure bias measured against a known truth: how errors grow on prefixes of the model's own.

Truth and model are distributions of the next symbol, either as tables over all prefixes (then
everything is exact, by enumeration) or as functions of prefixes (then prefixes are drawn). Symbols
are 0 ... num_symbols - 1 and sequences have one length; a model that also knows reserved tokens is
to be restricted to the symbols, and normalised, first. All is numpy in double precision, in nats.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.theory import MAX_SEQUENCES, kl_divergence

NextTokenProbs = Callable[[np.ndarray], ArrayLike]
"""prefixes [num_prefixes, t] int32 -> probabilities of what follows, [num_prefixes, num_symbols].

The empty prefix comes as [num_prefixes, 0].
"""

Tables = Sequence[np.ndarray]
"""For each step t an array with t + 1 axes of num_symbols: p(b | y_1 ... y_t).

`s2s_jax.theory` makes those of a truth, and of what scheduled sampling makes of it.
"""

_ROUNDING = 1e-12  # nats: a divergence up to this is none


class AccumulatedError(NamedTuple):
    """What a model's own prefixes cost it, by length l = 1 ... length.

    Attributes:
      gold_divergence: [length] nats, l eps_l: the divergence summed over gold prefixes.
      own_divergence: [length] nats, R_l: the same over the model's own prefixes.
      accumulated: [length], AccErr(l) = R_l / eps_l; l where there is no exposure bias.
      excess_percent: [length], %ExAccErr(l); 0 where there is no exposure bias.
    """

    gold_divergence: np.ndarray
    own_divergence: np.ndarray
    accumulated: np.ndarray
    excess_percent: np.ndarray


class AccumulatedErrorEstimate(NamedTuple):
    """An accumulated error from drawn sequences.

    Attributes:
      value: the estimate.
      low: lower ends of the intervals.
      high: upper ends of the intervals.
      num_samples: sequences drawn from the truth, and as many from the model.
    """

    value: AccumulatedError
    low: AccumulatedError
    high: AccumulatedError
    num_samples: int


class RelativeDistance(NamedTuple):
    """How far the model's next-token distribution is from the truth's, by prefix length.

    Attributes:
      gold_distance: [length], behind t = 0 ... length - 1 gold tokens: CGD(M|D, t).
      own_distance: [length], behind t of the model's own: CGD(M|M, t).
      ratio: [length], EB-C(t) = own / gold; above 1 means exposure bias, NaN where both are 0.
    """

    gold_distance: np.ndarray
    own_distance: np.ndarray
    ratio: np.ndarray


def tabulate(
    next_token_probs: NextTokenProbs, num_symbols: int, length: int
) -> tuple[np.ndarray, ...]:
    """Asks a function about every prefix there is.

    Args:
      next_token_probs: prefixes [n, t] -> [n, num_symbols]; called once for each t < length.
      num_symbols: how many symbols there are.
      length: of the sequences; num_symbols**length is at most `MAX_SEQUENCES`.

    Returns:
      Tables: for each step t an array with t + 1 axes of num_symbols.

    Raises:
      ValueError: too many sequences, or an answer of another shape.

    Example:
      >>> [table.shape for table in tabulate(lambda prefix: np.full((len(prefix), 2), 0.5), 2, 3)]
      [(2,), (2, 2), (2, 2, 2)]
    """
    if length < 1 or num_symbols < 1:
        raise ValueError(f"length is {length} and num_symbols {num_symbols}; both are at least 1")
    if num_symbols**length > MAX_SEQUENCES:
        raise ValueError(
            f"{num_symbols} symbols have {num_symbols**length} sequences of length {length}; at"
            f" most {MAX_SEQUENCES} can be enumerated, so draw sequences instead"
        )
    tables = []
    for step in range(length):
        shape = (num_symbols,) * step
        prefixes = np.indices(shape, np.int32).reshape(step, num_symbols**step).T
        tables.append(_ask(next_token_probs, prefixes, num_symbols).reshape(*shape, num_symbols))
    return tuple(tables)


def accumulated_error(truth: Tables, model: Tables) -> AccumulatedError:
    """How much more a model errs on its own prefixes than on gold ones, exactly.

        l eps_l = sum_{t <= l} E_{y ~ P} KL(P(. | y_<t) || Q(. | y_<t)) = KL(P_1:l || Q_1:l)
        R_l     = sum_{t <= l} E_{y ~ Q} KL(P(. | y_<t) || Q(. | y_<t))
        AccErr(l) = R_l / eps_l,   %ExAccErr(l) = 100 (R_l - l eps_l) / (l eps_l)

    Arora et al. (2022), "Why Exposure Bias Matters", arXiv:2204.01171, without the context that
    their code counts in both. ExAccErr(1) is 0, since nothing was fed yet. Up to a length at which
    the two agree everywhere both ratios are 0/0, and NaN.

    Args:
      truth: tables of P, see `Tables`; they must be known behind every prefix that Q can make.
      model: tables of Q.

    Returns:
      Arrays over l = 1 ... length.

    Raises:
      ValueError: tables that do not fit or hold no distributions; a truth that gives 0 to a token
        that the model can make, or the other way round: the divergence is infinite.

    Example:
      >>> from s2s_jax.theory import next_token_tables
      >>> truth = next_token_tables((0.7, 0.3), ((0.95, 0.05), (0.3, 0.7)), length=4)
      >>> model = next_token_tables((0.7, 0.3), ((0.9, 0.1), (0.05, 0.95)), length=4)
      >>> accumulated_error(truth, model).excess_percent.round(1).tolist()
      [nan, 0.0, 16.8, 33.0]
    """
    _check_tables(truth, model)
    on_gold, on_own = np.ones(()), np.ones(())
    gold, own = [], []
    for p, q in zip(truth, model, strict=True):
        _check_support(p, q, (on_gold > 0) | (on_own > 0))
        gold.append((on_gold * kl_divergence(p, q, where=on_gold > 0)).sum())
        own.append((on_own * kl_divergence(p, q, where=on_own > 0)).sum())
        on_gold, on_own = _extend(on_gold, p), _extend(on_own, q)
    return _accumulate(np.cumsum(gold), np.cumsum(own))


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
    """`accumulated_error` where there are too many prefixes: over drawn ones.

    The divergence behind each drawn prefix is exact, only the prefixes are drawn, num_samples of
    the truth's and num_samples of the model's. Intervals are percentiles of the bootstrap over
    whole sequences.

    Args:
      truth: prefixes [n, t] -> [n, num_symbols].
      model: likewise; both are called twice a step.
      length: of the sequences.
      num_samples: n, at least 2.
      seed: of the draws.
      confidence: of the intervals, in (0, 1).
      num_resamples: of the bootstrap.

    Returns:
      Estimates with their intervals, for each length on its own.

    Raises:
      ValueError: as `accumulated_error` does, behind the drawn prefixes; numbers out of range.
    """
    _check_sampling(length, num_samples, confidence, num_resamples)
    generator = np.random.default_rng(seed)
    sums = [
        np.cumsum(_draw(source, truth, model, length, num_samples, generator, _divergence), axis=1)
        for source in (truth, model)
    ]
    value = _accumulate(sums[0].mean(0), sums[1].mean(0))
    counts = [
        generator.multinomial(num_samples, np.full(num_samples, 1 / num_samples), num_resamples)
        for _ in sums
    ]
    means = [count @ sum_ / num_samples for count, sum_ in zip(counts, sums, strict=True)]
    resampled = _accumulate(*means)
    tail = (1 - confidence) / 2
    low, high = (
        AccumulatedError(*(np.quantile(values, level, axis=0) for values in resampled))
        for level in (tail, 1 - tail)
    )
    return AccumulatedErrorEstimate(value, low, high, num_samples)


def relative_distance(
    truth: Tables, model: Tables, distance: str = "total_variation"
) -> RelativeDistance:
    """EB-C: how far the model is from the truth behind its own prefixes, relative to gold ones.

        CGD(M|R, t) = E_{y ~ R} d(P_M(. | y_1 ... y_t), P_D(. | y_1 ... y_t))
        EB-C(t) = CGD(M|M, t) / CGD(M|D, t)

    He et al. (2021), "Exposure Bias versus Self-Recovery", arXiv:1905.10617.

    Args:
      truth: tables of P_D, see `Tables`; they must be known behind every prefix that P_M can make.
      model: tables of P_M.
      distance: a name of `DISTANCES`.

    Returns:
      Arrays over t = 0 ... length - 1 tokens before. At t = 0 the ratio is 1, or NaN.

    Raises:
      ValueError: tables that do not fit or hold no distributions, or an unknown distance.

    Example:
      >>> from s2s_jax.theory import next_token_tables
      >>> truth = next_token_tables((0.5, 0.5), ((0.9, 0.1), (0.2, 0.8)), length=3)
      >>> model = next_token_tables((0.6, 0.4), ((0.8, 0.2), (0.2, 0.8)), length=3)
      >>> relative_distance(truth, model).ratio.round(3).tolist()
      [1.0, 1.2, 1.018]
    """
    measure = _find_distance(distance)
    _check_tables(truth, model)
    on_gold, on_own = np.ones(()), np.ones(())
    gold, own = [], []
    for p, q in zip(truth, model, strict=True):
        _check_known(p, q, (on_gold > 0) | (on_own > 0))
        apart = np.nan_to_num(measure(q, p))  # rows of NaN stand behind prefixes without mass
        gold.append((on_gold * apart).sum())
        own.append((on_own * apart).sum())
        on_gold, on_own = _extend(on_gold, p), _extend(on_own, q)
    return _relate(np.array(gold), np.array(own))


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
    """`relative_distance` over drawn prefixes, as `estimate_accumulated_error` does it.

    Args:
      truth: see `estimate_accumulated_error`, also for all that is not named here.
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
      ValueError: numbers out of range, an unknown distance, or no distributions.
    """
    measure = _find_distance(distance)
    _check_sampling(length, num_samples, confidence, num_resamples)
    generator = np.random.default_rng(seed)

    def between(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        _check_known(p, q, np.ones(len(p), bool))
        return measure(q, p)

    drawn = [
        _draw(source, truth, model, length, num_samples, generator, between)
        for source in (truth, model)
    ]
    means = []
    for values in drawn:
        even = np.full(num_samples, 1 / num_samples)
        means.append(generator.multinomial(num_samples, even, num_resamples) @ values / num_samples)
    resampled = _relate(*means)
    tail = (1 - confidence) / 2
    low, high = (
        RelativeDistance(*(np.quantile(values, level, axis=0) for values in resampled))
        for level in (tail, 1 - tail)
    )
    return _relate(drawn[0].mean(0), drawn[1].mean(0)), low, high


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


DISTANCES: dict[str, Callable[[ArrayLike, ArrayLike], np.ndarray]] = {
    "total_variation": total_variation,
    "jensen_shannon": jensen_shannon,
}
"""What `relative_distance` can measure with."""


def _accumulate(gold: np.ndarray, own: np.ndarray) -> AccumulatedError:
    """From summed divergences [..., length]."""
    lengths = np.arange(1, gold.shape[-1] + 1)
    ratio = _ratio(own, gold)
    return AccumulatedError(gold, own, lengths * ratio, 100 * (ratio - 1))


def _relate(gold: np.ndarray, own: np.ndarray) -> RelativeDistance:
    return RelativeDistance(gold, own, _ratio(own, gold))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """NaN for 0/0, inf for something over 0."""
    above, below = (np.where(values > _ROUNDING, values, 0.0) for values in (above, below))
    with np.errstate(divide="ignore", invalid="ignore"):
        return above / below


def _extend(mass: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The mass of prefixes that are one longer; behind one without mass, a table may be NaN."""
    return np.where(mass[..., None] > 0, mass[..., None] * table, 0.0)


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    _check_support(p, q, np.ones(len(p), bool))
    return kl_divergence(p, q)


def _draw(
    source: NextTokenProbs,
    truth: NextTokenProbs,
    model: NextTokenProbs,
    length: int,
    num_samples: int,
    generator: np.random.Generator,
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """measure(truth, model) behind every prefix of sequences drawn from source: [n, length]."""
    prefixes = np.zeros((num_samples, 0), np.int32)
    found = []
    for _ in range(length):
        p, q = _ask(truth, prefixes), _ask(model, prefixes)
        if p.shape != q.shape:
            raise ValueError(f"truth and model answer with shapes {p.shape} and {q.shape}")
        found.append(measure(p, q))
        cumulated = np.cumsum(p if source is truth else q, axis=-1)
        drawn = generator.random((num_samples, 1)) * cumulated[:, -1:]
        tokens = (cumulated <= drawn).sum(-1, dtype=np.int32)
        prefixes = np.concatenate([prefixes, tokens[:, None]], axis=1)
    return np.stack(found, axis=1)


def _ask(
    next_token_probs: NextTokenProbs, prefixes: np.ndarray, num_symbols: int | None = None
) -> np.ndarray:
    probs = np.asarray(next_token_probs(prefixes), np.float64)
    wanted = (len(prefixes), probs.shape[-1] if num_symbols is None and probs.ndim else num_symbols)
    if probs.shape != wanted:
        raise ValueError(
            f"next-token probabilities of {len(prefixes)} prefixes have shape {probs.shape}; they"
            f" must have a row for each and a column for each symbol"
        )
    return probs


def _check_tables(truth: Tables, model: Tables) -> None:
    if not len(truth) or len(truth) != len(model):
        raise ValueError(
            f"truth has {len(truth)} tables and model {len(model)}; both need one for each step"
        )
    num_symbols = np.shape(truth[0])[-1] if np.ndim(truth[0]) else 0
    for step, (p, q) in enumerate(zip(truth, model, strict=True)):
        wanted = (num_symbols,) * (step + 1)
        for name, table in (("truth", p), ("model", q)):
            if np.shape(table) != wanted:
                raise ValueError(
                    f"the {name}'s table of step {step} has shape {np.shape(table)}, not {wanted}"
                )


def _check_known(p: np.ndarray, q: np.ndarray, occurs: np.ndarray) -> None:
    """Refuses what is no distribution behind a prefix that occurs."""
    for name, table in (("truth", p), ("model", q)):
        good = np.all(table >= 0, axis=-1) & (np.abs(table.sum(-1) - 1) < 1e-4)
        bad = np.argwhere(occurs & ~good)
        if len(bad):
            where = tuple(bad[0].tolist())
            raise ValueError(f"the {name} has no distribution of probabilities at prefix {where}")


def _check_support(p: np.ndarray, q: np.ndarray, occurs: np.ndarray) -> None:
    """Refuses an infinite divergence, and a truth that rules out what the model can make."""
    _check_known(p, q, occurs)
    for name, other, table, against in (("truth", "model", p, q), ("model", "truth", q, p)):
        bad = np.argwhere(occurs[..., None] & (table == 0) & (against > 0))
        if len(bad):
            *where, token = bad[0].tolist()
            raise ValueError(
                f"the {name} gives 0 to token {token} at prefix {tuple(where)}, where the {other}"
                " has mass: accumulated error is undefined"
            )


def _check_sampling(length: int, num_samples: int, confidence: float, num_resamples: int) -> None:
    for name, value, least in (
        ("length", length, 1),
        ("num_samples", num_samples, 2),
        ("num_resamples", num_resamples, 1),
    ):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must be in (0, 1)")


def _find_distance(name: str) -> Callable[[ArrayLike, ArrayLike], np.ndarray]:
    if name not in DISTANCES:
        raise ValueError(f"distance is {name!r}; it must be one of {', '.join(DISTANCES)}")
    return DISTANCES[name]
