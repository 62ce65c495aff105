"""Named streams of PRNG keys: who draws decides the key, not how much was drawn before."""

import zlib

import jax
import jax.numpy as jnp

from s2s_jax.names import did_you_mean

STREAMS = ("init", "dropout", "coins", "samples")
"""The streams that there are; `stream_key` refuses any other."""


def stream_key(key: jax.Array, name: str) -> jax.Array:
    """The key of one named stream.

        stream_key(key, name) = fold_in(key, crc32(name))

    A train step folds its number into the run's key and takes its streams of that. No key is ever
    consumed, so a run that resumes at a step draws what the run that was never stopped draws there,
    and a method that draws more from one stream leaves the others as
    they are: with one seed, a teacher-forced and a sampled run see the same initial weights and
    dropout. The hash is crc32, since Python's own changes with every process.

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
    if name not in STREAMS:
        raise ValueError(f"key stream is {name!r}; {did_you_mean(name, STREAMS)}")
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def per_step_keys(key: jax.Array, num_steps: int) -> jax.Array:
    """One key for each target step, to be scanned over.

        keys_t = fold_in(key, t),   t = 0 ... num_steps - 1

    A key that `lax.scan`'s body closes over is the same key in every step, and freezes the coin:
    one toss decides the whole sequence. Keys that come in as scanned inputs differ. Entry t does
    not depend on `num_steps`, so padding a sequence changes no draw of its first steps.

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
