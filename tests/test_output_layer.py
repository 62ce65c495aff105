from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax import output_layer
from s2s_jax.losses import (
    StepInputs,
    TargetRule,
    TokenLoss,
    TokenLosses,
    distribution_loss,
    make_gold_rule,
    token_losses,
)
from s2s_jax.output_layer import (
    in_blocks,
    num_blocks,
    out_of_blocks,
    read_output,
    read_rule,
    sum_losses,
    token_losses_of,
)

NUMBERS = np.random.default_rng(2)
TARGET = jnp.asarray(NUMBERS.integers(7, size=(3, 4)), jnp.int32)
MASK = jnp.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
FEATURES = jnp.asarray(NUMBERS.normal(size=(3, 4, 5)), jnp.float32)
KERNEL = jnp.asarray(NUMBERS.normal(size=(5, 7)), jnp.float32)
BIAS = jnp.asarray(NUMBERS.normal(size=7), jnp.float32)


@pytest.mark.parametrize("steps_at_a_time", [100, 2, 1])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_output_layers_losses_and_gradient_are_those_of_its_logits(
    monkeypatch, steps_at_a_time, label_smoothing
):
    monkeypatch.setattr(output_layer, "_BLOCK_ELEMENTS", steps_at_a_time * 4 * 7)

    def of_output(features: Any, kernel: Any, bias: Any) -> TokenLosses:
        reading = read_output(features, kernel, bias, TARGET, MASK, label_smoothing)
        return token_losses_of(reading, features, kernel, bias)

    def of_logits(features: Any, kernel: Any, bias: Any) -> TokenLosses:
        return token_losses(features @ kernel + bias, TARGET, MASK, label_smoothing)

    for arrays in ((FEATURES, KERNEL, BIAS), (FEATURES, 0 * KERNEL, 0 * BIAS)):  # the last: ties
        found, expected = (
            jax.jit(
                jax.value_and_grad(
                    lambda *arrays, way=way: (3 * (found := way(*arrays)).loss.total, found),
                    argnums=(0, 1, 2),
                    has_aux=True,
                )
            )(*arrays)
            for way in (of_output, of_logits)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, expected)


def test_a_block_holds_as_many_steps_as_fit_and_at_least_one():
    assert num_blocks(24, 64, 8000) == 6
    assert num_blocks(24, 64, 500_000) == 24
    assert num_blocks(9, 128, 42) == 1
    steps = jnp.arange(1, 11).reshape(5, 2)
    blocks = in_blocks(steps, 2)
    assert blocks.shape == (2, 3, 2)
    assert not blocks[1, 2].any()
    np.testing.assert_array_equal(out_of_blocks(blocks, 5), steps)


def test_an_id_outside_the_vocabulary_does_not_give_a_small_loss():
    for wrong in (7, -1):
        sums = read_output(FEATURES, KERNEL, BIAS, TARGET.at[0, 0].set(wrong), MASK).sums
        assert np.isnan(sums.loss)
        padding = read_output(FEATURES, KERNEL, BIAS, TARGET.at[2, 0].set(wrong), MASK).sums
        np.testing.assert_array_equal(
            padding.loss, read_output(FEATURES, KERNEL, BIAS, TARGET, MASK).sums.loss
        )


def test_nothing_counts_as_right_if_the_logits_are_nan():
    assert read_output(FEATURES, KERNEL * jnp.nan, BIAS, TARGET, MASK).sums.num_correct == 0


def test_second_derivatives_are_refused():
    def loss(features: jax.Array) -> jax.Array:
        reading = read_output(features, KERNEL, BIAS, TARGET, MASK)
        return jnp.asarray(token_losses_of(reading, features, KERNEL, BIAS).loss.total)

    with pytest.raises(NotImplementedError, match="only first derivatives"):
        jax.grad(lambda features: (jax.grad(loss)(features) ** 2).sum())(FEATURES)


# Rules.

TOKENS = jnp.asarray(NUMBERS.integers(7, size=(3, 4)), jnp.int32).at[0, 0].set(6)
INPUTS = StepInputs(TOKENS, TARGET, MASK)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_gold_rule_reads_what_the_gold_targets_read(label_smoothing):
    rule = make_gold_rule(label_smoothing)
    found, expected = jax.jit(
        lambda: (
            read_rule(FEATURES, KERNEL, BIAS, rule, None, INPUTS),
            read_output(FEATURES, KERNEL, BIAS, TARGET, MASK, label_smoothing),
        )
    )()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, expected)


def running_rule() -> TargetRule:
    """Towards all tokens that were fed so far, as often as they were; counts twice after a 6."""

    def step(counts: jax.Array, inputs: StepInputs) -> Any:
        counts = counts + jax.nn.one_hot(inputs.token, 7)
        weight = jnp.where(inputs.mask, 1.0 + (inputs.token == 6), 0.0)
        return counts, (counts / counts.sum(-1, keepdims=True), weight)

    return TargetRule(
        lambda *_: None, step, lambda logits, wanted: distribution_loss(logits, *wanted)
    )


def test_a_rules_state_passes_from_block_to_block(monkeypatch):
    """The last block is padded, and what the rule makes of the padding has no effect."""
    rule, start = running_rule(), jnp.zeros((4, 7))
    counts = np.cumsum(np.eye(7)[TOKENS], axis=0)
    weight = np.asarray(MASK) * (1.0 + (np.asarray(TOKENS) == 6))
    assert weight.max() == 2
    logits = np.asarray(FEATURES @ KERNEL + BIAS, np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = counts / counts.sum(-1, keepdims=True)
    for steps_at_a_time in (100, 2, 1):
        monkeypatch.setattr(output_layer, "_BLOCK_ELEMENTS", steps_at_a_time * 4 * 7)
        reading = jax.jit(lambda: read_rule(FEATURES, KERNEL, BIAS, rule, start, INPUTS))()
        expected = -(weight[..., None] * wanted * log_probs).sum()
        assert float(reading.sums.loss) == pytest.approx(expected, rel=1e-5)
        assert float(reading.sums.nll) == float(reading.sums.loss)
        assert float(reading.sums.weight) == weight.sum()
        d_logits = weight[..., None] * (np.exp(log_probs) - wanted)
        np.testing.assert_allclose(reading.d_features, d_logits @ KERNEL.T, atol=1e-5)
        np.testing.assert_allclose(reading.d_weights.bias, d_logits.sum((0, 1)), atol=1e-5)
        d_kernel = np.einsum("tbf,tbv->fv", FEATURES, d_logits)
        np.testing.assert_allclose(reading.d_weights.kernel, d_kernel, atol=1e-5)


def test_what_has_no_weight_may_be_anything_and_a_weight_may_be_negative():
    losses = jnp.array([2.0, jnp.nan, 3.0, jnp.inf])
    sums = sum_losses(
        TokenLoss(
            losses, 2 * losses, jnp.array([True, True, False, True]), jnp.array([2, 0, -1, 0])
        )
    )
    assert [float(one) for one in sums] == [1.0, 2.0, 2.0, 1.0]
