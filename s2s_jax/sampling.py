"""From logits to a token: the argmax, or a sample with a temperature and a top-k."""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from s2s_jax.names import check_known

TokenChooser = Callable[[jax.Array, jax.Array], jax.Array]
"""(logits [..., vocab_size], noise [..., 2] of `draw_noise`) -> tokens [...] int32."""

FEEDS = ("sample", "argmax")
"""The ways to choose a token; `make_token_chooser` refuses any other."""


def choose_argmax(logits: jax.Array) -> jax.Array:
    """The token with the highest logit; among equal logits the lowest id.

    Args:
      logits: [..., vocab_size], any float dtype.

    Returns:
      [...] int32 ids.

    Example:
      >>> choose_argmax(jnp.array([[0.0, 2.0, 1.0], [3.0, 3.0, 1.0]])).tolist()
      [1, 0]
    """
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def make_token_chooser(
    feed: Literal["sample", "argmax"] | str, temperature: float = 1.0, top_k: int = 0
) -> TokenChooser:
    """Makes the function that chooses a token from logits.

        argmax:  argmax_v o_v
        sample:  v ~ softmax(o / temperature), over only the top_k highest o

    Args:
      feed: "sample" or "argmax".
      temperature: in [1e-6, 1e6]; below 1 sharpens, above 1 flattens. It divides only the logits:
        in argmax((o + Gumbel) / temperature) it would have no effect at all.
      top_k: how many of the highest logits can be drawn, exactly this number (among equal logits
        the lower ids first); 0 for all of them.

    Returns:
      (logits [..., vocab_size], noise [..., 2]) -> tokens [...] int32. It samples in float32
      whatever the logits' dtype; a token whose logit is -inf is never drawn. "argmax" ignores the
      noise.

    Raises:
      ValueError: the feed is unknown, a value is out of range, or a temperature or top_k is
        combined with "argmax"; from the returned function, top_k is above the vocabulary's size.

    Example:
      >>> choose = make_token_chooser("sample", temperature=0.5, top_k=1)
      >>> choose(jnp.array([[0.0, 2.0, 1.0]]), draw_noise(jax.random.key(0), (1,))).tolist()
      [1]
    """
    check_known("feed", feed, FEEDS)
    if not 1e-6 <= temperature <= 1e6:
        raise ValueError(f"temperature is {temperature}; it must be in [1e-6, 1e6]")
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 0:
        raise ValueError(f"top_k is {top_k!r}; it must be an integer >= 0 (0 for all tokens)")
    if feed == "argmax":
        if temperature != 1:
            raise ValueError(f"temperature is {temperature}; feed 'argmax' has none: it must be 1")
        if top_k != 0:
            raise ValueError(f"top_k is {top_k}; feed 'argmax' has none: it must be 0")
        return lambda logits, noise: choose_argmax(logits)

    def choose(logits: jax.Array, noise: jax.Array) -> jax.Array:
        vocab_size = logits.shape[-1]
        if top_k > vocab_size:
            raise ValueError(f"top_k is {top_k}, and the vocabulary has {vocab_size} tokens")
        if top_k in (0, vocab_size):
            return _draw(logits, noise, temperature)
        highest, ids = jax.lax.top_k(logits, top_k)
        drawn = _draw(highest, noise, temperature)
        return jnp.take_along_axis(ids, drawn[..., None], axis=-1)[..., 0].astype(jnp.int32)

    return choose


def highest_ids(values: jax.Array, count: int) -> jax.Array:
    """The ids of the highest values, highest first; among equal values the lower id is first.

    The same as `jax.lax.top_k`, whose partial sort is slow on a CPU. In a large vocabulary only the
    `count` blocks of about sqrt(V) ids with the highest maxima are sorted: no other block can have
    one of the highest values.

    Args:
      values: [..., vocab_size], no NaN.
      count: how many ids, at most vocab_size.

    Returns:
      [..., count] int32 ids.

    Example:
      >>> highest_ids(jnp.array([1.0, 3.0, 2.0, 3.0]), 3).tolist()
      [1, 3, 2]
    """
    vocab_size = values.shape[-1]
    block_size = _block_size(vocab_size)
    num_blocks = -(-vocab_size // block_size)
    if num_blocks < 2 * count:
        return jax.lax.top_k(values, count)[1].astype(jnp.int32)
    padding = [(0, 0)] * (values.ndim - 1) + [(0, num_blocks * block_size - vocab_size)]
    padded = jnp.pad(values, padding, constant_values=-jnp.inf)
    blocks = padded.reshape(*values.shape[:-1], num_blocks, block_size)
    chosen = jnp.sort(jax.lax.top_k(blocks.max(-1), count)[1], axis=-1)  # ids in order, for ties
    kept = jnp.take_along_axis(blocks, chosen[..., None], axis=-2)
    places = jax.lax.top_k(kept.reshape(*values.shape[:-1], -1), count)[1]
    block = jnp.take_along_axis(chosen, places // block_size, axis=-1)
    return (block * block_size + places % block_size).astype(jnp.int32)


def draw_noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The uniform numbers that choose a token at each place of `shape`: [*shape, 2] in [0, 1).

    Rows are the leading axis, so the numbers of a row do not depend on how many rows there are.
    """
    return jax.random.uniform(key, (*shape, 2))


def _draw(logits: jax.Array, noise: jax.Array, temperature: float) -> jax.Array:
    """Samples from softmax(logits / temperature): first a block of about sqrt(V) tokens, then one.

    It takes one uniform number per level, while `jax.random.categorical` makes Gumbel noise for
    every token (on two CPU cores that takes about 10 times as long at [128, 42] and 20 times at
    [64, 8000], where this costs as much as an argmax). A new number inside the block resolves
    smaller probabilities than the remainder of the first one would.
    """
    logits = logits.astype(jnp.float32)
    vocab_size = logits.shape[-1]
    block_size = _block_size(vocab_size)
    num_blocks = -(-vocab_size // block_size)
    weights = jnp.exp((logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature)
    padding = [(0, 0)] * (logits.ndim - 1) + [(0, num_blocks * block_size - vocab_size)]
    blocks = jnp.pad(weights, padding).reshape(*logits.shape[:-1], num_blocks, block_size)
    block = _invert_cdf(jnp.sum(blocks, axis=-1), noise[..., 0])
    within = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    return block * block_size + _invert_cdf(within, noise[..., 1])


def _block_size(vocab_size: int) -> int:
    """About sqrt(V); a divisor of V if one is close, so that no padding, and no copy, is needed."""
    root = math.isqrt(vocab_size)
    divisors = (size for size in range(root, root // 2, -1) if vocab_size % size == 0)
    return next(divisors, root)


def _invert_cdf(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """The first index [...] whose cumulative weight exceeds uniform * total; its weight is not 0.

    Because of rounding there may be no such index, or a parallel sum may fall by an ulp over a
    weight of 0. Then the last index with a weight above 0 is taken, and weights of 0 are skipped.
    """
    index = jnp.arange(weights.shape[-1], dtype=jnp.int32)
    cumulated = jnp.cumsum(weights, axis=-1)
    exceeds = cumulated > uniform[..., None] * cumulated[..., -1:]
    preference = jnp.where(exceeds, 2 * weights.shape[-1] - index, index)
    return jnp.argmax(jnp.where(weights > 0, preference, -1), axis=-1).astype(jnp.int32)
