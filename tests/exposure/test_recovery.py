import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import BOS, NUM_RESERVED
from s2s_jax.exposure.intervals import Bootstrap
from s2s_jax.exposure.recovery import choose_position, corrupt, half_life, self_recovery


def test_positions_are_uniform_over_those_with_a_later_token():
    mask = np.arange(5) < np.repeat([0, 1, 2, 4], 2000)[:, None]
    found = np.asarray(choose_position(jnp.asarray(mask), jax.random.key(0))).reshape(4, 2000)
    assert np.all(found[:2] == 0)
    assert np.all(found[2] == 1)
    shares = np.bincount(found[3], minlength=5) / 2000
    assert shares[[0, 4]].tolist() == [0, 0]
    assert shares[1:4] == pytest.approx([1 / 3] * 3, abs=0.04)


@pytest.mark.parametrize("kind", ["uniform", "plausible"])
def test_a_corrupted_token_is_an_ordinary_one_and_never_the_gold_one(kind):
    count = 3000
    inputs = jnp.tile(jnp.array([BOS, 5, 4, 7]), (count, 1))
    # The prediction of y_2, after BOS and y_1, is in column 1; the other columns are misleading.
    logits = jnp.zeros((count, 4, 8)).at[:, 0, 6].set(9.0).at[:, 2, 6].set(9.0)
    logits = logits.at[:, 1].set(jnp.array([9, 9, 9, 9, 2, jnp.log(3.0), jnp.log(2.0), 0]))
    position = jnp.full(count, 2).at[0].set(0)
    found = np.asarray(corrupt(kind, inputs, position, logits, jax.random.key(1)))
    assert np.array_equal(found[0], inputs[0])
    assert np.array_equal(np.delete(found, 2, axis=1), np.delete(inputs, 2, axis=1))
    shares = np.bincount(found[1:, 2], minlength=8) / (count - 1)
    assert np.all(shares[: NUM_RESERVED + 1] == 0)
    expected = [1 / 3] * 3 if kind == "uniform" else [3 / 6, 2 / 6, 1 / 6]
    assert shares[5:] == pytest.approx(expected, abs=0.04)


def test_the_half_life_of_a_made_curve():
    at = np.arange(1, 6)
    assert half_life(2.0 ** -(at - 1), at) == pytest.approx(2)
    assert half_life(np.array([4, 3, 1, 3, 0]), at) == pytest.approx(2.5)
    assert half_life(np.array([4.0, -4, 1, 3, 0]), at) == pytest.approx(1.25)
    assert half_life(np.array([4, 3, 3, 3, 2.1]), at) == np.inf
    assert half_life(np.array([4.0, 3, 1]), np.array([1, 2, 6])) == pytest.approx(4)
    assert half_life(np.array([4.0]), np.array([1])) == np.inf
    for curve in ([0.0, 1, 1, 1, 1], [-1.0, -2, -3, -4, -5]):
        assert np.isnan(half_life(np.array(curve), at))
    assert np.isnan(half_life(np.array([4.0, 1]), np.array([2, 3])))
    assert np.isnan(half_life(np.zeros((3, 0)), np.zeros(0, int))).tolist() == [True] * 3
    both = half_life(np.array([[4, 3, 1, 3, 0], [4, 2, 1, 3, 0]]), at)
    assert both == pytest.approx([2.5, 2])


def test_the_increase_by_distance_counted_by_hand():
    mask = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]], bool)
    gold = np.array([[1, 1, 1, 1], [2, 2, 2, 9], [3, 9, 9, 9]], np.float32)
    corrupted = np.array([[1, 5, 2, 1], [2, 2, 4, 0], [7, 0, 0, 0]], np.float32)
    position = np.array([1, 2, 0])
    found = self_recovery(gold, corrupted, mask, position, Bootstrap(3, 50), min_count=1)
    increase = found["nll_increase_by_distance"]
    assert increase.value == pytest.approx([(4 + 2) / 2, 1, 0])
    assert increase.n.tolist() == [2, 1, 1]
    assert increase.axis == "distance"
    assert found["half_life"].value == pytest.approx(1.75)
    assert found["half_life"].n == 2
    found = self_recovery(gold, corrupted, mask, position, Bootstrap(3, 50), min_count=2)
    assert found["nll_increase_by_distance"].left_out == (2, 3)
    assert found["half_life"].value == np.inf
    found = self_recovery(gold, corrupted, mask, position, Bootstrap(3, 50), min_count=3)
    assert found["nll_increase_by_distance"].value.shape == (0,)
    assert np.isnan(found["half_life"].value)


def test_invalid_arguments_are_refused():
    inputs, position = jnp.ones((1, 2), int), jnp.ones(1, int)
    with pytest.raises(ValueError, match="kind is 'other'; it must be one of uniform, plausible"):
        corrupt("other", inputs, position, jnp.zeros((1, 2, 9)), jax.random.key(0))
    with pytest.raises(ValueError, match="a vocabulary of 5 ids has no other token"):
        corrupt("uniform", inputs, position, jnp.zeros((1, 2, 5)), jax.random.key(0))
