from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax import output_layer
from s2s_jax.losses import TokenLosses, token_losses
from s2s_jax.output_layer import in_blocks, num_blocks, out_of_blocks, read_output, token_losses_of

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
        return token_losses_of(reading, features, kernel, bias, MASK)

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
        return jnp.asarray(token_losses_of(reading, features, KERNEL, BIAS, MASK).loss.total)

    with pytest.raises(NotImplementedError, match="only first derivatives"):
        jax.grad(lambda features: (jax.grad(loss)(features) ** 2).sum())(FEATURES)
