"""A Markov chain as a function of prefixes, which the measures need."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def function() -> Callable[[Any], Callable[[np.ndarray], np.ndarray]]:
    """Makes the function from (initial, transition)."""

    def make(chain: Any) -> Callable[[np.ndarray], np.ndarray]:
        initial, transition = map(np.array, chain)

        def next_token_probs(prefix: np.ndarray) -> np.ndarray:
            if not prefix.shape[1]:
                return np.tile(initial, (len(prefix), 1))
            return transition[prefix[:, -1]]

        return next_token_probs

    return make
