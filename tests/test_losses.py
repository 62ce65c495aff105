import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import UNK
from s2s_jax.losses import (
    StepInputs,
    cross_entropy,
    distribution_loss,
    make_gold_rule,
    soft_cross_entropy,
    token_losses,
)

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


# Distributions as targets.

WANTED = np.random.default_rng(2).dirichlet(np.ones(7), (3, 4)).astype(np.float32)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_the_loss_towards_a_distribution_is_the_formula(label_smoothing):
    losses = distribution_loss(
        jnp.asarray(LOGITS), jnp.asarray(WANTED), jnp.float32(1), label_smoothing
    )
    log_probs = log_softmax(LOGITS.astype(np.float64))
    nll = -(WANTED * log_probs).sum(-1)
    expected = (1 - label_smoothing) * nll - label_smoothing * log_probs.mean(-1)
    np.testing.assert_allclose(losses.nll, nll, rtol=1e-5)
    np.testing.assert_allclose(losses.loss, expected, rtol=1e-5)


def test_the_gradient_towards_a_distribution_is_p_minus_w_and_w_has_none():
    scale = np.random.default_rng(3).normal(size=(3, 4)).astype(np.float32)

    def total(logits: jax.Array, wanted: jax.Array) -> jax.Array:
        return (scale * soft_cross_entropy(logits, wanted)).sum()

    of_logits, of_wanted = jax.grad(total, argnums=(0, 1))(jnp.asarray(LOGITS), jnp.asarray(WANTED))
    probs = np.exp(log_softmax(LOGITS.astype(np.float64)))
    np.testing.assert_allclose(of_logits, scale[..., None] * (probs - WANTED), atol=1e-6)
    assert not np.any(of_wanted)


def test_a_single_wanted_token_is_the_gold_one():
    wanted = jax.nn.one_hot(TARGET, 7)
    losses = distribution_loss(jnp.asarray(LOGITS), wanted, MASK.astype(jnp.float32))
    expected = -np.take_along_axis(log_softmax(LOGITS), np.asarray(TARGET)[..., None], -1)[..., 0]
    np.testing.assert_allclose(losses.loss, expected, atol=1e-6)
    gold = make_gold_rule()
    _, kept = gold.step(None, StepInputs(TARGET, TARGET, MASK))
    of_gold = gold.loss(jnp.asarray(LOGITS), kept)
    np.testing.assert_allclose(losses.loss, of_gold.loss, atol=1e-6)
    np.testing.assert_array_equal(losses.is_right, of_gold.is_right)
    np.testing.assert_array_equal(losses.weight, of_gold.weight)


def test_soft_targets_of_half_precision_logits_are_normalised_in_float32():
    logits, wanted = jnp.asarray(LOGITS, jnp.bfloat16), jnp.asarray(WANTED)
    loss, gradient = jax.value_and_grad(lambda some: soft_cross_entropy(some, wanted).sum())(logits)
    exact = jax.value_and_grad(lambda some: soft_cross_entropy(some, wanted).sum())(
        logits.astype(jnp.float32)
    )
    assert (loss.dtype, gradient.dtype) == (jnp.float32, jnp.bfloat16)
    assert float(loss) == float(exact[0])
    np.testing.assert_array_equal(gradient, exact[1].astype(jnp.bfloat16))


def test_any_of_the_most_wanted_tokens_is_right_but_not_an_unknown_one():
    wanted = jnp.array([[0, 0, 0, 0, 0.4, 0.4, 0.2]] * 3 + [[0, 0, 0, 0.5, 0.5, 0, 0]])
    said = 9 * jnp.eye(7)[jnp.array([4, 5, 6, UNK])]
    losses = distribution_loss(said, wanted, jnp.ones(4))
    assert losses.is_right.tolist() == [True, True, False, False]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_gold_rule_has_the_losses_of_the_gold_tokens(label_smoothing):
    rule = make_gold_rule(label_smoothing)
    wrong = TARGET.at[1, 3].set(-1).at[2, 0].set(99)  # outside the mask
    state, kept = rule.step("unchanged", StepInputs(TARGET, wrong, MASK))
    losses = rule.loss(jnp.asarray(LOGITS), kept)
    expected = token_losses(jnp.asarray(LOGITS), TARGET, MASK, label_smoothing)
    found = [jnp.where(losses.weight > 0, some, 0).sum() for some in losses[:3]]
    np.testing.assert_allclose(found, [float(mean.total) for mean in expected], rtol=1e-6)
    assert float(losses.weight.sum()) == float(expected.loss.weight)
    assert np.isnan(losses.loss[1, 3])
    assert np.isnan(losses.loss[2, 0])
    assert state == "unchanged"
    assert not rule.reads_fed
