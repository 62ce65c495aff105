from typing import Any

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from s2s_jax.theory.risk import minimum_risk
from tests.theory.pairs import CHAIN, EMISSION, WITH_ZEROS, joint_probs

COSTS = {
    "edit_rate": lambda s, y: Levenshtein.distance(s, y) / len(y),
    "exact_match": lambda s, y: float(s != y),
}


def random_chains() -> list[Any]:
    numbers = np.random.default_rng(1)
    return [
        (*(numbers.dirichlet(np.full(3, 0.7), size) for size in (None, 3)), None) for _ in range(4)
    ]


@pytest.mark.parametrize(
    "chain", [(*CHAIN, None), (*CHAIN, EMISSION), (*WITH_ZEROS, None), *random_chains()]
)
@pytest.mark.parametrize("cost", list(COSTS))
def test_the_best_sequences_are_those_of_a_sum_over_all_pairs(chain: Any, cost: str):
    initial, transition, emission = chain
    joint = joint_probs(initial, transition, 4, emission)
    expected = {
        s: sum(joint[y] * COSTS[cost](s, y) for y in np.ndindex(joint.shape))
        for s in np.ndindex(joint.shape)
    }
    least = min(expected.values())
    found = minimum_risk(initial, transition, 4, cost, emission)
    assert found.cost == pytest.approx(least, abs=1e-12)
    best = [list(s) for s, one in expected.items() if one < least + 1e-9]
    assert found.sequences.tolist() == best


def test_the_cheapest_sequence_may_be_an_impossible_one():
    """Of 00, 11 and 12 with .4, .3, .3, 00 is the likeliest; 10 is one edit from each of them."""
    chain = (0.4, 0.6, 0.0), ((1, 0, 0), (0, 0.5, 0.5), (0, 0, 1))
    exact = minimum_risk(*chain, 2, "exact_match")
    assert exact.sequences.tolist() == [[0, 0]]
    assert exact.cost == pytest.approx(0.6)
    edits = minimum_risk(*chain, 2, "edit_rate")
    assert edits.sequences.tolist() == [[1, 0]]
    assert edits.cost == pytest.approx(0.5)


def test_all_sequences_of_a_fair_coin_are_as_good_for_exact_match():
    fair = minimum_risk((0.5, 0.5), np.full((2, 2), 0.5), 3, "exact_match")
    assert fair.sequences.shape == (8, 3)
    assert fair.cost == 0.875


def test_a_certain_sequence_costs_nothing():
    chain = (1.0, 0.0, 0.0), ((0, 1, 0), (0, 0, 1), (1, 0, 0))
    for cost in COSTS:
        found = minimum_risk(*chain, 5, cost)
        assert (found.cost, found.sequences.tolist()) == (0, [[0, 1, 2, 0, 1]])


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match=r"^cost is 'bleu'; it must be one of edit_rate, exact"):
        minimum_risk(*CHAIN, 3, "bleu")
    with pytest.raises(
        ValueError, match=r"^2 symbols have more than 1048576 pairs of sequences of"
    ):
        minimum_risk(*CHAIN, 11, "edit_rate")
    assert minimum_risk(*CHAIN, 11, "exact_match").cost == pytest.approx(1 - 0.7 * 0.9**10)
    with pytest.raises(ValueError, match="initial sums to"):
        minimum_risk((0.5, 0.4), CHAIN[1], 3, "edit_rate")
