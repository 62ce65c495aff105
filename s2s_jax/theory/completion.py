"""The exact optimum of optimal completion distillation."""

from itertools import islice

import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.theory.chains import Chains, make_chain
from s2s_jax.theory.edits import all_sequences, edit_distances
from s2s_jax.theory.recursion import (
    ALL_GOLD,
    Target,
    TrainingOptimum,
    check_size,
    find_divergences,
    make_optimum,
    make_roll_in,
    make_steps,
)


def completion_optimum(
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
    """The optimum of optimal completion distillation (OCD), and its divergence from the truth.

    Prefixes are fed as in scheduled sampling. The target u after a prefix z of t symbols is uniform
    over the distinct next symbols that keep the final edit distance to the gold sequence y minimal,
    and the optimum is its mean over the gold sequences that may be paired with z:

        D(t, j) = Levenshtein distance of z_1 ... z_t and y_1 ... y_j,   j = 0 ... length - 1
        u(. | z, y) = uniform over {y_{j+1}: D(t, j) = min_k D(t, k)}
        q_t(b | z) = sum_y w_t(y, z) u(b | z, y) / sum_y w_t(y, z)

    As sequences have no end symbol here, the last symbol plays its part. Let p be the teacher_prob
    and own(c | z) as in `scheduled_sampling_optimum`. Then the weights are, for a coin per token
    and for a coin per sequence,

        w_t(y, z) = P(y) prod_{i <= t} (p [z_i = y_i] + (1 - p) own(z_i | z_<i))
        w_t(y, z) = P(y) (p [z = y_1 ... y_t] + (1 - p) prod_{i <= t} own(z_i | z_<i))

    After a gold prefix the only optimal symbol is the next gold one, so at p = 1 the optimum is the
    truth. At p = 0 what was fed says nothing about y, so q is the mean over all y by P(y): valid
    advice for each of them, but not the truth, which is the mean over those that begin with z.
    Sabour et al. (2019), "Optimal Completion Distillation", arXiv:1810.01398.

    Args:
      initial: see `s2s_jax.theory.chains.make_chain`, also for transition, length and emission.
      transition: likewise; it and emission may differ by step.
      length: likewise; there may be at most `MAX_SEQUENCES` pairs, num_symbols**(2 length).
      teacher_prob: see `s2s_jax.theory.optimum.scheduled_sampling_optimum`, also for coin, feed and
        noise.
      coin: likewise.
      feed: likewise.
      noise: likewise.
      emission: likewise; None if the symbols are the states (a Markov chain).

    Returns:
      The distributions by step, which of them training determines, and KL(P || Q).

    Raises:
      ValueError: as `scheduled_sampling_optimum` does; too many pairs of sequences.

    Example:
      >>> chain = (0.7, 0.3), ((0.9, 0.1), (0.2, 0.8))
      >>> optimum = completion_optimum(*chain, length=2, teacher_prob=0.0)
      >>> optimum.probs[1].round(3).tolist()
      [[0.66, 0.34], [0.725, 0.275]]
    """
    chain = make_chain(initial, transition, length, emission)
    roll_in = make_roll_in(chain, teacher_prob, coin, feed, noise)
    check_size(chain, pairs=True)
    target = _make_target(chain.num_symbols, chain.length)
    return make_optimum(make_steps(_unroll(chain), roll_in, target))


def completion_divergences(
    chains: Chains,
    teacher_prob: ArrayLike,
    *,
    coin: str = "token",
    feed: str = "sample",
    noise: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The divergence of `completion_optimum`'s optimum from the truth, for several chains.

    Args:
      chains: see `s2s_jax.theory.optimum.optimum_divergences`.
      teacher_prob: see `completion_optimum`, also for coin, feed and noise.
      coin: likewise.
      feed: likewise.
      noise: likewise; the same for all chains.

    Returns:
      [num_chains] float64 KL(P || Q) in nats, and [num_chains] bool, whether it is identified.

    Raises:
      ValueError: an invalid teacher_prob, coin, feed or noise; too many pairs of sequences.

    Example:
      >>> chain = make_chain((0.7, 0.3), ((0.9, 0.1), (0.2, 0.8)), length=3)
      >>> completion_divergences(chain, 1.0)[0].tolist()
      [0.0]
    """
    roll_in = make_roll_in(chains, teacher_prob, coin, feed, noise)
    check_size(chains, pairs=True)
    target = _make_target(chains.num_symbols, chains.length)
    return find_divergences(
        chains, lambda some: make_steps(_unroll(some), roll_in, target), pairs=True
    )


def _unroll(chains: Chains) -> Chains:
    """The same chains, with the whole sequence as their state: [num_symbols**length] states."""
    *_, last = make_steps(chains, ALL_GOLD)
    probs = (last.mass[..., None] * last.truth).reshape(len(last.mass), -1)
    num_chains, num_sequences = probs.shape
    moves = np.broadcast_to(
        np.eye(num_sequences), (num_chains, chains.length - 1, num_sequences, num_sequences)
    )
    shown = np.eye(chains.num_symbols)[all_sequences(chains.num_symbols, chains.length).T]
    return Chains(probs, moves, np.broadcast_to(shown, (num_chains, *shown.shape)))


def _make_target(num_symbols: int, length: int) -> Target:
    """The mean of u over the sequences y, which are the states of the chain."""
    gold = all_sequences(num_symbols, length)
    targets = []  # for each step u(b | z, y), [prefixes, sequences, num_symbols]
    for distances in islice(edit_distances(num_symbols, length), length):
        distances = distances[..., :-1]
        optimal = distances == distances.min(-1, keepdims=True)
        chosen = [(optimal & (gold == symbol)).any(-1) for symbol in range(num_symbols)]
        chosen = np.stack(chosen, axis=-1)
        targets.append(chosen / chosen.sum(-1, keepdims=True))

    def target(step: int, belief: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return (belief[:, :, None] @ targets[step])[:, :, 0]

    return target
