"""Branches that `jax.vmap` may replace: which one is taken, and its derivative."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from s2s_jax.branches import vmapped_as


@pytest.fixture
def choose() -> Any:
    """(x, deciding) -> x + 1 with the branch, x + 2 with the replacement."""

    @partial(vmapped_as, lambda x, deciding: x + 2, 1)
    def choose(x: jax.Array, deciding: jax.Array) -> jax.Array:
        return x + 1

    return choose


X, PROBS = jnp.array([0.0, 0.5]), jnp.array([0.2, 1.0])


def test_the_replacement_is_used_if_the_condition_differs_between_lanes(choose):
    assert choose(X, PROBS[0]).tolist() == [1, 1.5]
    assert jax.vmap(choose, (0, None))(X, PROBS[0]).tolist() == [1, 1.5]
    assert jax.vmap(choose)(X, PROBS).tolist() == [2, 2.5]
    assert jax.jit(jax.vmap(choose, (None, 0)))(X[0], PROBS).tolist() == [2, 2]


@pytest.mark.parametrize("in_axes", [(0, None), (None, 0), (0, 0)])
def test_the_derivative_is_0_and_does_not_change_the_branch(choose, in_axes):
    """So the fed tokens may depend on parameters, through a schedule that is computed from them."""
    x, prob = X if in_axes[0] == 0 else X[0], PROBS if in_axes[1] == 0 else PROBS[0]
    for transformed in (lambda f: f, jax.jit):
        lanes = transformed(jax.vmap(jax.value_and_grad(choose, argnums=(0, 1)), in_axes))
        values, gradients = lanes(x, prob)
        assert values.tolist() == jax.vmap(choose, in_axes)(x, prob).tolist()
        assert [gradient.tolist() for gradient in gradients] == [[0, 0], [0, 0]]
