"""The projection of embeddings by the layer that reads them."""

import jax
import jax.numpy as jnp

from s2s_jax.models.embedding import look_up
from s2s_jax.models.rnn.dropout import drop
from s2s_jax.models.rnn.recurrent import RecurrentLayer


def project_tokens(
    layer: RecurrentLayer,
    table: jax.Array,
    ids: jax.Array,
    mask: jax.Array | None,
    dtype: jnp.dtype,
) -> jax.Array:
    """The layer's projection of the embeddings of ids [..., batch].

        (E[ids] * mask) W + b;   without a mask (E W + b)[ids], if E has at most as many rows as ids

    With characters or phonemes, a batch has many times more tokens than the vocabulary has entries.
    Then the product of the whole table, and its two gradients, cost next to nothing.

    Args:
      layer: a layer whose inputs begin with an embedding.
      table: [vocab_size, embedding_size] float32.
      ids: [..., batch].
      mask: [batch, embedding_size] dropout mask, or None.
      dtype: of the computation.
    """
    rows = slice(table.shape[1])
    if mask is None and table.shape[0] <= ids.size:
        projected = layer.project(table.astype(dtype), rows)
        return look_up(projected.astype(jnp.float32), ids, dtype)
    return layer.project(drop(look_up(table, ids, dtype), mask), rows)
