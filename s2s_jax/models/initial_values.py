"""The random initial values of parameters, all taken from one draw.

Every call of JAX's generator takes half a second to compile, and a model has a dozen parameters.
"""

import math

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap


class InitialValues:
    """Hands out consecutive parts of one draw, in the order of the calls.

    Args:
      draw: [size] independent uniform numbers in (-1, 1), from `uniform_draw`; with None the
        numbers are only counted, and every value is 0.

    Attributes:
      size: how many numbers have been handed out.

    Example:
      >>> counting = InitialValues()
      >>> counting.glorot_uniform(4, 3).shape, counting.size
      ((4, 3), 12)
      >>> values = InitialValues(uniform_draw(jax.random.key(0), counting.size))
      >>> bool(jnp.any(values.glorot_uniform(4, 3) > 0))
      True
    """

    def __init__(self, draw: jax.Array | None = None):
        self.size = 0
        self._draw = draw

    def uniform(self, *shape: int) -> jax.Array:
        """Uniform in (-1, 1)."""
        start, self.size = self.size, self.size + math.prod(shape)
        if self._draw is None:
            return jnp.zeros(shape)
        return self._draw[start : self.size].reshape(shape)

    def normal(self, *shape: int) -> jax.Array:
        """Normal with mean 0 and variance 1."""
        return math.sqrt(2) * jax.lax.erf_inv(self.uniform(*shape))

    def glorot_uniform(self, *shape: int) -> jax.Array:
        """Matrices [..., fan_in, fan_out], uniform within sqrt(6 / (fan_in + fan_out)).

        Glorot & Bengio 2010, section 4.2.1.
        """
        return math.sqrt(6 / sum(shape[-2:])) * self.uniform(*shape)

    def orthogonal(self, count: int, size: int) -> jax.Array:
        """[count, size, size] orthogonal matrices (Saxe et al. 2014, arXiv:1312.6120)."""
        return jax.vmap(_orthogonalize)(self.normal(count, size, size))


def uniform_draw(key: jax.Array, size: int) -> jax.Array:
    """[size] numbers, uniform in (-1, 1)."""
    lowest = jnp.nextafter(jnp.float32(-1), jnp.float32(0))  # -1 itself has no finite quantile
    return jax.random.uniform(key, (size,), jnp.float32, lowest, 1.0)


# One matrix after another: jaxlib's batched QR shares its threads with the program, and two at
# once deadlock (0.10.2, 2 cores).
@sequential_vmap
def _orthogonalize(matrix: jax.Array) -> jax.Array:
    """The orthogonal factor of a square matrix, uniform over rotations and reflections."""
    factor, triangle = jnp.linalg.qr(matrix)
    return factor * jnp.sign(jnp.diagonal(triangle))
