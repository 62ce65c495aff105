"""The exact optimum of scheduled sampling for a known true distribution, by enumeration.

The truth is a chain of symbols 0 ... num_symbols - 1: a Markov chain, or one that is observed
through emissions. The model is the most expressive one possible, with a separate distribution for
every fed prefix, so the remaining error is due only to the method. Everything is numpy in double
precision; logarithms are natural, so every divergence is in nats.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.theory.chains import MAX_SEQUENCES, Chains, make_chain, observe
from s2s_jax.theory.information import kl_divergence

_COINS, _FEEDS = ("token", "sequence", "batch"), ("sample", "argmax")  # that theory knows


class ScheduledSamplingOptimum(NamedTuple):
    """The result of scheduled sampling with unlimited capacity, data and time.

    Attributes:
      probs: for each step t = 0 ... length - 1 a float64 array with t + 1 axes of num_symbols:
        `probs[t][z_1, ..., z_t, b]` is q(b | fed z_1 ... z_t).
      fed_probs: for each step a float64 array with t axes of num_symbols: the probability that this
        prefix is fed.
      kl: KL(P || Q) of whole sequences in nats, with `probs` as Q.
      kl_is_identified: whether every prefix that has mass under the truth is identified. If not,
        `kl` is the limit for teacher_prob -> 0, and a trained model can have any other value.
    """

    probs: tuple[np.ndarray, ...]
    fed_probs: tuple[np.ndarray, ...]
    kl: float
    kl_is_identified: bool

    @property
    def identified(self) -> tuple[np.ndarray, ...]:
        """For each step a bool array with t axes of num_symbols: whether the prefix is ever fed.

        Training does not determine anything after a prefix that is never fed, so it should be left
        out of comparisons. Its `probs` are the limit for teacher_prob -> 0 if it is fed at a higher
        teacher_prob, otherwise those of the truth.
        """
        return tuple(fed > 0 for fed in self.fed_probs)


def scheduled_sampling_optimum(
    initial: ArrayLike,
    transition: ArrayLike,
    length: int,
    teacher_prob: float,
    *,
    coin: str = "token",
    feed: str = "sample",
    emission: ArrayLike | None = None,
) -> ScheduledSamplingOptimum:
    """The optimum of scheduled sampling for a chain, and its divergence from the truth.

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

    Args:
      initial: see `s2s_jax.theory.chains.make_chain`, also for transition, length and emission.
      transition: likewise; it and emission may differ by step.
      length: likewise; num_symbols**length is at most `MAX_SEQUENCES`.
      teacher_prob: probability of feeding the gold symbol, in [0, 1].
      coin: which inputs share a toss, see `s2s_jax.rollout.toss_coins`; a coin per batch has the
        same optimum as one per sequence.
      feed: "sample" or "argmax" (the lowest symbol among equally likely ones). If two are equally
        likely, a trained model alternates between the argmaxes, and its optimum may be another one.
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
    """
    chain = make_chain(initial, transition, length, emission)
    steps = list(_recursion(chain, teacher_prob, coin, feed))
    probs, fed_probs = [], []
    for t, step in enumerate(steps):
        shape = (chain.num_symbols,) * t
        probs.append(step.q.reshape(*shape, chain.num_symbols))
        fed_probs.append(step.fed.reshape(shape))
    kl, kl_is_identified = _divergence(steps)
    return ScheduledSamplingOptimum(
        tuple(probs), tuple(fed_probs), float(kl[0]), bool(kl_is_identified[0])
    )


def optimum_divergences(
    chains: Chains, teacher_prob: float, *, coin: str = "token", feed: str = "sample"
) -> tuple[np.ndarray, np.ndarray]:
    """The divergence of `scheduled_sampling_optimum`'s optimum from the truth, for several chains.

    If P(. | x) is the chain given source x, the model's divergence given the sources is the mean

        KL(P || Q | X) = sum_x P(x) KL(P(. | x) || Q(. | x))

    Args:
      chains: for example from `s2s_jax.data.chain.ChainTruth.given`.
      teacher_prob: see `scheduled_sampling_optimum`, also for coin and feed.
      coin: likewise.
      feed: likewise.

    Returns:
      [num_chains] float64 KL(P || Q) in nats, and [num_chains] bool, whether it is identified.

    Raises:
      ValueError: an invalid teacher_prob, coin or feed; too many sequences.

    Example:
      >>> chain = make_chain((0.7, 0.3), ((0.9, 0.1), (0.2, 0.8)), length=3)
      >>> optimum_divergences(chain, 0.5, coin="sequence")[0].round(6).tolist()
      [0.133008]
    """
    at_once = MAX_SEQUENCES // chains.num_symbols**chains.length
    if not at_once:
        raise ValueError(
            f"{chains.num_symbols} symbols have more than {MAX_SEQUENCES} sequences of length"
            f" {chains.length}: too many to enumerate"
        )
    found = [
        _divergence(
            _recursion(Chains(*(one[first : first + at_once] for one in chains)),
                       teacher_prob, coin, feed)
        )
        for first in range(0, len(chains.initial), at_once)
    ]  # fmt: skip
    kl, identified = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return kl, identified


def next_token_tables(
    initial: ArrayLike, transition: ArrayLike, length: int, *, emission: ArrayLike | None = None
) -> tuple[np.ndarray, ...]:
    """The true distributions, in the form of `ScheduledSamplingOptimum.probs`.

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


class _Step(NamedTuple):
    """One step of several chains; the prefixes are in order.

    Attributes:
      mass: [num_chains, num_prefixes], probability of the prefix under the truth.
      fed: [num_chains, num_prefixes], probability that the prefix is fed.
      truth: [num_chains, num_prefixes, num_symbols], P(b | prefix).
      q: [num_chains, num_prefixes, num_symbols], q(b | prefix).
    """

    mass: np.ndarray
    fed: np.ndarray
    truth: np.ndarray
    q: np.ndarray


def _recursion(chains: Chains, teacher_prob: float, coin: str, feed: str) -> Iterator[_Step]:
    if not 0 <= teacher_prob <= 1:
        raise ValueError(f"teacher_prob is {teacher_prob}; it must be in [0, 1]")
    if coin not in _COINS:
        raise ValueError(f"coin is {coin!r}; it must be one of {', '.join(_COINS)}")
    if feed not in _FEEDS:
        raise ValueError(f"feed is {feed!r}; it must be one of {', '.join(_FEEDS)}")
    num_chains, num_symbols = len(chains.initial), chains.num_symbols

    # Distributions of the gold chain's state after a fed prefix, [num_chains, prefixes, states].
    gold = chains.initial[:, None]  # if every symbol of the prefix was gold
    blind = gold  # if none was: the marginal
    belief = gold  # alpha, normalised and summed over the earlier symbols
    # For a coin per sequence: the probability that it came up gold, given this prefix.
    share_gold = np.full((num_chains, 1), float(teacher_prob))
    mass = fed = np.ones((num_chains, 1))
    for step in range(chains.length):
        shown = chains.emission[:, step]
        if coin != "token":
            belief = share_gold[..., None] * gold + (1 - share_gold[..., None]) * blind
        truth, q = gold @ shown, belief @ shown
        yield _Step(mass, fed, truth, q)
        if step == chains.length - 1:
            return
        moves = chains.transition[:, step]
        own = q if feed == "sample" else np.eye(num_symbols)[q.argmax(-1)]
        if coin == "token":
            by_gold, by_own = teacher_prob * q, (1 - teacher_prob) * own
            told = _observe(belief, shown)
            untold = np.repeat(belief, num_symbols, axis=1)
            share = _share(by_gold, by_own)[..., None]
            # If c was fed as gold, the state has emitted c; as own, it may have emitted anything.
            belief = (share * told + (1 - share) * untold) @ moves
        else:
            by_gold = share_gold[..., None] * truth
            by_own = (1 - share_gold[..., None]) * own
            share_gold = _share(by_gold, by_own)
        fed = (fed[..., None] * (by_gold + by_own)).reshape(num_chains, -1)
        mass = (mass[..., None] * truth).reshape(num_chains, -1)
        gold, blind = _observe(gold, shown) @ moves, blind @ moves


def _divergence(steps: Iterable[_Step]) -> tuple[np.ndarray, np.ndarray]:
    """KL(P || Q) of whole sequences [num_chains], and whether it is identified."""
    kl, identified = 0.0, True
    for step in steps:
        occurs = step.mass > 0
        kl = kl + (step.mass * kl_divergence(step.truth, step.q, where=occurs)).sum(-1)
        identified = identified & np.all((step.fed > 0) | ~occurs, axis=-1)
    return np.asarray(kl), np.asarray(identified)


def _observe(belief: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """The states after each symbol: [n, prefixes, states] -> [n, prefixes * symbols, states]."""
    told = observe(belief[:, :, None, :], shown.swapaxes(1, 2)[:, None])
    return told.reshape(len(belief), -1, belief.shape[-1])


def _share(by_gold: np.ndarray, by_own: np.ndarray) -> np.ndarray:
    """The share of gold in what was fed; 1, the limit of a rare gold coin, if nothing was fed."""
    total = by_gold + by_own
    share = np.where(total > 0, by_gold / np.where(total > 0, total, 1.0), 1.0)
    return share.reshape(len(share), -1)
