"""Reward-augmented maximum likelihood: targets with as many errors as a reward allows."""

import jax
import jax.numpy as jnp

from s2s_jax.batch import NUM_RESERVED
from s2s_jax.prng import per_step_keys, stream_key
from s2s_jax.sampling import draw_noise
from s2s_jax.theory.raml import replacement_prob


def check_raml(vocab_size: int, tau: float) -> None:
    """Raises a ValueError unless RAML can replace tokens of this vocabulary at this temperature."""
    if not 0 < tau <= 1e6:
        raise ValueError(f"tau is {tau}; it must be in (0, 1e6]")
    if vocab_size < NUM_RESERVED + 2:
        raise ValueError("target is 'raml'; the vocabulary has fewer than 2 ids to choose from")


def draw_targets(
    target: jax.Array, mask: jax.Array, key: jax.Array, vocab_size: int, tau: float
) -> jax.Array:
    """Draws y' from the exponentiated reward of the negative Hamming distance.

        P(y' | y) proportional to exp(-Hamming(y', y) / tau)

    So each token is replaced with the probability `s2s_jax.theory.raml.replacement_prob`, by one of
    the other V - 1 ids that are not reserved, each as likely as the other. The end symbol, padding
    and unknown tokens stay. Norouzi et al. (2016), arXiv:1609.00150.

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
    replaced = noise[..., 0] < replacement_prob(num_ids, tau)
    may_be = mask & (target >= NUM_RESERVED) & (target < vocab_size)
    return jnp.where(replaced & may_be, other, target).astype(target.dtype)


def targets_key(key: jax.Array) -> jax.Array:
    """The key of a train step from which its targets are drawn."""
    return stream_key(key, "targets")
