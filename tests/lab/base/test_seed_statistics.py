import math

import numpy as np
import pytest
import scipy.stats

from s2s_jax.lab.base.seed_statistics import holm, probability_of_improvement, seeds_needed


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.03, 0.01]) == pytest.approx([0.03, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_does_not_count_missing_tests():
    corrected = holm([0.01, math.nan, 0.04])
    assert corrected[0] == 0.02
    assert math.isnan(corrected[1])
    assert corrected[2] == 0.04


def test_holm_controls_the_familywise_error():
    p = np.random.default_rng(0).uniform(size=(4000, 4))
    wrong = np.mean([min(holm(row.tolist())) <= 0.05 for row in p])
    assert 0.04 <= wrong <= 0.06


def test_the_probability_of_improvement_is_that_of_mann_and_whitney():
    generator = np.random.default_rng(1)
    ours, theirs = generator.integers(0, 6, 7).astype(float), generator.integers(1, 7, 5) * 1.0
    expected = scipy.stats.mannwhitneyu(ours, theirs).statistic / (7 * 5)
    assert probability_of_improvement(ours[:, None], theirs[:, None]) == pytest.approx(expected)


def test_the_probability_of_improvement_is_item_by_item():
    ours, theirs = np.array([[1.0, 0.0, 5.0]]), np.array([[0.0, 0.0, 9.0]])
    assert probability_of_improvement(ours, theirs) == 0.5  # one win, one tie, one loss
    assert probability_of_improvement(ours, ours + 1) == 0
    assert probability_of_improvement(ours + 1e-13, ours) == 0.5


@pytest.mark.parametrize(("effect", "count"), [(0.5, 34), (0.8, 15), (1.0, 10)])
def test_the_number_of_seeds_is_that_of_the_tables(effect, count):
    # Cohen (1988), paired t-test, two-sided alpha .05, power .80.
    assert seeds_needed(effect, 1.0) == count
    assert seeds_needed(-3 * effect, 9.0) == count


def test_that_many_seeds_reach_the_power_and_fewer_do_not():
    count = seeds_needed(1.3, 1.0)
    assert count is not None
    generator = np.random.default_rng(2)
    powers = [
        np.mean(
            np.asarray(scipy.stats.ttest_1samp(generator.normal(1.3, 1, (n, 8000)), 0))[1] <= 0.05
        )
        for n in (count, count - 1)
    ]
    assert powers[0] > 0.79 > powers[1]


def test_differences_that_no_number_of_seeds_can_show():
    assert seeds_needed(0.1, 1.0) is None
    assert seeds_needed(0.1, 1.0, most=1000) == 787
    assert seeds_needed(0.0, 1.0) is None
    # Two standard errors of the items are too few, whatever the number of seeds.
    assert seeds_needed(2.0, 0.5, item_variance=1.0, most=1000) is None
    few = seeds_needed(2.0, 0.5)
    more = seeds_needed(2.0, 0.5, item_variance=0.3)
    assert few is not None
    assert more is not None
    assert few < more
    assert seeds_needed(5.0, 0.0) == 2
