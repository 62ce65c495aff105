"""Edit distances inside jit: one row of the table for each sequence, a step for each token.

D(t, j) = Levenshtein distance of x_1 ... x_t and y_1 ... y_j
"""

import jax
import jax.numpy as jnp

from s2s_jax.batch import EOS


def first_row(target: jax.Array) -> jax.Array:
    """D(0, j) = j for j = 0 ... time - 1: [batch, time] int32, for a target [batch, time]."""
    return jnp.broadcast_to(jnp.arange(target.shape[1]), target.shape)


def extend_row(row: jax.Array, target: jax.Array, token: jax.Array) -> jax.Array:
    """D(t, .) after one more token x_t.

        D(t, j) = min(D(t-1, j) + 1, D(t-1, j-1) + [x_t != y_j], D(t, j-1) + 1)

    Args:
      row: [batch, time], D(t-1, j) for j = 0 ... time - 1.
      target: [batch, time] int32 ids y_1 ... y_time.
      token: [batch] int32 ids x_t.

    Returns:
      [batch, time].

    Example:
      >>> target = jnp.array([[7, 8, 9]])
      >>> extend_row(first_row(target), target, jnp.array([8])).tolist()  # to nothing, 7, 7 8
      [[1, 1, 1]]
    """
    places = jnp.arange(target.shape[1])
    # Column j + 1 by deletion or substitution; the cumulative minimum is insertion.
    kept = row[:, :-1] + (target[:, :-1] != token[:, None])
    without = jnp.concatenate([row[:, :1] + 1, jnp.minimum(row[:, 1:] + 1, kept)], axis=1)
    return jax.lax.cummin(without - places, axis=1) + places


def optimal_places(row: jax.Array, mask: jax.Array) -> jax.Array:
    """Marks the target positions that hold an optimal next token.

        A*(x_1 ... x_t) = {y_{j+1}: D(t, j) = min_k D(t, k)},   y_{|y|+1} = EOS

    Exactly these tokens can lead to the smallest possible final edit distance, min_k D(t, k).
    Sabour et al. (2019), "Optimal Completion Distillation", arXiv:1810.01398, section 3.

    Args:
      row: [..., batch, time], D(t, j).
      mask: [batch, time] bool, up to and including EOS.

    Returns:
      [..., batch, time] bool: [..., j] says that target[:, j] is optimal.
    """
    beyond = jnp.where(mask, row, jnp.iinfo(row.dtype).max)
    return (beyond == beyond.min(-1, keepdims=True)) & mask


def edit_distance(
    said: jax.Array, said_mask: jax.Array, target: jax.Array, mask: jax.Array
) -> jax.Array:
    """The Levenshtein distance of hypotheses and targets, end symbols not counted.

    Args:
      said: [batch, length] int32 ids.
      said_mask: [batch, length] bool, the hypothesis' tokens; an EOS among them is ignored.
      target: [batch, time] int32 ids.
      mask: [batch, time] bool; an EOS in it is ignored.

    Returns:
      [batch] int32.

    Example:
      >>> said, target = jnp.array([[8, 5, 2]]), jnp.array([[7, 8, 9, 2]])
      >>> edit_distance(said, said > 0, target, target > 0).tolist()
      [2]
    """
    said_mask, mask = said_mask & (said != EOS), mask & (target != EOS)
    # One more column: D(t, j) for j = 0 ... time.
    padded = jnp.pad(target, ((0, 0), (0, 1)))

    def step(row: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        token, counts = inputs
        return jnp.where(counts[:, None], extend_row(row, padded, token), row), None

    row, _ = jax.lax.scan(step, first_row(padded), (said.T, said_mask.T))
    return jnp.take_along_axis(row, mask.sum(1)[:, None], axis=1)[:, 0]
