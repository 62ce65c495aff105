"""The Markov chain that `s2s verify` trains on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.lab.base.errors import LabError
from s2s_jax.theory.chains import check_chain
from s2s_jax.theory.optimum import markov_sequence_probs

_MAX_TABLES = 64  # sequences of the chain, about as many as the tabular model has rows


@dataclass(frozen=True)
class Chain:
    """The checked chain that models are trained on.

    Attributes:
      initial: [num_symbols] probabilities of the first symbol.
      transition: [num_symbols, num_symbols]; row a holds the probabilities of the symbol after a.
      length: number of symbols in a sequence.
    """

    initial: np.ndarray
    transition: np.ndarray
    length: int

    @property
    def num_symbols(self) -> int:
        """How many symbols there are."""
        return len(self.initial)

    def sequence_probs(self) -> np.ndarray:
        """The probability of every sequence, in order: [num_symbols**length]."""
        return markov_sequence_probs(self.initial, self.transition, self.length).reshape(-1)

    def symbol_shares(self) -> np.ndarray:
        """How often each symbol occurs, [num_symbols]: the mean over the places of a sequence.

        Example:
          >>> chain = make_markov_chain((0.7, 0.3), ((0.9, 0.1), (0.2, 0.8)), length=3)
          >>> chain.symbol_shares().round(3).tolist()
          [0.691, 0.309]
        """
        here, total = self.initial, self.initial
        for _ in range(self.length - 1):
            here = here @ self.transition
            total = total + here
        return total / self.length


def make_markov_chain(initial: ArrayLike, transition: ArrayLike, length: int) -> Chain:
    """Makes a chain and checks that it is small enough to verify.

    Raises:
      LabError: the probabilities are invalid, or there are too many sequences.
    """
    try:
        start, matrix, _ = check_chain(initial, transition)
    except ValueError as error:
        raise LabError(f"the chain is invalid: {error}") from error
    longest = int(np.log(_MAX_TABLES + 0.5) / np.log(max(2, len(start))))
    if not 1 <= length <= longest:
        raise LabError(f"length is {length}; with {len(start)} symbols it must be 1 to {longest}")
    return Chain(start, matrix, length)
