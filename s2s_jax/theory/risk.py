"""The smallest expected cost that minimum risk training can reach."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.theory.chains import make_chain
from s2s_jax.theory.edits import all_sequences, edit_distances
from s2s_jax.theory.optimum import next_token_tables, sequence_probs
from s2s_jax.theory.recursion import check_size

_COSTS = ("edit_rate", "exact_match")
_TIE = 1e-12  # expected costs that differ by less are equal


class MinimumRisk(NamedTuple):
    """The result of minimum risk training with unlimited capacity, data and time.

    Attributes:
      cost: the smallest expected cost.
      sequences: [num_best, length] int64, the sequences that attain it, in order. The model puts
        all mass on one of them, or divides it between them.
    """

    cost: float
    sequences: np.ndarray


def minimum_risk(
    initial: ArrayLike,
    transition: ArrayLike,
    length: int,
    cost: str,
    emission: ArrayLike | None = None,
) -> MinimumRisk:
    """What minimum risk training and REINFORCE converge to, if they find the global optimum.

    The model is scored by its own samples s, so it is not drawn to the truth P but to the sequences
    that are cheapest on average:

        min_Q E_{s ~ Q, y ~ P} cost(s, y) = min_s sum_y P(y) cost(s, y)
        edit_rate:    cost(s, y) = Levenshtein(s, y) / length
        exact_match:  cost(s, y) = [s != y]

    For exact_match these are the most probable sequences. Where any sequence of positive
    probability has none under the model, KL(P || Q) is infinite. Shen et al. (2016), "Minimum Risk
    Training for Neural Machine Translation", arXiv:1512.02433.

    Args:
      initial: see `s2s_jax.theory.chains.make_chain`, also for transition, length and emission.
      transition: likewise; it and emission may differ by step.
      length: likewise, of y and s. For the edit rate there may be at most `MAX_SEQUENCES` pairs,
        num_symbols**(2 length).
      cost: "edit_rate" or "exact_match".
      emission: likewise; None if the symbols are the states (a Markov chain).

    Raises:
      ValueError: invalid probabilities, an invalid length or cost; too many sequences, or pairs.

    Example:
      >>> chain = (0.7, 0.3), ((0.9, 0.1), (0.2, 0.8))
      >>> best = minimum_risk(*chain, length=3, cost="exact_match")
      >>> round(best.cost, 6), best.sequences.tolist()
      (0.433, [[0, 0, 0]])
    """
    if cost not in _COSTS:
        raise ValueError(f"cost is {cost!r}; it must be one of {', '.join(_COSTS)}")
    chain = make_chain(initial, transition, length, emission)
    num_symbols = chain.num_symbols
    check_size(chain, pairs=cost == "edit_rate")
    tables = next_token_tables(initial, transition, length, emission=emission)
    probs = sequence_probs(tables).reshape(-1)
    if cost == "exact_match":
        costs = 1 - probs
    else:
        *_, distances = edit_distances(num_symbols, length)
        costs = distances[..., -1] @ probs / length
    best = costs <= costs.min() + _TIE
    return MinimumRisk(float(costs.min()), all_sequences(num_symbols, length)[best])
