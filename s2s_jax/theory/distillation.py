"""The exact optimum of distillation from a teacher that knows the truth."""

import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.theory.chains import Chains, make_chain
from s2s_jax.theory.recursion import (
    TrainingOptimum,
    find_divergences,
    make_optimum,
    make_roll_in,
    make_steps,
)


def distillation_optimum(
    initial: ArrayLike,
    transition: ArrayLike,
    length: int,
    teacher_prob: ArrayLike,
    *,
    coin: str = "token",
    feed: str = "sample",
    noise: ArrayLike | None = None,
    emission: ArrayLike | None = None,
) -> TrainingOptimum:
    """The optimum of distillation with the truth as teacher: the truth, wherever it is fed.

    Prefixes are fed as in scheduled sampling. The target after a prefix z is the teacher's
    distribution, whatever the gold sequence is, and it is valid after any prefix:

        q_t(b | z) = P(b | z),   KL(P || Q) = 0

    This holds for every divergence between teacher and model that is 0 only where they are equal:
    forward KL, reverse KL, and what lies between. A fed prefix may be impossible under the truth,
    by noise, or by gold symbols among the model's own; `s2s_jax.theory.chains.observe` says what P
    is there. Agarwal et al. (2024), "On-Policy Distillation of
    Language Models", arXiv:2306.13649.

    Args:
      initial: see `s2s_jax.theory.chains.make_chain`, also for transition, length and emission.
      transition: likewise; it and emission may differ by step.
      length: likewise; num_symbols**length is at most `MAX_SEQUENCES`.
      teacher_prob: see `s2s_jax.theory.optimum.scheduled_sampling_optimum`, also for coin, feed and
        noise.
      coin: likewise.
      feed: likewise.
      noise: likewise.
      emission: likewise; None if the symbols are the states (a Markov chain).

    Returns:
      The truth's distributions by step, how often their prefixes are fed, and 0.

    Raises:
      ValueError: as `scheduled_sampling_optimum` does.

    Example:
      >>> chain = (0.7, 0.3), ((0.9, 0.1), (0.2, 0.8))
      >>> optimum = distillation_optimum(*chain, length=3, teacher_prob=0.0)
      >>> optimum.probs[1].tolist(), optimum.kl, optimum.kl_is_identified
      ([[0.9, 0.1], [0.2, 0.8]], 0.0, True)
    """
    chain = make_chain(initial, transition, length, emission)
    roll_in = make_roll_in(chain, teacher_prob, coin, feed, noise)
    return make_optimum(make_steps(chain, roll_in, _teach))


def distillation_divergences(
    chains: Chains,
    teacher_prob: ArrayLike,
    *,
    coin: str = "token",
    feed: str = "sample",
    noise: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The divergence of `distillation_optimum`'s optimum from the truth, for several chains.

    Args:
      chains: see `s2s_jax.theory.optimum.optimum_divergences`.
      teacher_prob: see `distillation_optimum`, also for coin, feed and noise.
      coin: likewise.
      feed: likewise.
      noise: likewise; the same for all chains.

    Returns:
      [num_chains] float64 zeros, and [num_chains] bool, whether every prefix that occurs is fed.

    Raises:
      ValueError: an invalid teacher_prob, coin, feed or noise; too many sequences.

    Example:
      >>> chain = make_chain((0.7, 0.3), ((0.9, 0.1), (0.2, 0.8)), length=3)
      >>> kl, identified = distillation_divergences(chain, 0.0, feed="argmax")
      >>> kl.tolist(), identified.tolist()
      ([0.0], [False])
    """
    roll_in = make_roll_in(chains, teacher_prob, coin, feed, noise)
    return find_divergences(chains, lambda some: make_steps(some, roll_in, _teach))


def _teach(step: int, belief: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return truth
