"""A batch of token-id pairs with static shapes, and the ids that every vocabulary reserves."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PAD, BOS, EOS, UNK = 0, 1, 2, 3
"""Ids of padding, the start symbol, the end symbol and the unknown symbol in every vocabulary."""

NUM_RESERVED = 4


class Batch(NamedTuple):
    """Pairs of sequences, padded to one shape; arrays may be numpy's or JAX's.

    Source and target both end in EOS, inside the mask. A filler row, which only fills up the batch,
    has an all-False target mask and is ignored. Positions outside the masks may hold any number,
    such as -100 or another library's padding id; inside the masks, an id that is not in the
    vocabulary makes the loss NaN.

    Attributes:
      source: [batch, source_time] int32 ids.
      source_mask: [batch, source_time] bool, True up to and including EOS.
      target: [batch, time] int32 ids y_1 ... y_n, EOS.
      target_mask: [batch, time] bool, True up to and including EOS.
    """

    source: jax.Array | np.ndarray
    source_mask: jax.Array | np.ndarray
    target: jax.Array | np.ndarray
    target_mask: jax.Array | np.ndarray


def to_jax(batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The batch's arrays as JAX arrays, with bool masks and PAD everywhere outside the masks.

    Example:
      >>> ids, mask = np.array([[7, EOS, -100]]), np.array([[1, 1, 0]])
      >>> to_jax(Batch(ids, mask, ids, mask))[0].tolist()
      [[7, 2, 0]]
    """
    source, source_mask, target, target_mask = batch
    return *_padded(source, source_mask), *_padded(target, target_mask)


def _padded(
    ids: jax.Array | np.ndarray, mask: jax.Array | np.ndarray
) -> tuple[jax.Array, jax.Array]:
    mask = jnp.asarray(mask, bool)
    return jnp.where(mask, jnp.asarray(ids), PAD), mask


def gold_inputs(target: jax.Array | np.ndarray) -> jax.Array:
    """The decoder's inputs under teacher forcing: BOS, then the target delayed by one step.

        input_1 = BOS,   input_t = y_{t-1}

    Args:
      target: [batch, time] int32 ids.

    Returns:
      [batch, time] int32 ids. The input at time t is the token of time t-1; feeding the token of
      time t would leak the label.

    Example:
      >>> gold_inputs(jnp.array([[7, 8, EOS]])).tolist()
      [[1, 7, 8]]
    """
    target = jnp.asarray(target)
    return jnp.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=BOS)
