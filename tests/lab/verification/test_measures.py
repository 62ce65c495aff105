"""What trained models predict and cost, counted by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import EOS
from s2s_jax.lab.verification.measures import all_costs, expected_costs, trained_tables
from s2s_jax.lab.verification.recipes import make_symbol_table
from s2s_jax.models.tabular import make_tabular_model
from s2s_jax.theory.risk import minimum_risk

GOLD, GOLD_PROBS = np.array([[4], [5]]), np.array([0.7, 0.3])


def distance(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    if not one or not other:
        return len(one) + len(other)
    return min(
        distance(one[1:], other) + 1,
        distance(one, other[1:]) + 1,
        distance(one[1:], other[1:]) + (one[0] != other[0]),
    )


def test_costs_are_those_of_the_definition():
    said = np.array(list(itertools.product((EOS, 4, 5), repeat=3)))
    gold = np.array(list(itertools.product((4, 5), repeat=3)))
    rates, misses = (all_costs(said, gold, cost) for cost in ("edit_rate", "exact_match"))
    for (i, s), (j, y) in itertools.product(enumerate(said), enumerate(gold)):
        until_end = tuple(itertools.takewhile(lambda token: token != EOS, s.tolist()))
        assert rates[i, j] == pytest.approx(distance(until_end, tuple(y.tolist())) / 3)
        assert misses[i, j] == (until_end != tuple(y.tolist()))


@pytest.mark.parametrize("cost", ["edit_rate", "exact_match"])
def test_the_expected_cost_counts_ids_that_are_no_symbols(cost):
    model = make_tabular_model(6, 6, length=1)
    logits = jnp.log(jnp.array([[[1, 1, 1, 1, 1, 1]], [[0, 0, 1, 0, 1, 0]]]))
    # The first model: 4 with 1/6 costs .3, 5 with 1/6 costs .7, four others cost 1.
    # The second: an empty hypothesis with 1/2, 4 with 1/2.
    found = expected_costs(model, logits, GOLD, GOLD_PROBS, cost)
    assert found == pytest.approx([5 / 6, 1.3 / 2])


def test_the_cheapest_sequence_costs_what_theory_says():
    chain = (0.7, 0.3), ((0.9, 0.1), (0.2, 0.8))
    model = make_symbol_table(2, 3, 4)
    params = jnp.broadcast_to(jnp.array([30.0, -30.0]), (1, 7, 2))  # always symbol 0
    gold = np.array(list(itertools.product((4, 5), repeat=3)))
    probs = np.array(
        [np.prod([chain[0][a], chain[1][a][b], chain[1][b][c]]) for a, b, c in gold - 4]
    )
    for cost in ("edit_rate", "exact_match"):
        best = minimum_risk(*chain, length=3, cost=cost)
        assert expected_costs(model, params, gold, probs, cost) == pytest.approx([best.cost])


@pytest.mark.parametrize("first_id", [0, 4])
def test_the_tables_of_a_population_are_those_of_its_models(first_id):
    model = make_symbol_table(3, 2, first_id)
    params = jax.random.normal(jax.random.key(0), (2, 4, 3))
    probs = np.asarray(jax.nn.softmax(params))
    for (first, second), rows in zip(
        trained_tables(model, params, range(first_id, first_id + 3), 2), probs, strict=True
    ):
        assert first == pytest.approx(rows[0], abs=1e-6)
        assert second == pytest.approx(rows[1:], abs=1e-6)
