"""The exact optimum of scheduled sampling and of noise feeding, by enumeration.

`s2s_jax.theory.recursion` says what is assumed.
"""

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


def scheduled_sampling_optimum(
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
    """The optimum of scheduled sampling or noise feeding, and its divergence from the truth.

    The targets are gold whatever was fed, and no gradient passes through the choice. So the best
    prediction after a fed prefix z is a mean over the gold prefixes y that may be paired with it:

        q_t(b | z) = sum_y alpha_t(y, z) P(b | y) / sum_y alpha_t(y, z)

    Let p be the teacher_prob and own(c | z) the distribution of the model's own token: q_t(c | z)
    if it samples, otherwise [c = argmax q_t(. | z)]. Then the weights are, for a coin per token and
    for a coin per sequence,

        alpha_{t+1}(yb, zc) = alpha_t(y, z) P(b | y) (p [b = c] + (1 - p) own(c | z))
        alpha_t(y, z) = p P(y) [y = z] + (1 - p) P(y) own(z_1) own(z_2 | z_1) ...

    For a Markov chain, a coin per token and samples as feed, this gives
    q_{t+1}(. | zc) = p P(. | c) + (1 - p) sum_b q_t(b | z) P(. | b). At p = 1 the optimum is the
    truth. At p = 0, if samples are fed, it is the product of the marginals, and KL(P || Q) is the
    total correlation. Huszár (2015), arXiv:1511.05101, shows the inconsistency for two tokens.

    If noise replaces the gold symbols, own(c | z) is noise(c) whatever z is. With a coin per token
    each fed symbol is then the gold one through a channel, and q the mean over what may have been
    sent. At p = 0 it is the product of the marginals, too:

        C(c | b) = p [b = c] + (1 - p) noise(c)
        q_t(b | z) = sum_y P(y) prod_i C(z_i | y_i) P(b | y) / sum_y P(y) prod_i C(z_i | y_i)

    Args:
      initial: see `s2s_jax.theory.chains.make_chain`, also for transition, length and emission.
      transition: likewise; it and emission may differ by step.
      length: likewise; num_symbols**length is at most `MAX_SEQUENCES`.
      teacher_prob: probability of feeding the gold symbol, in [0, 1]; with a coin per token it may
        be a row of length - 1, whose entry t decides about the symbol that is fed after step t.
      coin: which inputs share a toss, see `s2s_jax.rollout.toss_coins`; a coin per batch has the
        same optimum as one per sequence.
      feed: "sample" or "argmax" (the lowest symbol among equally likely ones). If two are equally
        likely, a trained model alternates between the argmaxes, and its optimum may be another one.
      noise: [num_symbols] distribution of the symbols that replace gold ones; None if the model's
        own replace them. With noise, feed must be "sample".
      emission: likewise; None if the symbols are the states (a Markov chain).

    Returns:
      The distributions by step, which of them training determines, and KL(P || Q).

    Raises:
      ValueError: probabilities that are negative, not finite or do not sum to 1; shapes that do
        not fit; an invalid length, teacher_prob, coin or feed; too many sequences.

    Example:
      >>> chain = (0.7, 0.3), ((0.9, 0.1), (0.2, 0.8))
      >>> optimum = scheduled_sampling_optimum(*chain, length=2, teacher_prob=0.5)
      >>> [round(float(q), 4) for q in optimum.probs[1][:, 0]]
      [0.795, 0.445]
      >>> round(optimum.kl, 6)
      0.067673
      >>> optimum = scheduled_sampling_optimum(*chain, 2, 0.5, noise=(0.5, 0.5))
      >>> [round(float(q), 5) for q in optimum.probs[1][:, 0]]
      [0.8125, 0.50625]
    """
    chain = make_chain(initial, transition, length, emission)
    roll_in = make_roll_in(chain, teacher_prob, coin, feed, noise)
    return make_optimum(make_steps(chain, roll_in))


def optimum_divergences(
    chains: Chains,
    teacher_prob: ArrayLike,
    *,
    coin: str = "token",
    feed: str = "sample",
    noise: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The divergence of `scheduled_sampling_optimum`'s optimum from the truth, for several chains.

    If P(. | x) is the chain given source x, the model's divergence given the sources is the mean

        KL(P || Q | X) = sum_x P(x) KL(P(. | x) || Q(. | x))

    Args:
      chains: for example from `s2s_jax.data.chain.ChainTruth.given`.
      teacher_prob: see `scheduled_sampling_optimum`, also for coin, feed and noise.
      coin: likewise.
      feed: likewise.
      noise: likewise; the same for all chains.

    Returns:
      [num_chains] float64 KL(P || Q) in nats, and [num_chains] bool, whether it is identified.

    Raises:
      ValueError: an invalid teacher_prob, coin, feed or noise; too many sequences.

    Example:
      >>> chain = make_chain((0.7, 0.3), ((0.9, 0.1), (0.2, 0.8)), length=3)
      >>> optimum_divergences(chain, 0.5, coin="sequence")[0].round(6).tolist()
      [0.133008]
    """
    roll_in = make_roll_in(chains, teacher_prob, coin, feed, noise)
    return find_divergences(chains, lambda some: make_steps(some, roll_in))


def next_token_tables(
    initial: ArrayLike, transition: ArrayLike, length: int, *, emission: ArrayLike | None = None
) -> tuple[np.ndarray, ...]:
    """The true distributions, in the form of `TrainingOptimum.probs`.

    Args:
      initial: see `scheduled_sampling_optimum`, also for transition, length and emission.
      transition: likewise.
      length: likewise.
      emission: likewise.

    Returns:
      For each step t a float64 array with t + 1 axes of num_symbols, P(b | y_1 ... y_t).

    Raises:
      ValueError: as `scheduled_sampling_optimum` does.

    Example:
      >>> tables = next_token_tables((0.7, 0.3), ((0.9, 0.1), (0.2, 0.8)), length=2)
      >>> tables[1].tolist()
      [[0.9, 0.1], [0.2, 0.8]]
    """
    return scheduled_sampling_optimum(initial, transition, length, 1.0, emission=emission).probs


def markov_sequence_probs(initial: ArrayLike, transition: ArrayLike, length: int) -> np.ndarray:
    """The probability of every sequence of a Markov chain.

        P(y) = P_1(y_1) P(y_2 | y_1) ... P(y_T | y_{T-1})

    Args:
      initial: [num_symbols] probabilities of the first symbol.
      transition: [num_symbols, num_symbols]; row a has the probabilities of the symbol after a.
      length: T, at least 1; num_symbols**length is at most `MAX_SEQUENCES`.

    Returns:
      float64, `length` axes of num_symbols; sums to 1.

    Raises:
      ValueError: as `scheduled_sampling_optimum` does.

    Example:
      >>> markov_sequence_probs((0.7, 0.3), ((0.9, 0.1), (0.2, 0.8)), length=2).round(2).tolist()
      [[0.63, 0.07], [0.06, 0.24]]
    """
    return sequence_probs(next_token_tables(initial, transition, length))


def sequence_probs(tables: tuple[np.ndarray, ...]) -> np.ndarray:
    """The probability of every sequence, from the distributions of the next token by step.

    Args:
      tables: for each step t an array with t + 1 axes of num_symbols.

    Returns:
      [num_symbols] * length.
    """
    joint = np.ones(())
    for table in tables:
        # The distribution after a prefix that does not occur may be undefined, and is ignored.
        joint = np.where(joint[..., None] > 0, joint[..., None] * table, 0.0)
    return joint
