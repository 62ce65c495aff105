"""linear has the gradient of the product, computed in the promised order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.models.linear import add_bias, compute_logits, inputs_gradient, linear

KERNEL = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (5, 2, 3)])
def test_value_and_gradients_are_those_of_the_product(shape):
    inputs = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)
    found, wanted = (
        jax.value_and_grad(lambda *args, f=f: (f(*args) ** 2).sum(), argnums=(0, 1))(inputs, KERNEL)
        for f in (linear, jnp.matmul)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, wanted)


def test_the_gradient_transposes_neither_the_larger_matrix_nor_the_result():
    """The product is of [steps, inputs] and [steps, outputs], in this order and in memory order."""
    gradient = jax.grad(lambda kernel: linear(jnp.ones((5, 2, 3)), kernel).sum())
    steps = jax.make_jaxpr(gradient)(KERNEL).jaxpr.eqns
    of_weights = {
        step.primitive.name: step for step in steps if step.outvars[0].aval.shape == (3, 4)
    }
    assert set(of_weights) == {"dot_general"}
    assert of_weights["dot_general"].params["dimension_numbers"] == (((0,), (0,)), ((), ()))


def test_the_inputs_gradient_is_that_of_the_product():
    d_outputs = jnp.asarray(np.random.default_rng(2).normal(size=(2, 5, 4)), jnp.float32)
    found = jax.jit(inputs_gradient)(d_outputs[0], KERNEL)
    np.testing.assert_allclose(found, d_outputs[0] @ KERNEL.T, rtol=1e-5)
    of_lanes = jax.vmap(lambda rows: inputs_gradient(rows, KERNEL))(d_outputs)
    np.testing.assert_allclose(of_lanes, d_outputs @ KERNEL.T, rtol=1e-5)


def test_a_biass_gradient_is_summed_in_float32():
    inputs = jnp.ones((3, 333, 2), jnp.bfloat16)
    outputs, pull_back = jax.vjp(add_bias, inputs, jnp.full(2, 0.5))
    assert outputs.dtype == jnp.bfloat16
    assert outputs[0, 0].tolist() == [1.5, 1.5]
    d_inputs, d_bias = pull_back(inputs)
    assert d_inputs.dtype == jnp.bfloat16
    assert d_bias.tolist() == [999.0, 999.0]  # bfloat16 has 1000


def test_logits_of_bfloat16_are_not_rounded_to_it():
    features, kernel = (jnp.ones(shape, jnp.bfloat16) for shape in ((1, 257), (257, 2)))
    logits = compute_logits(features, kernel, jnp.zeros(2))
    assert logits.dtype == jnp.float32
    assert logits.tolist() == [[257.0, 257.0]]  # bfloat16 has 256
