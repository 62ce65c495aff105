import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax import losses
from s2s_jax.losses import cross_entropy, output_token_losses, token_losses

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


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.0, 2.0, float("nan")])
def test_label_smoothing_out_of_range_is_refused(label_smoothing):
    with pytest.raises(ValueError, match=rf"label_smoothing is {label_smoothing}; it must be in"):
        cross_entropy(jnp.asarray(LOGITS), TARGET, MASK, label_smoothing)


OUTPUT = np.random.default_rng(2)
FEATURES = jnp.asarray(OUTPUT.normal(size=(3, 4, 5)), jnp.float32)
KERNEL = jnp.asarray(OUTPUT.normal(size=(5, 7)), jnp.float32)
BIAS = jnp.asarray(OUTPUT.normal(size=7), jnp.float32)


@pytest.mark.parametrize("tokens_at_a_time", [100, 5])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_output_layers_losses_and_gradient_are_those_of_its_logits(
    monkeypatch, jit, tokens_at_a_time, label_smoothing
):
    monkeypatch.setattr(losses, "_CHUNK_ELEMENTS", tokens_at_a_time * 7)

    def of_output(features, kernel, bias):
        return output_token_losses(features, kernel, bias, TARGET, MASK, label_smoothing)

    def of_logits(features, kernel, bias):
        return token_losses(features @ kernel + bias, TARGET, MASK, label_smoothing)

    for arrays in ((FEATURES, KERNEL, BIAS), (FEATURES, 0 * KERNEL, 0 * BIAS)):  # the last: ties
        found, expected = (
            jit(
                jax.value_and_grad(
                    lambda *arrays, way=way: ((found := way(*arrays)).loss.total, found),
                    argnums=(0, 1, 2),
                    has_aux=True,
                )
            )(*arrays)
            for way in (of_output, of_logits)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, expected)
    without_gradient = jit(of_output)(FEATURES, KERNEL, BIAS)
    with_gradient = jit(of_logits)(FEATURES, KERNEL, BIAS)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), without_gradient, with_gradient
    )


def test_the_output_layer_refuses_a_smoothing_out_of_range():
    with pytest.raises(ValueError, match="label_smoothing is 1"):
        output_token_losses(FEATURES, KERNEL, BIAS, TARGET, MASK, 1.0)
