from typing import Any

import numpy as np
import pytest

from s2s_jax.exposure import (
    accumulated_error,
    jensen_shannon,
    relative_distance,
    total_variation,
)
from s2s_jax.theory.information import kl_divergence
from s2s_jax.theory.optimum import next_token_tables, sequence_probs

TRUTH = (0.7, 0.3), ((0.95, 0.05), (0.3, 0.7))
MODEL = (0.7, 0.3), ((0.9, 0.1), (0.05, 0.95))
OTHER = (0.6, 0.4), ((0.8, 0.2), (0.25, 0.75))


def tables(chain: tuple[Any, Any], length=5):
    return next_token_tables(*chain, length)


def test_accumulated_error_of_the_fixture():
    found = accumulated_error(tables(TRUTH, 12), tables(MODEL, 12))
    at = np.array([2, 4, 8, 12]) - 1
    assert found.accumulated[at].round(2).tolist() == [2.00, 5.32, 14.99, 27.06]
    assert found.excess_percent[at].round(1).tolist() == [0.0, 33.0, 87.3, 125.5]
    # Computed independently, from both chains' marginals and the divergence of their rows.
    (first, p), (_, q) = (tuple(map(np.array, chain)) for chain in (TRUTH, MODEL))
    gold, own, rows = first, first, kl_divergence(p, q)
    sums = np.zeros(2)
    for length in range(2, 13):
        sums += gold @ rows, own @ rows
        gold, own = gold @ p, own @ q
        assert found.gold_divergence[length - 1] == pytest.approx(sums[0], abs=1e-12)
        assert found.own_divergence[length - 1] == pytest.approx(sums[1], abs=1e-12)
        assert found.accumulated[length - 1] == pytest.approx(length * sums[1] / sums[0], abs=1e-9)


@pytest.mark.parametrize("model", [MODEL, OTHER])
def test_the_chain_rule(model):
    truth, model = tables(TRUTH), tables(model)
    found = accumulated_error(truth, model)
    for length in range(1, 6):
        p, q = (sequence_probs(some[:length]).reshape(-1) for some in (truth, model))
        assert found.gold_divergence[length - 1] == pytest.approx(kl_divergence(p, q), abs=1e-12)


def test_one_token_has_no_excess_and_no_error_has_no_ratio():
    found = accumulated_error(tables(TRUTH), tables(OTHER))
    assert found.accumulated[0] == pytest.approx(1)
    assert found.excess_percent[0] == pytest.approx(0)
    same = accumulated_error(tables(TRUTH), tables(TRUTH))
    assert np.all(same.own_divergence == 0)
    assert np.all(np.isnan(same.accumulated) & np.isnan(same.excess_percent))
    late = accumulated_error(tables(TRUTH), tables(MODEL))
    assert np.isnan(late.excess_percent).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("distance", ["total_variation", "jensen_shannon"])
def test_relative_distance_equals_that_of_the_marginals(distance):
    measure = {"total_variation": total_variation, "jensen_shannon": jensen_shannon}[distance]
    found = relative_distance(tables(TRUTH), tables(OTHER), distance)
    (gold, p), (own, q) = (tuple(map(np.array, chain)) for chain in (TRUTH, OTHER))
    assert found.gold_distance[0] == pytest.approx(measure(gold, own))
    assert found.ratio[0] == pytest.approx(1)
    for step in range(1, 5):
        assert found.gold_distance[step] == pytest.approx(gold @ measure(p, q))
        assert found.own_distance[step] == pytest.approx(own @ measure(p, q))
        expected = found.own_distance[step] / found.gold_distance[step]
        assert found.ratio[step] == pytest.approx(expected)
        gold, own = gold @ p, own @ q
    assert np.isnan(relative_distance(tables(TRUTH), tables(MODEL)).ratio[0])


def test_impossible_prefixes_are_ignored():
    first = np.array([1.0, 0.0])
    rows = np.array([[0.5, 0.5], [np.nan, np.nan]])
    found = accumulated_error((first, rows), (first, np.array([[0.25, 0.75], [np.nan] * 2])))
    assert found.own_divergence[1] == pytest.approx(kl_divergence(rows[0], [0.25, 0.75]))
    assert relative_distance((first, rows), (first, rows)).own_distance.tolist() == [0, 0]


HALF = np.array([0.5, 0.5])
ONE = np.array([1.0, 0.0])


@pytest.mark.parametrize(
    ("truth", "model", "message"),
    [
        ((ONE,), (HALF,), r"the truth gives 0 to token 1 at prefix \(\), where the model has mass"),
        ((HALF,), (ONE,), r"the model gives 0 to token 1 at prefix \(\), where the truth has mass"),
        (
            (HALF, np.array([HALF, ONE])),
            (HALF, np.array([HALF, HALF])),
            r"the truth gives 0 to token 1 at prefix \(1,\)",
        ),
        ((HALF,), (HALF * np.nan,), r"the model has no distribution of probabilities at prefix"),
        ((HALF * 0.9,), (HALF,), r"the truth has no distribution of probabilities at prefix"),
        ((HALF,), (np.array([1.5, -0.5]),), r"the model has no distribution of probabilities"),
        ((HALF,), (HALF, HALF), "truth has 1 tables and model 2"),
        ((), (), "truth has 0 tables and model 0"),
        ((HALF,), (np.ones(3) / 3,), r"model's table of step 0 has shape \(3,\), not \(2,\)"),
    ],
)
def test_tables_that_are_refused(truth, model, message):
    with pytest.raises(ValueError, match=message):
        accumulated_error(truth, model)


def test_an_unknown_distance_is_refused():
    with pytest.raises(ValueError, match="distance is 'l2'; it must be one of total_variation, j"):
        relative_distance((HALF,), (HALF,), "l2")
