"""Embeddings: rows of a table."""

import jax
import jax.numpy as jnp


def look_up(table: jax.Array, ids: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Rows of a float32 table, cast to another dtype; NaN for ids that it does not have.

    The cast comes after the lookup, so that the gradient of a row that occurs often is summed in
    float32.

    Example:
      >>> look_up(jnp.ones((3, 2)), jnp.array([2, 3, -1]), jnp.dtype("float32")).tolist()
      [[1.0, 1.0], [nan, nan], [nan, nan]]
    """
    rows = jnp.asarray(table).at[ids]
    found = rows.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    return found.astype(dtype)
