"""Reward-augmented maximum likelihood: targets with as many errors as a reward allows."""

import math

import jax
import jax.numpy as jnp

from s2s_jax.batch import NUM_RESERVED
from s2s_jax.prng import per_step_keys, stream_key
from s2s_jax.sampling import draw_noise


def replacement_prob(vocab_size: int, tau: float) -> float:
    """The probability that RAML with the Hamming distance replaces a token.

        p = (V - 1) e^(-1/tau) / (1 + (V - 1) e^(-1/tau)),   V = ids that are not reserved

    A y' in proportion to exp(-Hamming(y', y) / tau) has errors that are independent for each token.
    Norouzi et al. (2016), arXiv:1609.00150.

    Raises:
      ValueError: tau is not above 0, or the vocabulary has fewer than two ids to choose from.

    Example:
      >>> round(replacement_prob(vocab_size=44, tau=0.2), 3)
      0.208
    """
    num_ids = vocab_size - NUM_RESERVED
    if not 0 < tau <= 1e6:
        raise ValueError(f"tau is {tau}; it must be in (0, 1e6]")
    if num_ids < 2:
        raise ValueError(
            f"target is 'raml'; the vocabulary has {max(num_ids, 0)} ids to choose from"
        )
    weight = (num_ids - 1) * math.exp(-1 / tau)
    return weight / (1 + weight)


def draw_targets(
    target: jax.Array, mask: jax.Array, key: jax.Array, vocab_size: int, tau: float
) -> jax.Array:
    """Draws y' from the exponentiated reward of the negative Hamming distance.

        P(y' | y) proportional to exp(-Hamming(y', y) / tau)

    Each token is replaced with `replacement_prob`, uniformly by one of the other ids that are not
    reserved. The end symbol, padding, unknown tokens and the start symbol stay.

    Args:
      target: [batch, time] int32 ids.
      mask: [batch, time] bool.
      key: one PRNG key; longer targets and more rows draw the same and then more.
      vocab_size: number of target ids.
      tau: the temperature; 0 is excluded, but any small one leaves every token.

    Returns:
      [batch, time] int32 ids.

    Example:
      >>> target = jnp.array([[7, 8, 2, 0]])
      >>> draw_targets(target, target > 0, jax.random.key(0), 12, tau=0.01).tolist()
      [[7, 8, 2, 0]]
    """
    num_ids, keys = vocab_size - NUM_RESERVED, per_step_keys(key, target.shape[1])
    noise = jax.vmap(lambda key: draw_noise(key, (len(target),)))(keys).swapaxes(0, 1)
    other = jnp.minimum((noise[..., 1] * (num_ids - 1)).astype(jnp.int32), num_ids - 2)
    other = NUM_RESERVED + other
    other += other >= target  # every id but the token's own
    replaced = noise[..., 0] < replacement_prob(vocab_size, tau)
    may_be = mask & (target >= NUM_RESERVED) & (target < vocab_size)
    return jnp.where(replaced & may_be, other, target).astype(target.dtype)


def targets_key(key: jax.Array) -> jax.Array:
    """The key of a train step from which its targets are drawn."""
    return stream_key(key, "targets")
