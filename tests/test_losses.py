import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import UNK
from s2s_jax.losses import cross_entropy, token_losses

LOGITS = np.random.default_rng(0).normal(size=(3, 4, 7)).astype(np.float32) * 2
TARGET = jnp.asarray(np.random.default_rng(1).integers(7, size=(3, 4)), jnp.int32)
MASK = jnp.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_uniform_logits_cost_the_log_of_the_vocabulary_however_much_is_padding():
    target = jnp.array([[7, 3, 2, 0, 0, 0], [2, 0, 0, 0, 0, 0]])
    loss = cross_entropy(jnp.zeros((2, 6, 15)), target, target != 0)
    assert float(loss.weight) == 4
    assert float(loss.total / loss.weight) == pytest.approx(np.log(15), abs=1e-6)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.9])
def test_the_loss_is_the_formula_summed_over_the_mask(label_smoothing):
    loss = cross_entropy(jnp.asarray(LOGITS), TARGET, MASK, label_smoothing)
    expected = 0.0
    for row, time in np.argwhere(np.asarray(MASK)):
        log_probs = log_softmax(LOGITS[row, time])
        expected -= (1 - label_smoothing) * log_probs[TARGET[row, time]]
        expected -= label_smoothing * sum(log_probs) / 7
    assert float(loss.total) == pytest.approx(expected, abs=1e-4)
    assert float(loss.weight) == 6


def test_label_smoothing_computed_by_hand():
    # p = (1/2, 1/4, 1/4), target 0, a = 0.3: 0.7 log 2 + 0.3 (log 2 + 2 log 4) / 3 = 1.2 log 2
    logits = jnp.log(jnp.array([[[2.0, 1.0, 1.0]]]))
    loss = cross_entropy(logits, jnp.array([[0]]), jnp.array([[True]]), 0.3)
    assert float(loss.total) == pytest.approx(1.2 * np.log(2), abs=1e-6)


def test_the_gradient_is_softmax_minus_target_inside_the_mask_and_zero_outside():
    gradient = jax.grad(lambda logits: cross_entropy(logits, TARGET, MASK).total)(LOGITS)
    expected = (np.exp(log_softmax(LOGITS)) - np.eye(7)[TARGET]) * MASK[..., None]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_half_precision_logits_are_normalised_in_float32():
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    loss = cross_entropy(logits, TARGET, MASK)
    assert jnp.result_type(loss.total) == jnp.float32
    expected = cross_entropy(logits.astype(jnp.float32), TARGET, MASK)
    assert float(loss.total) == float(expected.total)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_a_target_outside_the_vocabulary_is_nan_inside_the_mask_and_ignored_outside(
    label_smoothing,
):
    def total(logits: jax.Array, target: jax.Array) -> jax.Array:
        return jnp.asarray(cross_entropy(logits, target, MASK, label_smoothing).total)

    grad = jax.jit(jax.value_and_grad(total))
    loss, gradient = grad(LOGITS, TARGET)
    for wrong in (-1, -7, -100, 7):
        assert np.isnan(grad(LOGITS, TARGET.at[1, 1].set(wrong))[0])
        outside, of_outside = grad(LOGITS, TARGET.at[1, 2].set(wrong))
        assert float(outside) == float(loss)
        np.testing.assert_array_equal(of_outside, gradient)


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.0, 2.0, float("nan")])
def test_label_smoothing_out_of_range_is_refused(label_smoothing):
    with pytest.raises(ValueError, match=rf"label_smoothing is {label_smoothing}; it must be in"):
        cross_entropy(jnp.asarray(LOGITS), TARGET, MASK, label_smoothing)


def test_an_unknown_token_is_trained_on_but_never_right():
    logits = 9 * jnp.eye(7)[None, jnp.array([4, UNK])]
    found = token_losses(logits, jnp.array([[4, UNK]]), jnp.ones((1, 2), bool))
    assert (float(found.accuracy.total), float(found.accuracy.weight)) == (1.0, 2.0)
    assert float(found.loss.weight) == 2.0
