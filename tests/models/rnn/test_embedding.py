"""Embeddings are looked up; the vocabulary or the tokens are projected, whichever is smaller."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from s2s_jax.models.embedding import look_up
from s2s_jax.models.initial_values import InitialValues
from s2s_jax.models.rnn.embedding import project_tokens
from s2s_jax.models.rnn.recurrent import RecurrentLayer

VOCAB_SIZE, SIZE = 7, 4


def test_parameters_can_be_numpy_arrays():
    """As from `jax.device_get` or a file, outside of a compiled program."""
    layer = RecurrentLayer("lstm", SIZE, 3, InitialValues())
    table: Any = np.arange(VOCAB_SIZE * SIZE, dtype=np.float32).reshape(VOCAB_SIZE, SIZE)
    ids: Any = np.array([[2, 6]])
    found = look_up(table, ids, jnp.dtype("float32"))
    np.testing.assert_array_equal(found, table[ids])
    many: Any = np.tile(ids, (VOCAB_SIZE, 1))
    for some in (ids, many):  # as tokens, and as the vocabulary
        of_numpy, of_jax = (
            project_tokens(layer, one, some, None, jnp.dtype("float32"))
            for one in (table, jnp.asarray(table))
        )
        np.testing.assert_array_equal(of_numpy, of_jax)


@pytest.mark.parametrize("times", [1, 15])
def test_whichever_is_smaller_is_projected_tokens_or_vocabulary(times):
    """The result is the same, with the same gradients."""
    numbers = np.random.default_rng(0)
    graph, state = nnx.split(RecurrentLayer("lstm", SIZE, 3, InitialValues()))
    params, table = jax.tree.map(
        lambda leaf: jnp.asarray(numbers.normal(size=leaf.shape), jnp.float32),
        (nnx.to_pure_dict(state), jnp.zeros((VOCAB_SIZE, SIZE))),
    )
    ids = jnp.asarray(numbers.integers(0, VOCAB_SIZE, (times, 2)))

    def loss(params: Any, table: jax.Array, mask: jax.Array | None) -> jax.Array:
        layer = nnx.merge(graph, params)
        return (project_tokens(layer, table, ids, mask, jnp.dtype("float32")) ** 2).sum()

    nothing_dropped = jnp.ones((2, SIZE))
    found, wanted = (
        jax.value_and_grad(loss, argnums=(0, 1))(params, table, mask)
        for mask in (None, nothing_dropped)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, wanted)

    def projected(mask: jax.Array | None) -> list[str]:
        program = jax.jit(loss).lower(params, table, mask).as_text()
        return re.findall(r"dot_general.*-> tensor<(\w+)x12xf32>", program)

    assert projected(nothing_dropped) == [f"{times}x2"]
    assert projected(None) == ["1x2" if times == 1 else "7"]


def test_an_id_outside_a_projected_vocabulary_gives_nan():
    layer = RecurrentLayer("lstm", SIZE, 3, InitialValues())
    ids = jnp.array([[VOCAB_SIZE - 1, VOCAB_SIZE, -1]] * VOCAB_SIZE)
    table = jnp.ones((VOCAB_SIZE, SIZE))
    found = project_tokens(layer, table, ids, None, jnp.dtype("float32"))
    assert np.isfinite(found[:, 0]).all()
    assert np.isnan(found[:, 1:]).all()


def test_the_gradient_of_a_projected_vocabulary_is_summed_in_float32():
    layer = RecurrentLayer("lstm", SIZE, 3, InitialValues())
    graph, state = nnx.split(layer)
    ids = jnp.zeros((10, 400), jnp.int32)

    def loss(params: Any) -> jax.Array:
        found = project_tokens(
            nnx.merge(graph, params), jnp.ones((3, SIZE)), ids, None, jnp.dtype("bfloat16")
        )
        return found.astype(float).sum()

    gradient = jax.grad(loss)(nnx.to_pure_dict(state))
    assert gradient["input_kernel"].tolist() == [[4000.0] * 12] * SIZE
    assert gradient["bias"].tolist() == [4000.0] * 12
