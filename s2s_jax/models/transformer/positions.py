"""How a Transformer knows positions: vectors added to the embeddings, or rotations of the heads."""

import jax
import jax.numpy as jnp

_LONGEST_WAVE = 10_000.0


def sinusoids(positions: jax.Array, size: int) -> jax.Array:
    """The vectors that are added to embeddings: [time, size] float32.

        P(t, i) = sin(t w_i),   P(t, size/2 + i) = cos(t w_i),   w_i = 10000**(-2 i / size)

    Vaswani et al. 2017, arXiv:1706.03762, section 3.5; here all sines come before the cosines.

    Args:
      positions: [time] integers, from 0.
      size: even.

    Example:
      >>> sinusoids(jnp.array([0]), 4).tolist()
      [[0.0, 0.0, 1.0, 1.0]]
    """
    angles = _angles(positions, size)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def rotate(heads: jax.Array, positions: jax.Array) -> jax.Array:
    """Rotates queries or keys, so that their product depends on the distance of positions alone.

        (a_i, b_i) -> (a_i cos t w_i - b_i sin t w_i, b_i cos t w_i + a_i sin t w_i)

    a is the first half of a head and b the second. Su et al. 2021, arXiv:2104.09864, section 3.2.

    Args:
      heads: [batch, num_heads, time, head_size].
      positions: [time] integers.

    Example:
      >>> rotate(jnp.ones((1, 1, 1, 2)), jnp.array([0])).tolist()
      [[[[1.0, 1.0]]]]
    """
    angles = _angles(positions, heads.shape[-1])
    sine, cosine = (f(angles).astype(heads.dtype) for f in (jnp.sin, jnp.cos))
    first, second = jnp.split(heads, 2, axis=-1)
    return jnp.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    )


def _angles(positions: jax.Array, size: int) -> jax.Array:
    """[time, size / 2] angles t w_i."""
    frequencies = _LONGEST_WAVE ** (-2 * jnp.arange(size // 2) / size)
    return positions[:, None].astype(jnp.float32) * frequencies
