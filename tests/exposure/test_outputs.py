import numpy as np
import pytest

from s2s_jax.exposure.intervals import Bootstrap
from s2s_jax.exposure.outputs import exact_match, length_ratio, repetition, share


def test_length_ratio_is_a_ratio_of_totals():
    found = length_ratio(np.array([1, 5]), np.array([2, 2]), Bootstrap(2, 20))
    assert found.value == 6 / 4
    assert length_ratio(np.array([1, 5]), np.zeros(2), Bootstrap(2, 20)).value == np.inf


def test_shares_and_exact_matches():
    right = np.array([[1, 1, 0], [1, 0, 1]], bool)
    mask = np.array([[1, 1, 0], [1, 1, 1]], bool)
    assert exact_match(right, mask).tolist() == [True, False]
    found = share(exact_match(right, mask), Bootstrap(2, 20))
    assert (found.value, found.n, found.unit) == (0.5, 2, "share")


def test_repetition_counted_by_hand():
    tokens = np.array(
        [
            [4, 4, 4, 4, 2],  # 1 of 4 unigrams unique, 1 of 3 bigrams, 1 of 2, 1 of 1
            [4, 5, 4, 5, 4],  # 2 of 5, 2 of 4, 2 of 3, 2 of 2
            [6, 2, 0, 0, 0],  # 1 of 1, and no longer n-grams
            [2, 0, 0, 0, 0],  # says nothing
        ]
    )
    lengths = np.array([4, 5, 1, 0])
    found = repetition(tokens, lengths, Bootstrap(4, 20), min_count=1)
    expected = [(3 / 4 + 3 / 5 + 0) / 3, (2 / 3 + 2 / 4) / 2, (1 / 2 + 1 / 3) / 2, 0]
    assert found.value == pytest.approx(expected)
    assert found.n.tolist() == [3, 2, 2, 2]
    assert found.axis == "n-gram"
    found = repetition(tokens, lengths, Bootstrap(4, 20), min_count=3)
    assert found.left_out == (2, 3, 4)
    short = repetition(tokens[2:, :2], lengths[2:], Bootstrap(2, 20), min_count=1)
    assert short.value.tolist() == [0]
    assert short.left_out == ()


def test_n_grams_of_large_ids_are_distinguished():
    generator = np.random.default_rng(0)
    tokens = generator.choice([4, 5, 2**31 - 2], (50, 12)).astype(np.int32)
    found = repetition(tokens, np.full(50, 12), Bootstrap(50, 20), min_count=1)
    for size, value in enumerate(found.value, start=1):
        rows = [[tuple(row[i : i + size]) for i in range(13 - size)] for row in tokens.tolist()]
        assert value == pytest.approx(np.mean([1 - len(set(row)) / len(row) for row in rows]))
