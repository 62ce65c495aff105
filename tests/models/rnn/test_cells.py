"""A step computes its formula, and the derivatives of it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.models.rnn.cells import NUM_GATES, Cell, advance, advance_gradient, of_recurrent

BATCH, HIDDEN = 3, 5


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(0, 2, shape), jnp.float32)


def step_in_words(cell: Cell, carry: Any, projected: jax.Array, recurrent: jax.Array, offset: Any):
    sigmoid = jax.nn.sigmoid
    if cell == "lstm":
        i, f, g, o = jnp.split(projected + recurrent, 4, axis=-1)
        memory = sigmoid(f) * carry[1] + sigmoid(i) * jnp.tanh(g)
        return sigmoid(o) * jnp.tanh(memory), memory
    p_r, p_z, p_n = jnp.split(projected, 3, axis=-1)
    q_r, q_z, q_n = jnp.split(recurrent, 3, axis=-1)
    new = jnp.tanh(p_n + sigmoid(p_r + q_r) * (q_n + offset))
    update = sigmoid(p_z + q_z)
    return ((1 - update) * new + update * carry[0],)


def inputs_of(cell: Cell) -> tuple[Any, jax.Array, jax.Array, Any]:
    carry = tuple(normal(seed, BATCH, HIDDEN) for seed in range(2 if cell == "lstm" else 1))
    width = NUM_GATES[cell] * HIDDEN
    offset = normal(4, HIDDEN) if cell == "gru" else None
    return carry, normal(2, BATCH, width), normal(3, BATCH, width), offset


@pytest.mark.parametrize("cell", NUM_GATES)
def test_a_step_equals_the_formula(cell: Cell):
    found, _ = advance(cell, *inputs_of(cell))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        found,
        step_in_words(cell, *inputs_of(cell)),
    )


@pytest.mark.parametrize("cell", NUM_GATES)
def test_the_gradient_equals_that_of_the_formula(cell: Cell):
    carry, projected, recurrent, offset = inputs_of(cell)

    def step(carry: Any, projected: jax.Array, recurrent: jax.Array):
        return step_in_words(cell, carry, projected, recurrent, offset)

    _, pull_back = jax.vjp(step, carry, projected, recurrent)
    new, slopes = advance(cell, carry, projected, recurrent, offset)
    d_new = tuple(normal(seed, BATCH, HIDDEN) for seed in range(5, 5 + len(new)))
    d_projected, d_carry = advance_gradient(cell, slopes, d_new)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        (d_carry, d_projected, of_recurrent(cell, slopes, d_projected)),
        pull_back(d_new),
    )


@pytest.mark.parametrize("cell", NUM_GATES)
def test_gates_that_saturate_in_bfloat16_still_have_a_slope(cell: Cell):
    """1 - y^2 of a y that was rounded to bfloat16 would be off by a third, or 0."""
    carry, projected, recurrent, offset = inputs_of(cell)
    carry, projected, recurrent, offset = jax.tree.map(
        lambda array: array.astype(jnp.bfloat16), (carry, 3 * projected, 3 * recurrent, offset)
    )
    new, slopes = advance(cell, carry, projected, recurrent, offset)
    _, wanted = advance(
        cell,
        *jax.tree.map(
            lambda array: array.astype(jnp.float32), (carry, projected, recurrent, offset)
        ),
    )
    assert {leaf.dtype for leaf in new} == {jnp.dtype("bfloat16")}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0.05, atol=1e-7), slopes, wanted
    )
