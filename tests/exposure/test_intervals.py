from typing import Any

import numpy as np
import pytest

from s2s_jax.exposure.intervals import Bootstrap, divide


def test_each_draw_has_as_many_sequences_as_the_data_and_depends_on_the_seed():
    counts = Bootstrap(50, num_resamples=20).counts
    assert np.all(counts.sum(1) == 50)
    assert np.unique(counts, axis=0).shape[0] == 20
    assert np.any(counts > 1)
    assert np.any(counts == 0)
    assert np.array_equal(counts, Bootstrap(50, num_resamples=20).counts)
    assert not np.array_equal(counts, Bootstrap(50, num_resamples=20, seed=1).counts)


def test_an_interval_of_a_mean_has_its_theoretical_width():
    values = np.random.default_rng(0).normal(3, 2, (400, 2))
    value, low, high = Bootstrap(400, 2000, 0.9).of(lambda mean: mean, values)
    assert value == pytest.approx(values.mean(0))
    error = values.std(0) / np.sqrt(400)
    assert high - low == pytest.approx(2 * 1.645 * error, rel=0.06)
    assert (high + low) / 2 == pytest.approx(value, abs=0.02)


def test_whole_sequences_are_drawn():
    """Ten identical tokens carry no more information than one."""
    single = np.random.default_rng(0).normal(size=(200, 1))
    bootstrap = Bootstrap(200)
    one = bootstrap.of(divide, single, np.ones((200, 1)))
    tokens = np.repeat(single, 10, axis=1).sum(1), np.full(200, 10)
    ten = bootstrap.of(divide, *tokens)
    assert ten.low == pytest.approx(one.low[0])
    assert ten.high == pytest.approx(one.high[0])


def test_a_statistic_of_several_arrays_uses_the_same_draws():
    """What is drawn together: a difference of two equal things is 0 in every draw.

    Up to rounding: which way a product's column is rounded depends on its place and the machine.
    """
    values = np.random.default_rng(0).normal(size=(30, 2, 3))
    found = Bootstrap(30, 50).of(lambda a, b: a - b, values, values.copy())
    assert found.value.shape == found.low.shape == (2, 3)
    np.testing.assert_allclose(found.low, 0, atol=1e-12)
    np.testing.assert_allclose(found.high, 0, atol=1e-12)


def test_blocks_are_combined(monkeypatch):
    values = np.random.default_rng(0).normal(size=(30, 4))
    whole = Bootstrap(30, 50).of(lambda mean: mean, values)
    monkeypatch.setattr("s2s_jax.exposure.intervals._BLOCK", 30 * 7)
    cut = Bootstrap(30, 50).of(lambda mean: mean, values)
    np.testing.assert_allclose(cut, whole)


def test_undefined_and_infinite_draws():
    bootstrap = Bootstrap(4, num_resamples=100, confidence=0.9)
    drawn = np.arange(100.0)
    assert bootstrap.around(50, drawn)[1:] == (4, 95)
    few, many = drawn.copy(), drawn.copy()
    few[:5], many[:6] = np.nan, np.nan
    assert bootstrap.around(50, few)[1:] == (9, 95)
    assert np.all(np.isnan(bootstrap.around(50, many)[1:]))
    assert np.all(np.isnan(bootstrap.around(np.nan, drawn)))
    drawn[:20] = np.inf
    assert bootstrap.around(50, drawn)[1:] == (24, np.inf)


def test_no_columns_give_no_values():
    found = Bootstrap(4, 10).of(divide, np.zeros((4, 0)), np.zeros((4, 0)))
    assert found.value.shape == found.low.shape == found.high.shape == (0,)


def test_invalid_arguments_are_refused():
    wrong: tuple[tuple[Any, str], ...] = (
        ((0,), "num_sequences is 0; it must be at least 1"),
        ((3, 0), "num_resamples is 0; it must be at least 1"),
        ((3, 10, 1.0), r"confidence is 1.0; it must be in \(0, 1\)"),
    )
    for numbers, message in wrong:
        with pytest.raises(ValueError, match=message):
            Bootstrap(*numbers)
    with pytest.raises(ValueError, match="2 rows for a bootstrap of 3 sequences"):
        Bootstrap(3, 10).of(lambda mean: mean, np.ones(2))
