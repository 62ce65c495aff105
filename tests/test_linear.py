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


def test_the_larger_matrix_is_not_the_one_to_be_transposed():
    gradient = jax.grad(lambda kernel: linear(jnp.ones((9, 3)), kernel).sum())
    steps = jax.make_jaxpr(gradient)(KERNEL).jaxpr.eqns
    made = [(step.primitive.name, step.outvars[0].aval.shape) for step in steps]  # type: ignore[attr-defined]  # all are arrays
    assert ("dot_general", (3, 4)) in made
    assert ("transpose", (3, 4)) not in made
