import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.models.embedding import look_up


def test_the_gradient_of_an_embedding_that_is_often_looked_up_is_summed_in_float32():
    ids = jnp.zeros((10, 400), jnp.int32)
    gradient = jax.grad(lambda table: look_up(table, ids, jnp.bfloat16).astype(float).sum())
    assert gradient(jnp.ones((3, 2))).tolist() == [[4000.0, 4000.0], [0, 0], [0, 0]]


def test_an_id_outside_an_embedding_gives_nan():
    found = look_up(jnp.ones((3, 2)), jnp.array([2, 3, -1, -3, -100]), jnp.float32)
    assert found[0].tolist() == [1, 1]
    assert np.isnan(found[1:]).all()
