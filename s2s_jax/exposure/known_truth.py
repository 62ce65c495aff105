"""Exposure bias measured against a known truth: how errors grow on the model's own prefixes.

Truth and model are tables of the next symbol's distribution after every prefix, so everything is
exact, by enumeration; `drawn_prefixes` has the same for functions of prefixes. If a model also has
reserved tokens, it must first be restricted to the symbols and normalised, as in
`next_token.make_next_token_probs`. Everything is numpy in double precision, in nats.
"""

from typing import NamedTuple

import numpy as np

from s2s_jax.exposure.distances import find_distance
from s2s_jax.exposure.intervals import divide
from s2s_jax.exposure.next_token import Tables, check_known, check_support
from s2s_jax.theory.information import kl_divergence


class AccumulatedError(NamedTuple):
    """The cost of a model's own prefixes, by length l = 1 ... length.

    Attributes:
      gold_divergence: [length] nats, l eps_l: the divergence summed over gold prefixes.
      own_divergence: [length] nats, R_l: the same over the model's own prefixes.
      accumulated: [length], AccErr(l) = R_l / eps_l; equals l if there is no exposure bias.
      excess_percent: [length], %ExAccErr(l); 0 if there is no exposure bias.
    """

    gold_divergence: np.ndarray
    own_divergence: np.ndarray
    accumulated: np.ndarray
    excess_percent: np.ndarray


class RelativeDistance(NamedTuple):
    """The distance of the model's next-token distribution from the truth's, by prefix length.

    Attributes:
      gold_distance: [length], after t = 0 ... length - 1 gold tokens: CGD(M|D, t).
      own_distance: [length], after t of the model's own tokens: CGD(M|M, t).
      ratio: [length], EB-C(t) = own / gold; above 1 means exposure bias, NaN where both are 0.
    """

    gold_distance: np.ndarray
    own_distance: np.ndarray
    ratio: np.ndarray


def accumulated_error(truth: Tables, model: Tables) -> AccumulatedError:
    """How much larger a model's error is on its own prefixes than on gold ones, exactly.

        l eps_l = sum_{t <= l} E_{y ~ P} KL(P(. | y_<t) || Q(. | y_<t)) = KL(P_1:l || Q_1:l)
        R_l     = sum_{t <= l} E_{y ~ Q} KL(P(. | y_<t) || Q(. | y_<t))
        AccErr(l) = R_l / eps_l,   %ExAccErr(l) = 100 (R_l - l eps_l) / (l eps_l)

    Arora et al. (2022), "Why Exposure Bias Matters", arXiv:2204.01171, without the context that
    their code counts in both. ExAccErr(1) is 0, because nothing has been fed yet. As long as truth
    and model agree everywhere, both ratios are 0/0 and NaN.

    Args:
      truth: tables of P, see `Tables`; they must be known after every prefix that Q can produce.
      model: tables of Q.

    Returns:
      Arrays over l = 1 ... length.

    Raises:
      ValueError: the tables do not fit or are not distributions; or truth or model gives
        probability 0 to a token that the other can produce, so that the divergence is infinite.

    Example:
      >>> from s2s_jax.theory.optimum import next_token_tables
      >>> truth = next_token_tables((0.7, 0.3), ((0.95, 0.05), (0.3, 0.7)), length=4)
      >>> model = next_token_tables((0.7, 0.3), ((0.9, 0.1), (0.05, 0.95)), length=4)
      >>> accumulated_error(truth, model).excess_percent.round(1).tolist()
      [nan, 0.0, 16.8, 33.0]
    """
    _check_tables(truth, model)
    on_gold, on_own = np.ones(()), np.ones(())
    gold, own = [], []
    for p, q in zip(truth, model, strict=True):
        check_support(p, q, (on_gold > 0) | (on_own > 0))
        gold.append((on_gold * kl_divergence(p, q, where=on_gold > 0)).sum())
        own.append((on_own * kl_divergence(p, q, where=on_own > 0)).sum())
        on_gold, on_own = _extend(on_gold, p), _extend(on_own, q)
    return accumulate(np.cumsum(gold), np.cumsum(own))


def relative_distance(
    truth: Tables, model: Tables, distance: str = "total_variation"
) -> RelativeDistance:
    """EB-C: the model's distance from the truth after its own prefixes, relative to gold ones.

        CGD(M|R, t) = E_{y ~ R} d(P_M(. | y_1 ... y_t), P_D(. | y_1 ... y_t))
        EB-C(t) = CGD(M|M, t) / CGD(M|D, t)

    He et al. (2021), "Exposure Bias versus Self-Recovery", arXiv:1905.10617.

    Args:
      truth: tables of P_D, see `Tables`; known after every prefix that P_M can produce.
      model: tables of P_M.
      distance: a name of `DISTANCES`.

    Returns:
      Arrays over t = 0 ... length - 1 preceding tokens. At t = 0 the ratio is 1, or NaN.

    Raises:
      ValueError: the tables do not fit or are not distributions, or the distance is unknown.

    Example:
      >>> from s2s_jax.theory.optimum import next_token_tables
      >>> truth = next_token_tables((0.5, 0.5), ((0.9, 0.1), (0.2, 0.8)), length=3)
      >>> model = next_token_tables((0.6, 0.4), ((0.8, 0.2), (0.2, 0.8)), length=3)
      >>> relative_distance(truth, model).ratio.round(3).tolist()
      [1.0, 1.2, 1.018]
    """
    measure = find_distance(distance)
    _check_tables(truth, model)
    on_gold, on_own = np.ones(()), np.ones(())
    gold, own = [], []
    for p, q in zip(truth, model, strict=True):
        check_known(p, q, (on_gold > 0) | (on_own > 0))
        apart = np.nan_to_num(measure(q, p))  # rows after prefixes without mass may be NaN
        gold.append((on_gold * apart).sum())
        own.append((on_own * apart).sum())
        on_gold, on_own = _extend(on_gold, p), _extend(on_own, q)
    return relate(np.array(gold), np.array(own))


def accumulate(gold: np.ndarray, own: np.ndarray) -> AccumulatedError:
    """From divergences [..., length], summed up to each length, after gold and own prefixes."""
    lengths = np.arange(1, gold.shape[-1] + 1)
    ratio = divide(own, gold)
    return AccumulatedError(gold, own, lengths * ratio, 100 * (ratio - 1))


def relate(gold: np.ndarray, own: np.ndarray) -> RelativeDistance:
    """From mean distances [..., length] after gold and own prefixes."""
    return RelativeDistance(gold, own, divide(own, gold))


def _extend(mass: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The mass of prefixes that are one longer; after one without mass, a table may be NaN."""
    return np.where(mass[..., None] > 0, mass[..., None] * table, 0.0)


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
