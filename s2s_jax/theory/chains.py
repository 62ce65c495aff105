"""Chains of symbols with known probabilities: a state changes at each step and emits a symbol."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.theory.information import check_probs

MAX_SEQUENCES = 2**20
"""The largest number of sequences, num_symbols**length, that is enumerated."""


class Chains(NamedTuple):
    """Several chains of the same length; each has its own probabilities at each step.

        P(s_1) = initial,   P(s_{t+1} | s_t) = transition_t,   P(y_t | s_t) = emission_t

    Attributes:
      initial: [num_chains, num_states] float64.
      transition: [num_chains, length - 1, num_states, num_states] float64.
      emission: [num_chains, length, num_states, num_symbols] float64.
    """

    initial: np.ndarray
    transition: np.ndarray
    emission: np.ndarray

    @property
    def length(self) -> int:
        """The number of symbols in a sequence."""
        return self.emission.shape[1]

    @property
    def num_symbols(self) -> int:
        """The number of different symbols."""
        return self.emission.shape[3]


def make_chain(
    initial: ArrayLike, transition: ArrayLike, length: int, emission: ArrayLike | None = None
) -> Chains:
    """Makes one chain and checks it.

    Args:
      initial: [num_states] probabilities of the first state.
      transition: [num_states, num_states]; row a has the probabilities of the state after a.
        [length - 1, num_states, num_states] if they differ by step.
      length: symbols in a sequence, at least 1.
      emission: [num_states, num_symbols] probabilities of the symbols that a state emits, or
        [length, num_states, num_symbols]; None if the symbols are the states (a Markov chain).

    Raises:
      ValueError: invalid probabilities, shapes that do not fit, an invalid length, or more than
        `MAX_SEQUENCES` sequences.

    Example:
      >>> make_chain((0.7, 0.3), ((0.9, 0.1), (0.2, 0.8)), length=3).transition.shape
      (1, 2, 2, 2)
    """
    if isinstance(length, bool) or not isinstance(length, int | np.integer) or length < 1:
        raise ValueError(f"length is {length!r}; it must be an integer of at least 1")
    moves = _by_step("transition", transition, length - 1)
    shows = [None] * length if emission is None else _by_step("emission", emission, length)
    if moves is None and (emission is None or shows is None):
        start, matrix, shown = check_chain(initial, transition, emission)
        moved = np.broadcast_to(matrix, (length - 1, *matrix.shape))
        steps = np.broadcast_to(shown, (length, *shown.shape))
    else:
        moves = [transition] * (length - 1) if moves is None else moves
        shows = [emission] * length if shows is None else shows
        same = np.eye(len(check_array("initial", initial, 1, "a row of probabilities")))
        checked = []
        # There is no transition after the last symbol; its table is only a placeholder.
        for step, (move, show) in enumerate(zip([*moves, same], shows, strict=True)):
            try:
                checked.append(check_chain(initial, move, show))
            except ValueError as error:
                raise ValueError(f"step {step}: {error}") from error
        start = checked[0][0]
        moved = np.array([one[1] for one in checked[:-1]]).reshape(-1, *same.shape)
        steps = np.stack([one[2] for one in checked])
    _check_size(steps.shape[-1], length)
    return Chains(start[None], moved[None], steps[None])


def check_chain(
    initial: ArrayLike, transition: ArrayLike, emission: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A chain's probabilities as float64 arrays whose rows are normalised to sum to 1.

    Args:
      initial: [num_states] probabilities of the first state.
      transition: [num_states, num_states]; row a has the probabilities of the state after a.
      emission: [num_states, num_symbols]; None becomes the identity.

    Raises:
      ValueError: they are invalid; the message says in one line why.
    """
    start = check_array("initial", initial, 1, "a row of probabilities")
    matrix = check_array("transition", transition, 2, "a square table, a row for each state")
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
        shown = check_array("emission", emission, 2, "a table with a row for each state")
        if len(shown) != num_states or not shown.shape[1]:
            raise ValueError(
                f"emission has {shown.shape[0]} rows of {shown.shape[1]}; it must have a row of"
                f" probabilities for each of {num_states} states"
            )
    return (
        check_probs("initial", start[None], "it")[0],
        check_probs("transition", matrix, "row"),
        check_probs("emission", shown, "row"),
    )


def observe(belief: np.ndarray, likelihood: np.ndarray) -> np.ndarray:
    """Updates the distribution of a chain's state by an emitted symbol, with Bayes' rule.

        belief'(s) = belief(s) likelihood(s) / sum_s belief(s) likelihood(s)

    A symbol that is impossible here invalidates the earlier belief: belief' is then proportional to
    the likelihood alone, so that a Markov chain can continue from any symbol. If no state can emit
    the symbol, the belief is unchanged.

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


def _by_step(name: str, tables: ArrayLike, num_steps: int) -> list[ArrayLike] | None:
    """The tables of the steps; None if one table holds for all steps."""
    try:
        array = np.asarray(tables, np.float64)
    except (TypeError, ValueError):
        return None  # check_chain says what is wrong with it
    if array.ndim != 3:
        return None
    if len(array) != num_steps:
        raise ValueError(f"{name} has {len(array)} tables; the length asks for {num_steps}")
    return list(array)


def _check_size(num_symbols: int, length: int) -> None:
    longest = 1
    while max(num_symbols, 2) ** (longest + 1) <= MAX_SEQUENCES:
        longest += 1
    if length > longest:
        raise ValueError(
            f"length is {length}; {num_symbols} symbols can be enumerated up to length {longest}"
        )


def check_array(name: str, values: ArrayLike, num_axes: int, meaning: str) -> np.ndarray:
    """The values as a float64 array; a ValueError says that they are not `meaning`."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is not {meaning}") from None
    if array.ndim != num_axes:
        raise ValueError(f"{name} is not {meaning}")
    return array


def draw(probs: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draws one index per row of distributions; an index with probability 0 is never drawn.

    Args:
      probs: [n, num_symbols], not necessarily normalised.
      generator: of the draws; it draws one number per row.

    Returns:
      [n] int32.

    Example:
      >>> draw(np.array([[0.0, 1.0], [1.0, 0.0]]), np.random.default_rng(0)).tolist()
      [1, 0]
    """
    cumulated = np.cumsum(probs, axis=-1)
    drawn = generator.random((len(probs), 1)) * cumulated[:, -1:]
    return (cumulated <= drawn).sum(-1, dtype=np.int32)
