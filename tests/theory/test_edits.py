from itertools import product

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from s2s_jax.theory.edits import all_sequences, edit_distances


@pytest.mark.parametrize(("num_symbols", "length"), [(1, 3), (2, 1), (2, 4), (3, 3)])
def test_distances_equal_those_of_rapidfuzz(num_symbols: int, length: int):
    sequences = list(product(range(num_symbols), repeat=length))
    assert all_sequences(num_symbols, length).tolist() == [list(one) for one in sequences]
    tables = list(edit_distances(num_symbols, length))
    assert len(tables) == length + 1
    for size, table in enumerate(tables):
        prefixes = list(product(range(num_symbols), repeat=size))
        expected = [
            [[Levenshtein.distance(z, y[:end]) for end in range(length + 1)] for y in sequences]
            for z in prefixes
        ]
        assert np.array_equal(table, expected)
