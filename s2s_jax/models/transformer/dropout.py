"""Dropout whose masks depend on a sequence's key and a position, and on nothing else.

So every pass over a sequence drops the same, a cached step what the whole pass drops there, and a
longer padding changes nothing. Only the keys are stored; the masks are drawn where they are used.
"""

import math

import jax
import jax.numpy as jnp

_LEVELS = 256  # a mask's element is decided by one random byte


def sequence_keys(key: jax.Array, batch_size: int) -> jax.Array:
    """One typed key a sequence: [batch]."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(batch_size))


def draw_masks(keys: jax.Array, positions: jax.Array, size: int, rate: float) -> jax.Array:
    """Draws which of `size` features are kept at each position: [batch, time, size] bool.

    Each is kept with probability `kept_share(rate)`, independently of all others. Four of them take
    one call of the generator.

    Args:
      keys: [batch] typed keys.
      positions: [time] integers; the masks of a position do not depend on the others.
      size: how many features.
      rate: in [0, 1).
    """

    def bits(key: jax.Array, position: jax.Array) -> jax.Array:
        words = jax.random.bits(jax.random.fold_in(key, position), (-(-size // 4),), jnp.uint32)
        return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:size]

    drawn = jax.vmap(jax.vmap(bits, in_axes=(None, 0)), in_axes=(0, None))(keys, positions)
    return drawn <= round(kept_share(rate) * _LEVELS) - 1  # the highest byte, 255, may be kept


def kept_share(rate: float) -> float:
    """The share of features that dropout keeps: 1 - rate, rounded to a 256th, at least one.

    Example:
      >>> kept_share(0.3)
      0.69921875
    """
    return max(1, math.floor((1 - rate) * _LEVELS + 0.5)) / _LEVELS


def drop(inputs: jax.Array, mask: jax.Array | None, rate: float) -> jax.Array:
    """Inverted dropout: inputs / kept_share(rate) where the mask is True, else 0."""
    return inputs if mask is None else jnp.where(mask, inputs * (1 / kept_share(rate)), 0)
