"""The exact optimum of reward augmented maximum likelihood with the Hamming distance."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.theory.chains import Chains, make_chain
from s2s_jax.theory.recursion import (
    ALL_GOLD,
    Step,
    TrainingOptimum,
    find_divergences,
    make_optimum,
    make_steps,
)


def replacement_prob(num_symbols: int, tau: float) -> float:
    """The probability that RAML replaces a symbol, if the reward is minus the Hamming distance.

        p = (V - 1) e^(-1/tau) / (1 + (V - 1) e^(-1/tau))

    Args:
      num_symbols: V, how many symbols there are.
      tau: temperature, at least 0; at 0 nothing is replaced.

    Raises:
      ValueError: an invalid tau.

    Example:
      >>> round(replacement_prob(num_symbols=2, tau=0.5), 6)
      0.119203
    """
    weight = (num_symbols - 1) * _weight(tau)
    return weight / (1 + weight)


def raml_optimum(
    initial: ArrayLike,
    transition: ArrayLike,
    length: int,
    tau: float,
    emission: ArrayLike | None = None,
) -> TrainingOptimum:
    """The optimum of reward augmented maximum likelihood (RAML), and its divergence from the truth.

    Fed and target is a corrupted sequence y', drawn with probability proportional to
    exp(-Hamming(y', y) / tau). This replaces each symbol independently, with probability p, by one
    of the V - 1 others. So the optimum is the truth seen through a channel:

        Q(y') = sum_y P(y) prod_t C(y'_t | y_t),   C(b | a) = 1 - p if b = a, otherwise p / (V - 1)
        q_t(b | z) = Q(z b) / Q(z),   p as in `replacement_prob`

    As tau -> 0 it becomes the truth; as tau -> inf, uniform. Norouzi et al. (2016), "Reward
    Augmented Maximum Likelihood for Neural Structured Prediction", arXiv:1609.00150.

    Args:
      initial: see `s2s_jax.theory.chains.make_chain`, also for transition, length and emission.
      transition: likewise; it and emission may differ by step.
      length: likewise; the last symbol is corrupted like the others.
      tau: temperature, at least 0; at 0 nothing is corrupted.
      emission: likewise; None if the symbols are the states (a Markov chain).

    Returns:
      The distributions by step and KL(P || Q); `fed_probs` are those of corrupted prefixes.

    Raises:
      ValueError: invalid probabilities, an invalid length or tau; too many sequences.

    Example:
      >>> chain = (0.7, 0.3), ((0.9, 0.1), (0.2, 0.8))
      >>> optimum = raml_optimum(*chain, length=3, tau=0.5)
      >>> [round(float(q), 4) for q in optimum.probs[0]]
      [0.6523, 0.3477]
    """
    chain = make_chain(initial, transition, length, emission)
    return make_optimum(_make_steps(chain, tau))


def raml_divergences(chains: Chains, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """The divergence of `raml_optimum`'s optimum from the truth, for several chains.

    Args:
      chains: see `s2s_jax.theory.optimum.optimum_divergences`.
      tau: see `raml_optimum`.

    Returns:
      [num_chains] float64 KL(P || Q) in nats, and [num_chains] bool, whether it is identified. It
      always is: every sequence stays uncorrupted now and then.

    Raises:
      ValueError: an invalid tau; too many sequences.

    Example:
      >>> chain = make_chain((0.7, 0.3), ((0.9, 0.1), (0.2, 0.8)), length=3)
      >>> raml_divergences(chain, 0.0)[0].tolist()
      [0.0]
    """
    return find_divergences(chains, lambda some: _make_steps(some, tau))


def _make_steps(chains: Chains, tau: float) -> Iterator[Step]:
    weight, num_symbols = _weight(tau), chains.num_symbols
    channel = np.where(np.eye(num_symbols, dtype=bool), 1.0, weight)
    channel /= 1 + (num_symbols - 1) * weight
    corrupted = chains._replace(emission=chains.emission @ channel)
    pairs = zip(make_steps(chains, ALL_GOLD), make_steps(corrupted, ALL_GOLD), strict=True)
    for clean, noisy in pairs:
        yield Step(clean.mass, noisy.mass, clean.truth, noisy.truth)


def _weight(tau: float) -> float:
    """exp(-1 / tau), how likely one particular replacement is, compared with none."""
    if not tau >= 0:
        raise ValueError(f"tau is {tau}; it must be at least 0")
    return math.exp(-1 / tau) if tau else 0.0
