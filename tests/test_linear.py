"""linear has the gradient of the product, and makes it in the order that it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.models.linear import linear

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
    """The product is of [steps, inputs] and [steps, outputs], in this order and in memory's."""
    gradient = jax.grad(lambda kernel: linear(jnp.ones((5, 2, 3)), kernel).sum())
    steps = jax.make_jaxpr(gradient)(KERNEL).jaxpr.eqns
    of_weights = {
        step.primitive.name: step for step in steps if step.outvars[0].aval.shape == (3, 4)
    }
    assert set(of_weights) == {"dot_general"}
    assert of_weights["dot_general"].params["dimension_numbers"] == (((0,), (0,)), ((), ()))
