"""What scheduled sampling converges to where the truth is known, exactly, by enumeration.

The truth is a chain of symbols 0 ... num_symbols - 1: a Markov chain, or one that is seen through
an emission. The model is the most capable there is, one free distribution for every fed prefix, so
what remains of an error is the method's own. Everything is numpy in double precision; logarithms
are natural, so every divergence is in nats.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.rollout import COINS
from s2s_jax.sampling import FEEDS

MAX_SEQUENCES = 2**20
"""The most sequences, num_symbols**length, that are enumerated."""

_TOLERANCE = 1e-6  # by how much probabilities may miss a sum of 1


class ScheduledSamplingOptimum(NamedTuple):
    """Where scheduled sampling ends, given capacity, data and time without bound.

    Attributes:
      probs: for each step t = 0 ... length - 1 a float64 array with t + 1 axes of num_symbols:
        `probs[t][z_1, ..., z_t, b]` is q(b | fed z_1 ... z_t).
      fed_probs: for each step a float64 array with t axes of num_symbols: how likely that prefix is
        to be the one that is fed.
      kl: KL(P || Q) of whole sequences in nats, with `probs` as Q.
      kl_is_identified: whether every prefix that has mass under the truth is identified. If not,
        `kl` is the limit of teacher_prob -> 0, and a trained model can have any other.
    """

    probs: tuple[np.ndarray, ...]
    fed_probs: tuple[np.ndarray, ...]
    kl: float
    kl_is_identified: bool

    @property
    def identified(self) -> tuple[np.ndarray, ...]:
        """For each step a bool array with t axes of num_symbols: whether the prefix is ever fed.

        Training says nothing about a prefix that is not, and no comparison should. Its `probs` are
        the limit of teacher_prob -> 0 where a higher teacher_prob feeds it, else the truth's.
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
    """The optimum of scheduled sampling for a chain, and how far from the truth it is.

    The targets are gold whatever was fed, and no gradient passes through the choice. So the best
    prediction behind a fed prefix z is the mean over the gold prefixes y that it may stand for:

        q_t(b | z) = sum_y alpha_t(y, z) P(b | y) / sum_y alpha_t(y, z)

    With p the teacher_prob and own(c | z) what the model feeds itself, q_t(c | z) if it samples and
    [c = argmax q_t(. | z)] otherwise, the weights of a coin per token and of one per sequence are

        alpha_{t+1}(yb, zc) = alpha_t(y, z) P(b | y) (p [b = c] + (1 - p) own(c | z))
        alpha_t(y, z) = p P(y) [y = z] + (1 - p) P(y) own(z_1) own(z_2 | z_1) ...

    Fed by samples, the first is q_{t+1}(. | zc) = p P(. | c) + (1 - p) sum_b q_t(b | z) P(. | b)
    for a Markov chain. At p = 1 the optimum is the truth; fed by samples it is, at p = 0, the
    product of the marginals, and KL(P || Q) the total correlation.
    Huszár (2015), arXiv:1511.05101, shows the inconsistency for two tokens.

    Args:
      initial: [num_states] probabilities of the first state.
      transition: [num_states, num_states]; row a holds the probabilities of what follows a.
      length: symbols in a sequence, at least 1; num_symbols**length is at most `MAX_SEQUENCES`.
      teacher_prob: probability of feeding the gold symbol, in [0, 1].
      coin: what shares a toss, see `s2s_jax.rollout.toss_coins`; a coin per batch has the optimum
        of one per sequence.
      feed: "sample" or "argmax", the lowest symbol among equals. Where two are equally likely, a
        trained model wavers between the argmaxes, and its optimum need not be this one.
      emission: [num_states, num_symbols] probabilities of the symbols that a state shows; None
        where the symbols are the states, a Markov chain.

    Returns:
      The distributions by step, which of them training determines, and KL(P || Q).

    Raises:
      ValueError: probabilities that are negative, not finite or do not sum to 1; shapes that do
        not fit; a length, teacher_prob, coin or feed that cannot be; too many sequences.

    Example:
      >>> chain = (0.7, 0.3), ((0.9, 0.1), (0.2, 0.8))
      >>> optimum = scheduled_sampling_optimum(*chain, length=2, teacher_prob=0.5)
      >>> [round(float(q), 4) for q in optimum.probs[1][:, 0]]
      [0.795, 0.445]
      >>> round(optimum.kl, 6)
      0.067673
    """
    start, matrix, shown = check_chain(initial, transition, emission)
    num_symbols = shown.shape[1]
    _check_length(num_symbols, length)
    if not 0 <= teacher_prob <= 1:
        raise ValueError(f"teacher_prob is {teacher_prob}; it must be in [0, 1]")
    if coin not in COINS:
        raise ValueError(f"coin is {coin!r}; it must be one of {', '.join(COINS)}")
    if feed not in FEEDS:
        raise ValueError(f"feed is {feed!r}; it must be one of {', '.join(FEEDS)}")

    # What is known of the gold chain's state behind a fed prefix; rows are prefixes in order.
    gold = start[None]  # had every symbol of the prefix been gold
    blind = start[None]  # had none: the marginal
    belief = start[None]  # alpha, normalised and summed over the symbols before
    share_gold = np.full(1, float(teacher_prob))  # of a coin per sequence, behind this prefix
    mass, fed = np.ones(1), np.ones(1)
    probs: list[np.ndarray] = []
    fed_probs: list[np.ndarray] = []
    kl, kl_is_identified = 0.0, True
    for step in range(length):
        if coin != "token":
            belief = share_gold[:, None] * gold + (1 - share_gold[:, None]) * blind
        truth, q = gold @ shown, belief @ shown
        probs.append(q.reshape((num_symbols,) * (step + 1)))
        fed_probs.append(fed.reshape((num_symbols,) * step))
        kl += float(mass @ kl_divergence(truth, q, where=mass > 0))
        kl_is_identified &= bool(np.all((fed > 0) | (mass == 0)))

        own = q if feed == "sample" else np.eye(num_symbols)[q.argmax(-1)]
        if coin == "token":
            by_gold, by_own = teacher_prob * q, (1 - teacher_prob) * own
            told = _observe(belief, shown)
            untold = np.repeat(belief, num_symbols, axis=0)
            share = _share(by_gold, by_own)[:, None]
            # Fed c by the coin's gold side, the state has shown c; by its own side, anything.
            belief = (share * told + (1 - share) * untold) @ matrix
        else:
            by_gold, by_own = share_gold[:, None] * truth, (1 - share_gold[:, None]) * own
            share_gold = _share(by_gold, by_own)
        fed = (fed[:, None] * (by_gold + by_own)).reshape(-1)
        mass = (mass[:, None] * truth).reshape(-1)
        gold, blind = _observe(gold, shown) @ matrix, blind @ matrix
    return ScheduledSamplingOptimum(tuple(probs), tuple(fed_probs), kl, kl_is_identified)


def next_token_tables(
    initial: ArrayLike, transition: ArrayLike, length: int, *, emission: ArrayLike | None = None
) -> tuple[np.ndarray, ...]:
    """The truth's own distributions, in the form of `ScheduledSamplingOptimum.probs`.

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
      transition: [num_symbols, num_symbols]; row a holds the probabilities of what follows a.
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
        # What follows a prefix that does not occur may be undefined, and counts nowhere.
        joint = np.where(joint[..., None] > 0, joint[..., None] * table, 0.0)
    return joint


def kl_divergence(p: ArrayLike, q: ArrayLike, *, where: ArrayLike = True) -> np.ndarray:
    """KL divergence between distributions along the last axis, in nats.

        KL(p || q) = sum_b p(b) log(p(b) / q(b)),   0 log 0 = 0

    Args:
      p: [..., num_symbols] probabilities.
      q: [..., num_symbols] probabilities.
      where: [...] bool; elsewhere the result is 0, whatever p and q are.

    Returns:
      [...] float64, inf where q is 0 and p is not.

    Example:
      >>> round(float(kl_divergence([0.5, 0.5], [0.25, 0.75])), 6)
      0.143841
    """
    p, q = np.broadcast_arrays(np.asarray(p, np.float64), np.asarray(q, np.float64))
    counts = (p > 0) & np.asarray(where)[..., None]
    with np.errstate(divide="ignore"):
        terms = np.where(counts, p, 0.0) * np.log(np.where(counts, p, 1.0))
        cross = np.where(counts, p, 0.0) * np.log(np.where(counts, q, 1.0))
    return np.maximum((terms - cross).sum(-1), 0.0)


def total_correlation(joint: ArrayLike) -> float:
    """How much several variables depend on each other, in nats; of two, the mutual information.

        C(X_1, ..., X_T) = sum_t H(X_t) - H(X_1, ..., X_T)

    Watanabe (1960), "Information theoretical analysis of multivariate correlation".

    Args:
      joint: one axis for each variable, at least one; sums to 1.

    Raises:
      ValueError: no distribution.

    Example:
      >>> round(total_correlation([[0.63, 0.07], [0.06, 0.24]]), 6)
      0.241422
    """
    joint = np.asarray(joint, np.float64)
    if joint.ndim == 0:
        raise ValueError("joint is a number; it must have an axis for each variable")
    _check_probs("joint", joint.reshape(1, -1), "it")
    axes = range(joint.ndim)
    marginals = (joint.sum(tuple(other for other in axes if other != axis)) for axis in axes)
    return max(0.0, sum(map(_entropy, marginals)) - _entropy(joint))


def mutual_information(joint: ArrayLike) -> float:
    """What one of two variables says about the other, in nats.

        I(X; Y) = H(X) + H(Y) - H(X, Y)

    Args:
      joint: [num_x, num_y]; sums to 1.

    Raises:
      ValueError: no distribution of two variables.

    Example:
      >>> mutual_information([[0.25, 0.25], [0.25, 0.25]])
      0.0
    """
    if np.ndim(joint) != 2:
        raise ValueError(f"joint has {np.ndim(joint)} axes; mutual information needs 2")
    return total_correlation(joint)


def observe(belief: np.ndarray, likelihood: np.ndarray) -> np.ndarray:
    """What is known of a chain's state once it has shown a symbol: Bayes' rule.

        belief'(s) = belief(s) likelihood(s) / sum_s belief(s) likelihood(s)

    A symbol that cannot be here makes what was known worthless: belief' is then proportional to the
    likelihood alone, so that a Markov chain goes on from any symbol, and stays belief where no
    state shows the symbol.

    Args:
      belief: [..., num_states] probabilities.
      likelihood: [..., num_states], of the symbol in each state.

    Returns:
      [..., num_states] probabilities.

    Example:
      >>> observe(np.array([0.5, 0.5]), np.array([0.9, 0.1])).tolist()
      [0.9, 0.1]
      >>> observe(np.array([1.0, 0.0]), np.array([0.0, 1.0])).tolist()
      [0.0, 1.0]
    """
    belief, likelihood = np.broadcast_arrays(belief, likelihood)
    joint = belief * likelihood
    joint = np.where(joint.sum(-1, keepdims=True) > 0, joint, likelihood)
    joint = np.where(joint.sum(-1, keepdims=True) > 0, joint, belief)
    return joint / joint.sum(-1, keepdims=True)


def check_chain(
    initial: ArrayLike, transition: ArrayLike, emission: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A chain's probabilities as float64 arrays, rows summing to 1 to the last bit.

    Args:
      initial: see `scheduled_sampling_optimum`, also for transition and emission.
      transition: likewise.
      emission: likewise; None becomes the identity.

    Raises:
      ValueError: what is wrong, in one line.
    """
    start = _array("initial", initial, 1, "a row of probabilities")
    matrix = _array("transition", transition, 2, "a square table, a row for each state")
    num_states = len(start)
    if not num_states:
        raise ValueError("initial is empty; it must name at least one state")
    if matrix.shape != (num_states, num_states):
        rows, columns = matrix.shape
        raise ValueError(
            f"transition has {rows} rows of {columns}; with {num_states} initial probabilities"
            f" it must have {num_states} rows of {num_states}"
        )
    shown = np.eye(num_states)
    if emission is not None:
        shown = _array("emission", emission, 2, "a table with a row for each state")
        if len(shown) != num_states or not shown.shape[1]:
            raise ValueError(
                f"emission has {shown.shape[0]} rows of {shown.shape[1]}; it must have a row of"
                f" probabilities for each of {num_states} states"
            )
    return (
        _check_probs("initial", start[None], "it")[0],
        _check_probs("transition", matrix, "row"),
        _check_probs("emission", shown, "row"),
    )


def _observe(belief: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """The states behind each symbol: [n, num_states] -> [n * num_symbols, num_states]."""
    told = observe(belief[:, None, :], shown.T)
    return told.reshape(-1, belief.shape[-1])


def _share(by_gold: np.ndarray, by_own: np.ndarray) -> np.ndarray:
    """The gold side's share of what was fed, 1 where nothing was: the limit of a rare gold coin."""
    total = by_gold + by_own
    return np.where(total > 0, by_gold / np.where(total > 0, total, 1.0), 1.0).reshape(-1)


def _entropy(probs: np.ndarray) -> float:
    positive = probs[probs > 0]
    return float(-(positive * np.log(positive)).sum())


def _check_length(num_symbols: int, length: int) -> None:
    if isinstance(length, bool) or not isinstance(length, int | np.integer) or length < 1:
        raise ValueError(f"length is {length!r}; it must be an integer of at least 1")
    longest = 1
    while max(num_symbols, 2) ** (longest + 1) <= MAX_SEQUENCES:
        longest += 1
    if length > longest:
        raise ValueError(
            f"length is {length}; {num_symbols} symbols can be enumerated up to length {longest}"
        )


def _array(name: str, values: ArrayLike, num_axes: int, meaning: str) -> np.ndarray:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is not {meaning}") from None
    if array.ndim != num_axes:
        raise ValueError(f"{name} is not {meaning}")
    return array


def _check_probs(name: str, rows: np.ndarray, what: str) -> np.ndarray:
    """Rows that are distributions, made to sum to 1 exactly."""
    for number, row in enumerate(rows):
        label = name if what == "it" else f"{name} {what} {number}"
        wrong = row[~((row >= 0) & (row <= 1 + _TOLERANCE))]
        if wrong.size:
            raise ValueError(f"{label} holds {wrong[0]:g}; probabilities are in [0, 1]")
        if abs(row.sum() - 1) > _TOLERANCE:
            raise ValueError(f"{label} sums to {row.sum():.6g}, not to 1")
    return rows / rows.sum(-1, keepdims=True)
