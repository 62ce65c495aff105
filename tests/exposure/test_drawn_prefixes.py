from typing import Any

import numpy as np
import pytest

from s2s_jax.exposure import (
    accumulated_error,
    estimate_accumulated_error,
    estimate_relative_distance,
    relative_distance,
)
from s2s_jax.theory.optimum import next_token_tables

TRUTH = (0.7, 0.3), ((0.95, 0.05), (0.3, 0.7))
MODEL = (0.7, 0.3), ((0.9, 0.1), (0.05, 0.95))
OTHER = (0.6, 0.4), ((0.8, 0.2), (0.25, 0.75))


def tables(chain: tuple[Any, Any], length=5):
    return next_token_tables(*chain, length)


def test_the_interval_over_sampled_prefixes_contains_the_exact_value(function):
    exact = accumulated_error(tables(TRUTH), tables(MODEL))
    names = ("gold_divergence", "own_divergence", "excess_percent")
    num_missed, num_missed_of_wrong = np.zeros(3, int), np.zeros(3, int)
    for seed in range(20):
        found = estimate_accumulated_error(
            function(TRUTH),
            function(MODEL),
            5,
            num_samples=500,
            num_resamples=200,
            seed=seed,
            confidence=0.99,
        )
        assert found.num_samples == 500
        for index, name in enumerate(names):
            value, low, high = (getattr(one, name)[-1] for one in found[:3])
            assert low < value < high
            wanted = getattr(exact, name)[-1]
            num_missed[index] += not low <= wanted <= high
            num_missed_of_wrong[index] += not low <= 1.3 * wanted <= high
    assert np.all(num_missed <= 1)
    assert np.all(num_missed_of_wrong > 1)  # so a bias of 1.3 is seen
    assert np.all(num_missed_of_wrong[:2] == 20)


def test_more_samples_are_closer(function):
    exact = accumulated_error(tables(TRUTH), tables(MODEL)).own_divergence[-1]
    options = {"num_resamples": 100, "num_samples": 20_000}
    found = estimate_accumulated_error(function(TRUTH), function(MODEL), 5, **options)
    assert found.value.own_divergence[-1] == pytest.approx(exact, rel=0.03)
    width = found.high.own_divergence[-1] - found.low.own_divergence[-1]
    assert 0.005 * exact < width < 0.06 * exact


@pytest.mark.parametrize("distance", ["total_variation", "jensen_shannon"])
def test_the_interval_of_the_relative_distance_contains_the_exact_value(distance, function):
    found = relative_distance(tables(TRUTH), tables(OTHER), distance)
    options = {"num_samples": 4000, "num_resamples": 200}
    value, low, high = estimate_relative_distance(
        function(TRUTH), function(OTHER), 5, distance, **options
    )
    assert np.all(low.ratio[1:] < value.ratio[1:])
    assert np.all((low.ratio <= found.ratio + 1e-12) & (found.ratio - 1e-12 <= high.ratio))


def test_one_source_per_row_gives_the_mean_over_sources(function):
    """Half of the rows have one truth and model, the other half another."""
    kinds = np.arange(4000) % 2

    def by_row(*chains):
        def next_token_probs(prefix: np.ndarray) -> np.ndarray:
            return np.choose(kinds[:, None], [function(chain)(prefix) for chain in chains])

        return next_token_probs

    truth, model = by_row(TRUTH, OTHER), by_row(MODEL, TRUTH)
    found = estimate_accumulated_error(truth, model, 4, num_samples=4000, num_resamples=200)
    pairs = ((TRUTH, MODEL), (OTHER, TRUTH))
    exact = [accumulated_error(tables(p, 4), tables(q, 4)) for p, q in pairs]
    for name in ("gold_divergence", "own_divergence"):
        mean = np.mean([getattr(one, name) for one in exact], axis=0)
        assert np.all(getattr(found.low, name) <= mean + 1e-12)
        assert np.all(mean - 1e-12 <= getattr(found.high, name))
        assert getattr(found.value, name)[-1] == pytest.approx(mean[-1], rel=0.1)


def test_invalid_arguments_are_refused(function):
    sure = (1.0, 0.0), ((1.0, 0.0), (0.0, 1.0))
    with pytest.raises(ValueError, match=r"the truth gives 0 to token 1 at a prefix of row \(0,\)"):
        estimate_accumulated_error(function(sure), function(MODEL), 2)
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"length": 0}, "length is 0; it must be at least 1"),
        ({"num_samples": 1}, "num_samples is 1; it must be at least 2"),
        ({"num_resamples": 0}, "num_resamples is 0; it must be at least 1"),
        ({"confidence": 1.0}, "confidence is 1.0; it must be in"),
    )
    for options, message in wrong:
        options = {"length": 3, "num_samples": 9} | options
        with pytest.raises(ValueError, match=message):
            estimate_accumulated_error(function(TRUTH), function(MODEL), **options)
    three = np.full((9, 3), 1 / 3)
    with pytest.raises(ValueError, match=r"answer with shapes \(9, 2\) and \(9, 3\)"):
        estimate_accumulated_error(function(TRUTH), lambda prefix: three, 2, num_samples=9)
