"""The recursion over fed prefixes, which the exact optima share.

The truth is a chain of symbols 0 ... num_symbols - 1: a Markov chain, or one that is observed
through emissions. The model is the most expressive one possible, with a separate distribution for
every fed prefix, so the remaining error is due only to the method. Everything is numpy in double
precision; logarithms are natural, so every divergence is in nats.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.theory.chains import MAX_SEQUENCES, Chains, check_array, observe
from s2s_jax.theory.information import check_probs, kl_divergence

_COINS, _FEEDS = ("token", "sequence", "batch"), ("sample", "argmax")  # that theory knows


class TrainingOptimum(NamedTuple):
    """The result of a training method with unlimited capacity, data and time.

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
        teacher_prob, otherwise a convention: of scheduled sampling, those of the truth.
        """
        return tuple(fed > 0 for fed in self.fed_probs)


class RollIn(NamedTuple):
    """How the fed prefixes come about; from `make_roll_in`.

    Attributes:
      teacher_prob: float64, a scalar, or [length - 1] with a coin per token.
      coin: "token", "sequence" or "batch".
      feed: "sample" or "argmax".
      noise: [num_symbols] distribution of the tokens that replace gold ones; None if they are the
        model's own.
    """

    teacher_prob: np.ndarray
    coin: str = "token"
    feed: str = "sample"
    noise: np.ndarray | None = None

    def replacement(self, q: np.ndarray) -> np.ndarray:
        """The distributions of the tokens that replace gold ones, given the model's, q."""
        if self.noise is not None:
            return np.broadcast_to(self.noise, q.shape)
        return q if self.feed == "sample" else np.eye(q.shape[-1])[q.argmax(-1)]


ALL_GOLD = RollIn(np.ones(()))
"""Teacher forcing."""


def make_roll_in(
    chains: Chains, teacher_prob: ArrayLike, coin: str, feed: str, noise: ArrayLike | None
) -> RollIn:
    """Checks how prefixes are to be fed; for the arguments, see `scheduled_sampling_optimum`.

    Raises:
      ValueError: an argument is invalid; the message says in one line why.
    """
    probs = np.asarray(teacher_prob, np.float64)
    wrong = probs[~((probs >= 0) & (probs <= 1))]
    if wrong.size:
        verb = "holds" if probs.ndim else "is"
        raise ValueError(f"teacher_prob {verb} {wrong[0]:g}; it must be in [0, 1]")
    if coin not in _COINS:
        raise ValueError(f"coin is {coin!r}; it must be one of {', '.join(_COINS)}")
    if feed not in _FEEDS:
        raise ValueError(f"feed is {feed!r}; it must be one of {', '.join(_FEEDS)}")
    if probs.ndim and coin != "token":
        raise ValueError(f"teacher_prob must be one number if the coin is per {coin}")
    if probs.ndim and probs.shape != (chains.length - 1,):
        raise ValueError(
            f"teacher_prob has shape {probs.shape}; for length {chains.length} it must be a number"
            f" or a row of {chains.length - 1}"
        )
    if noise is None:
        return RollIn(probs, coin, feed)
    if feed != "sample":
        raise ValueError(f"feed {feed!r} has no effect if noise replaces the model's own tokens")
    row = check_array("noise", noise, 1, "a row of probabilities")
    if len(row) != chains.num_symbols:
        raise ValueError(f"noise has {len(row)} probabilities for {chains.num_symbols} symbols")
    return RollIn(probs, coin, feed, check_probs("noise", row[None], "it")[0])


class Step(NamedTuple):
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


Target = Callable[[int, np.ndarray, np.ndarray], np.ndarray]
"""(step, belief [num_chains, num_prefixes, num_states], truth) -> q, as in `Step`.

The belief is the distribution of the gold chain's state given the fed prefix. The best prediction q
is the mean of what the step is trained towards.
"""


def make_steps(chains: Chains, roll_in: RollIn, target: Target | None = None) -> Iterator[Step]:
    """What training converges to, step by step.

    Args:
      chains: the truth.
      roll_in: how prefixes are fed.
      target: what each step is trained towards; None for the gold symbol, as in scheduled sampling.
    """
    num_chains, num_symbols = len(chains.initial), chains.num_symbols
    coin, teacher_prob = roll_in.coin, roll_in.teacher_prob

    # Distributions of the gold chain's state after a fed prefix, [num_chains, prefixes, states].
    gold = chains.initial[:, None]  # if every symbol of the prefix was gold
    blind = gold  # if none was: the marginal
    belief = gold  # alpha, normalised and summed over the earlier symbols
    # For a coin per sequence: the probability that it came up gold, given this prefix.
    share_gold = np.full((num_chains, 1), 1.0 if coin == "token" else teacher_prob)
    # For a coin per token: the probability of gold after each step.
    of_step = np.broadcast_to(teacher_prob, chains.length - 1)
    mass = fed = np.ones((num_chains, 1))
    for step in range(chains.length):
        shown = chains.emission[:, step]
        if coin != "token":
            belief = share_gold[..., None] * gold + (1 - share_gold[..., None]) * blind
        truth, next_gold = gold @ shown, belief @ shown
        q = next_gold if target is None else target(step, belief, truth)
        yield Step(mass, fed, truth, q)
        if step == chains.length - 1:
            return
        moves = chains.transition[:, step]
        own = roll_in.replacement(q)
        if coin == "token":
            by_gold, by_own = of_step[step] * next_gold, (1 - of_step[step]) * own
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


def make_optimum(steps: Iterable[Step]) -> TrainingOptimum:
    """The optimum from the steps of one chain."""
    steps = list(steps)
    num_symbols = steps[0].q.shape[-1]
    probs, fed_probs = [], []
    for t, step in enumerate(steps):
        shape = (num_symbols,) * t
        probs.append(step.q.reshape(*shape, num_symbols))
        fed_probs.append(step.fed.reshape(shape))
    kl, kl_is_identified = _divergence(steps)
    return TrainingOptimum(tuple(probs), tuple(fed_probs), float(kl[0]), bool(kl_is_identified[0]))


def find_divergences(
    chains: Chains, steps_of: Callable[[Chains], Iterable[Step]], *, pairs: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """KL(P || Q) of each chain, as many at a time as memory allows.

    Args:
      chains: the truth.
      steps_of: gives the steps of several chains.
      pairs: whether it enumerates pairs of sequences.

    Returns:
      [num_chains] float64 in nats, and [num_chains] bool, whether it is identified.

    Raises:
      ValueError: there are too many sequences, or pairs of them.
    """
    at_once = check_size(chains, pairs=pairs)
    found = [
        _divergence(steps_of(Chains(*(one[first : first + at_once] for one in chains))))
        for first in range(0, len(chains.initial), at_once)
    ]
    kl, identified = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return kl, identified


def check_size(chains: Chains, *, pairs: bool = False) -> int:
    """How many chains can be enumerated at a time; pairs as in `find_divergences`.

    Raises:
      ValueError: none can.
    """
    size = chains.num_symbols ** (chains.length * (1 + pairs))
    if size > MAX_SEQUENCES:
        what = "pairs of sequences" if pairs else "sequences"
        raise ValueError(
            f"{chains.num_symbols} symbols have more than {MAX_SEQUENCES} {what} of length"
            f" {chains.length}: too many to enumerate"
        )
    return MAX_SEQUENCES // size


def _divergence(steps: Iterable[Step]) -> tuple[np.ndarray, np.ndarray]:
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
