"""Converts pytrees to arrays by name, as checkpoints store them, and back."""

import zlib
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

State = TypeVar("State")


def flatten(state: Any, path: str = "") -> dict[str, np.ndarray]:
    """Path ("params.encoder.kernel") -> leaf; typed keys become their data, shapes become zeros.

    Args:
      state: a pytree of arrays.
      path: its place in a larger state; "" if it is the whole state.

    Raises:
      ValueError: two leaves have the same path.
    """
    arrays = {}
    for inner, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            is_key = isinstance(leaf, jax.Array)
            leaf = (
                jax.random.key_data(leaf) if is_key else jax.eval_shape(jax.random.key_data, leaf)
            )
        name = jax.tree_util.keystr(inner, simple=True, separator=".")
        name = ".".join(filter(None, (path, name)))  # a single array has no path of its own
        if name in arrays:
            raise ValueError(f"two leaves of the state have the path {name}")
        is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
        arrays[name] = np.zeros(leaf.shape, leaf.dtype) if is_shape else np.asarray(leaf)
    return arrays


def unflatten(template: State, arrays: dict[str, np.ndarray]) -> State:
    """The inverse: a pytree like the template whose leaves are the arrays, in the same order."""
    leaves, structure = jax.tree.flatten(template)
    restored = []
    for leaf, array in zip(leaves, arrays.values(), strict=True):
        value = jnp.asarray(array)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            value = jax.random.wrap_key_data(value, impl=_key_impl(leaf))
        if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1:
            value = jax.device_put(value, leaf.sharding)
        restored.append(value)
    return jax.tree.unflatten(structure, restored)


def _key_impl(key: Any) -> Any:
    """The random generator of a key, which may be only a shape."""
    found = []
    jax.eval_shape(lambda traced: found.append(jax.random.key_impl(traced)), key)
    return found[0]


def checksum(arrays: dict[str, np.ndarray]) -> int:
    """The CRC-32 of all arrays, sorted by name."""
    total = 0
    for _, array in sorted(arrays.items()):
        total = zlib.crc32(array.tobytes(), total)
    return total
