"""Intervals and p-values against scipy, by hand, and by simulation with noise of seeds and items.

Each simulated sweep has its own true noise: what another seed adds (seeds), what another item adds
for all seeds (items), and the rest.
"""

import math
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from s2s_jax.lab.significance import paired_difference, randomisation_p


def sides(paired: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two sides with the given differences."""
    base = np.random.default_rng(99).normal(size=paired.shape)
    return base + paired, base


def simulate(generator, num_seeds, num_items, seeds, items, rest, value=0.0) -> np.ndarray:
    """[seeds, items] paired differences."""
    return (
        value
        + seeds * generator.normal(size=(num_seeds, 1))
        + items * generator.normal(size=(1, num_items))
        + rest * generator.normal(size=(num_seeds, num_items))
    )


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_totals_alone_are_the_paired_t_test_of_scipy(count):
    generator = np.random.default_rng(count)
    ours, theirs = generator.normal(30, 1, count), generator.normal(31, 1, count)
    found = paired_difference(ours, theirs)
    expected = scipy.stats.ttest_rel(ours, theirs)
    low, high = expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.seed_variance == pytest.approx(np.var(ours - theirs, ddof=1))
    assert (found.num_seeds, found.num_items, found.item_variance) == (count, 0, 0)


def test_the_interval_by_hand():
    # Seeds' means 2, 3, 4; items' means -1 to 7; nothing rests. V_seeds = 1/3, V_items = 7.5/9.
    paired = 3.0 + np.array([[-1], [0], [1]]) + np.arange(-4, 5)
    found = paired_difference(*sides(paired))
    assert found.value == pytest.approx(3)
    assert (found.seed_variance, found.item_variance) == pytest.approx((1, 7.5 / 9))
    # V_items has the standard error sqrt(2/8) * V_items, so r = (1/3) / (1/3 + 5/12) = 4/9.
    half = scipy.stats.t.ppf(0.975, 2 / (4 / 9)) * math.sqrt(1 / 3 + 7.5 / 9)
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half))


def test_the_interval_is_near_the_bootstrap_where_seeds_are_many():
    paired = np.random.default_rng(3).normal(0.4, 1, 60)
    found = paired_difference(*sides(paired))
    expected = scipy.stats.bootstrap(
        (paired,), np.mean, n_resamples=2000, rng=np.random.default_rng(4)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.04)


def test_the_p_value_is_that_of_all_permutations():
    # All 2^12 ways to swap, by scipy; at two seeds the statistic is mean / SE of the seeds.
    paired = np.random.default_rng(18).normal(0.5, 1, (2, 6))
    found = paired_difference(*sides(paired), num_resamples=20_000)
    assert found.item_variance == 0, "else SE has a part from items"

    def statistic(ours, theirs, axis):
        d = (ours - theirs).reshape(*ours.shape[:-1], 2, 6).mean(-1)
        return np.abs(d.mean(-1)) / np.sqrt(d.var(-1, ddof=1) / 2)

    expected = scipy.stats.permutation_test(
        (paired.ravel(), np.zeros(12)),
        statistic,
        permutation_type="samples",
        alternative="greater",
        n_resamples=5000,  # more than there are: all of them
    ).pvalue
    assert 0.02 < expected < 0.9
    assert found.p_value == pytest.approx(expected, abs=0.012)


def test_the_p_value_is_that_of_the_t_test_where_all_noise_is_the_seeds():
    generator = np.random.default_rng(1)
    paired = 0.12 * generator.normal(size=(4, 1)) + generator.normal(0.15, 1, size=(4, 400))
    found = paired_difference(*sides(paired), num_resamples=10_000)
    assert found.item_variance == 0
    expected = float(np.asarray(scipy.stats.ttest_1samp(paired.mean(1), 0))[1])
    assert 0.02 < expected < 0.9
    assert found.p_value == pytest.approx(expected, abs=0.015)


def test_p_value_and_interval_agree_where_items_have_a_share():
    generator = np.random.default_rng(14)
    for _ in range(8):
        paired = simulate(generator, 4, 150, 0.05, 0.8, 1.0, 0.2)
        found = paired_difference(*sides(paired), num_resamples=4000)
        error = math.sqrt(found.seed_variance / 4 + found.item_variance)
        width = (found.high - found.value) / error
        freedom: Any = scipy.optimize.brentq(
            lambda f, at=width: scipy.stats.t.ppf(0.975, f) - at, 1, 1e6
        )
        expected = 2 * scipy.stats.t.sf(abs(found.value) / error, freedom)
        assert freedom > 3
        assert found.p_value == pytest.approx(expected, abs=0.03)


def test_identical_runs_differ_by_nothing_with_p_1():
    scores = np.random.default_rng(0).integers(0, 2, (3, 50)).astype(float)
    found = paired_difference(scores, scores)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    totals = paired_difference(scores.mean(1), scores.mean(1))
    assert (totals.value, totals.low, totals.high, totals.p_value) == (0, 0, 0, 1)
    # As linearised scores come: the same up to rounding.
    rounded = paired_difference(scores * (1 + 1e-15), scores)
    assert (rounded.value, rounded.p_value) == (0, 1)


def test_the_sides_are_treated_alike_and_the_unit_does_not_matter():
    ours, theirs = sides(simulate(np.random.default_rng(6), 3, 80, 0.1, 0.2, 1, 0.2))
    there, back = paired_difference(ours, theirs), paired_difference(theirs, ours)
    percent = paired_difference(100 * ours, 100 * theirs)
    assert (back.value, back.low, back.high) == pytest.approx(
        (-there.value, -there.high, -there.low)
    )
    assert there.p_value == back.p_value == percent.p_value
    assert percent.high == pytest.approx(100 * there.high)


def test_a_large_difference_is_found_by_three_seeds():
    paired = simulate(np.random.default_rng(8), 3, 200, 0.02, 0.3, 1, 1.0)
    found = paired_difference(*sides(paired))
    assert found.p_value < 0.01
    assert 0 < found.low < 1 < found.high


def test_one_seed_says_nothing():
    found = paired_difference(np.ones((1, 30)), np.zeros((1, 30)))
    assert found.value == 1
    assert all(math.isnan(one) for one in (found.low, found.high, found.p_value))
    assert paired_difference(np.zeros((0, 1)), np.zeros((0, 1))).num_seeds == 0


def test_sides_that_are_not_paired_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\); both must be"):
        paired_difference(np.zeros((2, 3)), np.zeros((2, 4)))


NOISE = [
    pytest.param(3, 1.0, 0.0, 0.0, id="3 seeds, noise of seeds"),
    pytest.param(3, 0.1, 0.0, 1.0, id="3 seeds, half of it"),
    pytest.param(3, 0.1, 0.5, 1.0, id="3 seeds, and of items"),
    pytest.param(5, 0.1, 1.0, 1.0, id="5 seeds, most of items"),
    pytest.param(5, 0.1, 0.2, 1.0, id="5 seeds, some of items"),
]


@pytest.mark.parametrize(("num_seeds", "seeds", "items", "rest"), NOISE)
def test_the_interval_covers_the_truth_as_often_as_it_says(num_seeds, seeds, items, rest):
    generator = np.random.default_rng(10)
    covered = 0
    for _ in range(1000):
        paired = simulate(generator, num_seeds, 100, seeds, items, rest, 0.3)
        found = paired_difference(paired, np.zeros_like(paired), num_resamples=1)
        covered += found.low <= 0.3 <= found.high
    assert 0.93 <= covered / 1000 <= 0.97


def null_sweeps(num_seeds: int, seed_noise: float, item_noise: float = 0.0):
    """1,000 times [seeds, items] of right and wrong of two schedules that do not differ.

    A word is as hard for both, each seed of each is a little better or worse at all words, and
    item_noise is what a word is harder for the one schedule than for the other.
    """
    generator = np.random.default_rng(11)
    for _ in range(1000):
        hard = generator.normal(0.5, 1.5, 120)
        yield tuple(
            generator.random((num_seeds, 120))
            < 1 / (1 + np.exp(-hard - extra - seed_noise * generator.normal(size=(num_seeds, 1))))
            for extra in (0.0, item_noise * generator.normal(size=120))
        )


@pytest.mark.parametrize(
    ("num_seeds", "seed_noise", "item_noise"),
    [(3, 0.5, 0), (3, 0.1, 0.5), (4, 0, 0), (5, 0.5, 0.3)],
)
def test_what_does_not_differ_is_said_to_in_one_of_twenty(num_seeds, seed_noise, item_noise):
    wrong = 0
    for number, (ours, theirs) in enumerate(null_sweeps(num_seeds, seed_noise, item_noise)):
        paired = ours.astype(float) - theirs
        wrong += randomisation_p(paired, num_resamples=400, seed=number) <= 0.05
    assert wrong / 1000 <= 0.06


def test_swapping_items_without_regard_to_seeds_would_find_what_is_not_there():
    # What the module is for: the same sweeps, by the usual randomisation over items.
    generator, wrong = np.random.default_rng(12), 0
    for ours, theirs in null_sweeps(3, 0.5):
        paired = (ours.astype(float) - theirs).sum(0)
        signs = generator.choice([-1.0, 1.0], (200, 120))
        wrong += (1 + (np.abs(signs @ paired) >= abs(paired.sum())).sum()) / 201 <= 0.05
    assert wrong / 1000 > 0.3
