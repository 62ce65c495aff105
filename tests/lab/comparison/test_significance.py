"""Intervals and p-values against scipy, by hand, and by simulation with noise of seeds and items.

Each simulated sweep has its own true noise: what another seed adds (seeds), what another item adds
for all seeds (items), and the rest.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from docs.scripts.p_values import (
    NULL_CASES,
    POWER_CASES,
    p_of_items_together,
    p_of_items_within_seeds,
    p_of_seeds,
    p_value,
    size,
)
from s2s_jax.lab.comparison.significance import paired_difference


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
def test_with_totals_only_it_is_scipys_paired_t_test(count):
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
    # Seed means 2, 3, 4; item means -1 to 7; no residual. V_seeds = 1/3, V_items = 7.5/9.
    paired = 3.0 + np.array([[-1], [0], [1]]) + np.arange(-4, 5)
    found = paired_difference(*sides(paired))
    assert found.value == pytest.approx(3)
    assert (found.seed_variance, found.item_variance) == pytest.approx((1, 7.5 / 9))
    # V_items has the standard error sqrt(2/8) * V_items, so r = (1/3) / (1/3 + 5/12) = 4/9.
    half = scipy.stats.t.ppf(0.975, 2 / (4 / 9)) * math.sqrt(1 / 3 + 7.5 / 9)
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half))


def test_with_many_seeds_the_interval_is_near_the_bootstrap():
    paired = np.random.default_rng(3).normal(0.4, 1, 60)
    found = paired_difference(*sides(paired))
    expected = scipy.stats.bootstrap(
        (paired,), np.mean, n_resamples=2000, rng=np.random.default_rng(4)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.04)


def test_a_failed_run_in_three_is_not_significant_however_many_items_there_are():
    for num_items in (2, 30, 1000):
        ours, theirs = np.ones((2, 3, num_items))
        theirs[:2] = 0
        found = paired_difference(ours, theirs)
        expected = scipy.stats.ttest_rel(ours.mean(1), theirs.mean(1))
        assert found.p_value == pytest.approx(expected.pvalue)
        assert found.low < 0 < found.high


def test_if_all_noise_is_from_seeds_items_add_nothing_to_the_t_test():
    generator = np.random.default_rng(1)
    paired = 0.12 * generator.normal(size=(4, 1)) + generator.normal(0.15, 1, size=(4, 400))
    found = paired_difference(*sides(paired))
    assert found.item_variance == 0
    expected = float(np.asarray(scipy.stats.ttest_1samp(paired.mean(1), 0))[1])
    assert 0.02 < expected < 0.9
    assert found.p_value == pytest.approx(expected)


@pytest.mark.parametrize("confidence", [0.95, 0.7])
def test_the_p_value_matches_the_interval(confidence):
    """An interval excludes 0 exactly when the difference is significant at its level."""
    generator = np.random.default_rng(14)
    outside = 0
    for number in range(300):
        num_seeds, num_items = generator.integers(2, 6), generator.choice([1, 2, 40])
        paired = simulate(generator, num_seeds, num_items, 0.05, 0.3, 0.3, 0.3)
        if number % 3 == 0:
            paired = np.round(paired)  # ties between items and between seeds
        found = paired_difference(paired, np.zeros_like(paired), confidence=confidence)
        leaves_out = not found.low <= 0 <= found.high
        assert leaves_out == (found.p_value < 1 - confidence)
        outside += leaves_out
    assert 30 < outside < 270


@pytest.mark.parametrize("num_items", [1, 60])
@pytest.mark.parametrize("num_seeds", [2, 3, 5, 600])
def test_seeds_that_tie_are_not_taken_for_seeds_without_noise(num_seeds, num_items):
    """If runs end at 0 or 1, all differences are 1 or all are -1 with probability 2 * 4^-n."""
    found = paired_difference(
        *np.repeat([1.0, 0.1], num_seeds * num_items).reshape(2, num_seeds, num_items)
    )
    assert found.p_value == pytest.approx(2 * 4.0**-num_seeds)
    assert (found.low <= 0) == (num_seeds == 2)
    assert found.low < 0.9 < found.high or num_seeds == 600
    # The same total from different items also counts as a tie.
    if num_items > 1:
        places = np.arange(num_items)
        other = np.stack([np.roll(places < 2, seed) for seed in range(num_seeds)])
        tied = paired_difference(other, np.zeros((num_seeds, num_items)))
        assert tied.p_value >= 2 * 4.0**-num_seeds * 0.999


def test_identical_runs_have_difference_0_and_p_1():
    scores = np.random.default_rng(0).integers(0, 2, (3, 50)).astype(float)
    found = paired_difference(scores, scores)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    totals = paired_difference(scores.mean(1), scores.mean(1))
    assert (totals.value, totals.low, totals.high, totals.p_value) == (0, 0, 0, 1)
    # Like linearised scores: the same up to rounding.
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


def test_a_large_difference_is_found_with_three_seeds():
    paired = simulate(np.random.default_rng(8), 3, 200, 0.02, 0.3, 1, 1.0)
    found = paired_difference(*sides(paired))
    assert found.p_value < 0.01
    assert 0 < found.low < 1 < found.high


def test_one_seed_has_no_interval_or_p_value():
    found = paired_difference(np.ones((1, 30)), np.zeros((1, 30)))
    assert found.value == 1
    assert all(math.isnan(one) for one in (found.low, found.high, found.p_value))
    assert paired_difference(np.zeros((0, 1)), np.zeros((0, 1))).num_seeds == 0


def test_unpaired_sides_are_rejected():
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
        found = paired_difference(paired, np.zeros_like(paired))
        covered += found.low <= 0.3 <= found.high
    assert 0.93 <= covered / 1000 <= 0.97


def named(cases):
    return [pytest.param(case, id=f"{case.num_seeds} seeds, {case.about}") for case in cases]


def most_at(level: float, count: int) -> float:
    """The share of rejections in `count` independent tests that chance hardly exceeds."""
    return level + 3 * math.sqrt(level * (1 - level) / count)


HOLDING = [case for case in NULL_CASES if case.holds]
QUICK = [case for case in HOLDING if not case.about.startswith(("nearly", "words"))] + [
    case for case in HOLDING if case.about == "words, noise of seeds"
]


@pytest.mark.parametrize("case", named(QUICK))
def test_equal_schedules_are_called_different_in_one_of_twenty_cases(case):
    assert size(case, p_value, 500) <= most_at(0.05, 500)


@pytest.mark.slow
@pytest.mark.parametrize("case", named(HOLDING))
def test_equal_schedules_are_called_different_in_one_of_twenty_of_many_cases(case):
    assert size(case, p_value, 10_000, seed=1) <= most_at(0.05, 10_000)


@pytest.mark.slow
@pytest.mark.parametrize("case", named(case for case in NULL_CASES if not case.holds))
def test_skewed_seeds_err_as_often_as_in_the_t_test(case):
    assert size(case, p_value, 4000) == pytest.approx(size(case, p_of_seeds, 4000), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("case", named(POWER_CASES))
def test_if_items_are_the_noise_the_power_is_that_of_swapping(case):
    swaps, num = np.random.default_rng(2), 2000
    found = size(case, p_value, num)
    assert 0.15 < found < 0.9
    assert found >= size(case, lambda paired: p_of_items_within_seeds(paired, swaps), num) - 0.01


def test_swapping_items_regardless_of_seeds_finds_false_differences():
    # Why the module does not swap labels: the same sweeps with the usual randomisation over items,
    # and with items swapped within seeds if one of them failed.
    swaps = np.random.default_rng(12)
    words = next(case for case in NULL_CASES if case.about == "words, noise of seeds")
    assert size(words, lambda paired: p_of_items_together(paired, swaps), 200) > 0.3
    failing = next(case for case in NULL_CASES if case.about.startswith("exact match"))
    assert size(failing, lambda paired: p_of_items_within_seeds(paired, swaps), 200) > 0.1


def shown_sizes() -> dict[tuple[str, str], float]:
    """The shares on the page, by case and number of seeds."""
    page = (Path(__file__).parents[3] / "docs/comparing.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines()]
    numbers = [row for row in rows if len(row) == 6 and row[-1][-1].isdigit()]
    return {(row[0], row[1]): float(row[2]) / 100 for row in numbers}


@pytest.mark.slow
def test_the_page_shows_what_the_script_prints():
    shown = shown_sizes()
    for case in NULL_CASES + POWER_CASES:
        near = size(case, p_value, 2000, seed=3)
        error = math.sqrt(max(near, 0.01) * (1 - near) * 2 / 2000)
        assert shown[case.about, str(case.num_seeds)] == pytest.approx(near, abs=3.5 * error)
    assert len(shown) == len(NULL_CASES + POWER_CASES)
