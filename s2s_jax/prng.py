"""Named streams of PRNG keys: a key depends on who draws, not on how much was drawn before."""

import zlib

import jax
import jax.numpy as jnp

from s2s_jax.names import check_known

STREAMS = ("init", "dropout", "coins", "samples", "targets")
"""The names of the streams; `stream_key` refuses any other."""


def stream_key(key: jax.Array, name: str) -> jax.Array:
    """The key of one named stream.

        stream_key(key, name) = fold_in(key, crc32(name))

    A train step folds its number into the run's key and derives its streams from the result. No key
    is ever consumed, so a resumed run draws the same at each step as a run that was never stopped,
    and a method that draws more from one stream does not affect the others: with the same seed, a
    teacher-forced and a sampled run see the same initial weights and dropout. The hash is crc32,
    because Python's own changes with every process.

    Args:
      key: a scalar typed key, as `jax.random.key` makes it.
      name: one of `STREAMS`.

    Returns:
      A scalar typed key.

    Raises:
      ValueError: the stream's name is unknown.

    Example:
      >>> key = jax.random.key(0)
      >>> bool(stream_key(key, "coins") == stream_key(key, "coins"))
      True
      >>> bool(stream_key(key, "coins") == stream_key(key, "samples"))
      False
    """
    check_known("key stream", name, STREAMS)
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def per_step_keys(key: jax.Array, num_steps: int) -> jax.Array:
    """One key for each target step, to be scanned over.

        keys_t = fold_in(key, t),   t = 0 ... num_steps - 1

    If the body of `lax.scan` closed over one key, every step would use the same key, and one toss
    would decide the whole sequence. Keys that enter as scanned inputs differ. Entry t does not
    depend on `num_steps`, so padding a sequence does not change the draws of its first steps.

    Args:
      key: a scalar typed key.
      num_steps: length of the target, static.

    Returns:
      [num_steps] typed keys.

    Example:
      >>> keys = per_step_keys(jax.random.key(0), 4)
      >>> _, coins = jax.lax.scan(lambda _, key: (None, jax.random.uniform(key)), None, keys)
      >>> len(set(coins.tolist()))
      4
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(num_steps))
