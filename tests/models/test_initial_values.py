"""Initial values have the right distributions, and no two parameters share a number."""

import jax
import numpy as np
import pytest

from s2s_jax.models.initial_values import InitialValues, uniform_draw


@pytest.fixture(scope="module")
def draw():
    return uniform_draw(jax.random.key(0), 60_000)


def test_the_draw_is_uniform_from_minus_1_to_1(draw):
    assert -1 < float(draw.min()) < -0.999
    assert 0.999 < float(draw.max()) < 1
    shares, _ = np.histogram(draw, bins=10, range=(-1, 1))
    np.testing.assert_allclose(shares / draw.size, 0.1, atol=0.006)


def test_each_value_takes_the_next_numbers_of_the_draw(draw):
    values = InitialValues(draw)
    first, second = values.uniform(2, 3), values.uniform(4)
    np.testing.assert_array_equal(first.ravel(), draw[:6])
    np.testing.assert_array_equal(second, draw[6:10])
    assert values.size == 10


def test_counting_gives_zeros_of_the_same_shapes():
    counting = InitialValues()
    assert counting.normal(2, 3).shape == (2, 3)
    assert counting.orthogonal(2, 4).shape == (2, 4, 4)
    assert not counting.glorot_uniform(5, 1).any()
    assert counting.size == 6 + 32 + 5


def test_normal_values_have_their_quantiles(draw):
    values = np.asarray(InitialValues(draw).normal(60_000))
    expected = {-1.6449: 0.05, -0.6745: 0.25, 0.0: 0.5, 0.6745: 0.75, 1.6449: 0.95}
    for quantile, share in expected.items():
        assert float((values < quantile).mean()) == pytest.approx(share, abs=0.006)


def test_matrices_are_uniform_within_glorots_limit(draw):
    matrices = np.asarray(InitialValues(draw).glorot_uniform(2, 100, 200))
    limit = (6 / 300) ** 0.5
    assert 0.999 * limit < np.abs(matrices).max() <= limit
    assert matrices.std() == pytest.approx(limit / 3**0.5, rel=0.01)


def test_orthogonal_matrices_are_orthogonal_and_not_biased(draw):
    matrices = np.asarray(InitialValues(draw).orthogonal(600, 10))
    products = matrices @ matrices.swapaxes(1, 2)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(10), products.shape), atol=1e-5)
    # Without the signs of the triangle's diagonal, the diagonals would be biased.
    assert abs(float(matrices[:, 0, 0].mean())) < 0.05
    assert matrices[:, 0, 0].std() == pytest.approx(10**-0.5, rel=0.1)
