from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from s2s_jax.models.initial_values import InitialValues
from s2s_jax.models.rnn.recurrent import Cell, RecurrentLayer

TIME, BATCH, SIZE, HIDDEN = 5, 3, 4, 6
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 0]], bool).T  # [time, batch]


def scan_in_python(layer: RecurrentLayer, start, inputs, mask, reverse):
    """The recurrence as in its formula, differentiated by JAX through every step."""
    carry, outputs = start, {}
    for time in reversed(range(TIME)) if reverse else range(TIME):
        new, _ = layer.step(carry, layer.project(inputs[time]))
        if mask is not None:
            keep = mask[time][:, None]
            new = tuple(jnp.where(keep, one, other) for one, other in zip(new, carry, strict=True))
        carry, outputs[time] = new, new[0]
    return carry, jnp.stack([outputs[time] for time in range(TIME)])


@pytest.mark.parametrize(
    ("cell", "mask", "reverse"),
    [("lstm", None, False), ("gru", None, False), ("lstm", MASK, True), ("gru", MASK, True)],
)
def test_the_gradient_is_that_of_every_step(cell: Cell, mask, reverse):
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    layer = RecurrentLayer(cell, SIZE, HIDDEN, InitialValues())
    graph, state = nnx.split(layer)
    params = jax.tree.map(lambda leaf: normal(*leaf.shape), nnx.to_pure_dict(state))
    start = tuple(normal(BATCH, HIDDEN) for _ in range(2 if cell == "lstm" else 1))
    inputs = normal(TIME, BATCH, SIZE)
    weights = jax.tree.map(
        lambda leaf: normal(*leaf.shape),
        jax.eval_shape(lambda: (start, jnp.zeros((TIME, BATCH, HIDDEN)))),
    )

    def loss(unroll: Any, params: Any, start: Any, inputs: jax.Array) -> jax.Array:
        outputs = unroll(nnx.merge(graph, params), start, inputs)
        products = jax.tree.map(lambda a, b: (a * b).sum(), outputs, weights)
        return jnp.stack(jax.tree.leaves(products)).sum()

    def unroll(layer, start, inputs):
        return layer.unroll(start, layer.project(inputs), mask, reverse=reverse)

    def replay(layer, start, inputs):
        projected = layer.project(inputs)
        _, trace = layer.scan(start, projected)
        outputs = layer.replay(start, projected, trace)
        return (outputs[-1], *unroll(layer, start, inputs)[0][1:]), outputs

    def expected(layer, start, inputs):
        return scan_in_python(layer, start, inputs, mask, reverse)

    wanted, *found = (
        jax.jit(jax.value_and_grad(lambda *args, way=way: loss(way, *args), argnums=(0, 1, 2)))(
            params, start, inputs
        )
        for way in ((expected, unroll, replay) if mask is None else (expected, unroll))
    )
    for one in found:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, wanted
        )


@pytest.mark.parametrize(("cell", "most"), [("lstm", 12), ("gru", 10)])
def test_slopes_overwrite_the_projections_and_the_gradient_overwrites_the_slopes(cell: Cell, most):
    """Counted in arrays [time, batch, hidden_size]; without sharing it would be 19, or 16."""
    time, hidden_size = 256, 32
    layer = RecurrentLayer(cell, SIZE, hidden_size, InitialValues())
    graph, params = nnx.split(layer)

    def loss(params: Any, inputs: jax.Array) -> jax.Array:
        layer = nnx.merge(graph, params)
        start = layer.zero_carry(BATCH, jnp.dtype("float32"))
        return layer.unroll(start, layer.project(inputs))[1].sum()

    program = jax.jit(jax.grad(loss)).lower(params, jnp.ones((time, BATCH, SIZE))).compile()
    memory: Any = program.memory_analysis()
    assert memory.temp_size_in_bytes < most * 4 * time * BATCH * hidden_size


def test_second_derivatives_are_refused():
    layer = RecurrentLayer("lstm", SIZE, HIDDEN, InitialValues())
    start = layer.zero_carry(BATCH, jnp.dtype("float32"))

    def loss(inputs: jax.Array) -> jax.Array:
        return layer.unroll(start, layer.project(inputs))[1].sum()

    with pytest.raises(NotImplementedError, match="only first derivatives"):
        jax.grad(lambda inputs: (jax.grad(loss)(inputs) ** 2).sum())(jnp.ones((TIME, BATCH, SIZE)))
