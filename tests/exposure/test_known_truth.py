from typing import Any

import numpy as np
import pytest

from s2s_jax.exposure import (
    accumulated_error,
    estimate_accumulated_error,
    estimate_relative_distance,
    jensen_shannon,
    relative_distance,
    tabulate,
    total_variation,
)
from s2s_jax.theory import kl_divergence, next_token_tables, sequence_probs

TRUTH = (0.7, 0.3), ((0.95, 0.05), (0.3, 0.7))
MODEL = (0.7, 0.3), ((0.9, 0.1), (0.05, 0.95))
OTHER = (0.6, 0.4), ((0.8, 0.2), (0.25, 0.75))


def tables(chain: tuple[Any, Any], length=5):
    return next_token_tables(*chain, length)


def function(chain):
    initial, transition = map(np.array, chain)

    def next_token_probs(prefix: np.ndarray) -> np.ndarray:
        if not prefix.shape[1]:
            return np.tile(initial, (len(prefix), 1))
        return transition[prefix[:, -1]]

    return next_token_probs


def test_accumulated_error_of_the_fixture():
    found = accumulated_error(tables(TRUTH, 12), tables(MODEL, 12))
    at = np.array([2, 4, 8, 12]) - 1
    assert found.accumulated[at].round(2).tolist() == [2.00, 5.32, 14.99, 27.06]
    assert found.excess_percent[at].round(1).tolist() == [0.0, 33.0, 87.3, 125.5]
    # Independently: both chains' marginals, and the divergence of their rows.
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


def test_monte_carlo_holds_the_exact_value_in_its_interval():
    exact = accumulated_error(tables(TRUTH), tables(MODEL))
    num_missed = np.zeros(3, int)
    for seed in range(20):
        found = estimate_accumulated_error(
            function(TRUTH), function(MODEL), 5, num_samples=500, num_resamples=200, seed=seed
        )
        assert found.num_samples == 500
        for index, name in enumerate(("gold_divergence", "own_divergence", "excess_percent")):
            low, high = getattr(found.low, name)[-1], getattr(found.high, name)[-1]
            assert low < getattr(found.value, name)[-1] < high
            num_missed[index] += not low <= getattr(exact, name)[-1] <= high
    assert np.all(num_missed <= 3)  # of intervals of 95 %
    assert num_missed.sum() >= 1  # nor do they hold everything


def test_more_samples_come_nearer():
    exact = accumulated_error(tables(TRUTH), tables(MODEL)).own_divergence[-1]
    options = {"num_resamples": 100, "num_samples": 20_000}
    found = estimate_accumulated_error(function(TRUTH), function(MODEL), 5, **options)
    assert found.value.own_divergence[-1] == pytest.approx(exact, rel=0.03)
    width = found.high.own_divergence[-1] - found.low.own_divergence[-1]
    assert 0.005 * exact < width < 0.06 * exact


@pytest.mark.parametrize("distance", ["total_variation", "jensen_shannon"])
def test_relative_distance_is_that_of_drawn_marginals(distance):
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
    options = {"num_samples": 4000, "num_resamples": 200}
    value, low, high = estimate_relative_distance(
        function(TRUTH), function(OTHER), 5, distance, **options
    )
    assert np.all(low.ratio[1:] < value.ratio[1:])
    assert np.all((low.ratio <= found.ratio + 1e-12) & (found.ratio - 1e-12 <= high.ratio))


def test_distances():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    assert total_variation(p, q) == pytest.approx(0.5)
    middle = (p + q) / 2
    expected = (p[:2] * np.log(p[:2] / middle[:2])).sum() + (q * np.log(q / middle)).sum()
    assert jensen_shannon(p, q) == pytest.approx(expected / 2)
    assert jensen_shannon(p, q) == pytest.approx(jensen_shannon(q, p))
    assert jensen_shannon(p, p) == 0


def test_a_function_becomes_tables():
    for found, expected in zip(tabulate(function(TRUTH), 2, 5), tables(TRUTH), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-15)
    by_prefix = tabulate(lambda prefix: np.eye(3)[prefix.sum(-1) % 3], 3, 3)
    assert by_prefix[2][1, 1].tolist() == [0, 0, 1]
    assert by_prefix[2][1, 2].tolist() == [1, 0, 0]


def test_what_happens_behind_impossible_prefixes_counts_nowhere():
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


def test_what_else_is_refused():
    sure = (1.0, 0.0), ((1.0, 0.0), (0.0, 1.0))
    with pytest.raises(ValueError, match="the truth gives 0 to token 1 at prefix"):
        estimate_accumulated_error(function(sure), function(MODEL), 2)
    with pytest.raises(ValueError, match="distance is 'l2'; it must be one of total_variation, j"):
        relative_distance((HALF,), (HALF,), "l2")
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"length": 0}, "length is 0; it must be at least 1"),
        ({"num_samples": 1}, "num_samples is 1; it must be at least 2"),
        ({"num_resamples": 0}, "num_resamples is 0; it must be at least 1"),
        ({"confidence": 1.0}, "confidence is 1.0; it must be in"),
    )
    for options, message in wrong:
        options = {"length": 3} | options
        with pytest.raises(ValueError, match=message):
            estimate_accumulated_error(function(TRUTH), function(MODEL), **options)
    with pytest.raises(ValueError, match="2 symbols have 2097152 sequences of length 21"):
        tabulate(function(TRUTH), 2, 21)
    with pytest.raises(ValueError, match="length is 0 and num_symbols 2; both are at least 1"):
        tabulate(function(TRUTH), 2, 0)
    with pytest.raises(ValueError, match=r"of 1 prefixes have shape \(1, 2\); they must"):
        tabulate(function(TRUTH), 3, 1)
    three = np.full((9, 3), 1 / 3)
    with pytest.raises(ValueError, match=r"answer with shapes \(9, 2\) and \(9, 3\)"):
        estimate_accumulated_error(function(TRUTH), lambda prefix: three, 2, num_samples=9)
