"""Reward-augmented maximum likelihood: targets with as many errors as a reward allows."""

import math

import jax
import jax.numpy as jnp

from s2s_jax.batch import EOS, NUM_RESERVED, PAD
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
    other = _among(noise[..., 1], num_ids - 1)
    other += other >= target  # every id but the token's own
    replaced = noise[..., 0] < replacement_prob(num_ids, tau)
    may_be = mask & (target >= NUM_RESERVED) & (target < vocab_size)
    return jnp.where(replaced & may_be, other, target).astype(target.dtype)


def draw_edited(
    target: jax.Array, mask: jax.Array, key: jax.Array, vocab_size: int, tau: float
) -> tuple[jax.Array, jax.Array]:
    """Draws y' by editing y, with a probability that falls with the number of edits.

        P(edits) proportional to exp(-number of edits / tau)

    Each token is kept, replaced by one of the V - 1 other ids or deleted, and in each gap between
    tokens, before the first and after the last, one of V ids is inserted or none: so the edits at
    all places are independent, with weight 1 for none and w = e^(-1/tau) for each possible edit.
    The end symbol stays the end. Norouzi et al. (2016), arXiv:1609.00150, draw from the same reward
    with approximate counts of the sequences at each edit distance.

    Args:
      target: [batch, time] int32 ids.
      mask: [batch, time] bool; the room for insertions is what follows the end symbol. A y' that
        does not fit is cut off, and ends there.
      key: one PRNG key.
      vocab_size: number of target ids.
      tau: the temperature.

    Returns:
      y' and its mask, both [batch, time].

    Example:
      >>> target = jnp.array([[7, 8, 2, 0]])
      >>> found, mask = draw_edited(target, target > 0, jax.random.key(0), 12, tau=0.01)
      >>> found.tolist(), mask.tolist()
      ([[7, 8, 2, 0]], [[True, True, True, False]])
    """
    batch_size, time = target.shape
    num_ids, weight = vocab_size - NUM_RESERVED, math.exp(-1 / tau)
    keys = per_step_keys(key, time)
    noise = jax.vmap(lambda key: jax.random.uniform(key, (batch_size, 4)))(keys).swapaxes(0, 1)
    edit, inserts = noise[..., 0], noise[..., 1]
    is_token = mask & (target >= NUM_RESERVED) & (target < vocab_size)
    total = 1 + num_ids * weight  # keep, delete, or replace by one of the num_ids - 1 others
    deleted = is_token & (edit < weight / total)
    replaced = is_token & ~deleted & (edit < num_ids * weight / total)
    other = _among(noise[..., 2], num_ids - 1)
    token = jnp.where(replaced, other + (other >= target), target)
    # Insertions come before a token, or before the end symbol.
    inserted = mask & (inserts < num_ids * weight / (1 + num_ids * weight))
    new = _among(noise[..., 3], num_ids)
    stays = mask & ~deleted
    before = jnp.cumsum(inserted + stays.astype(jnp.int32), axis=1)
    # Where each token lands; out of bounds is dropped.
    at = jnp.where(stays, before - 1, time)
    inserted_at = jnp.where(inserted, before - 1 - stays, time)
    rows = jnp.arange(batch_size)[:, None]
    found = jnp.full((batch_size, time), PAD, target.dtype)
    found = found.at[rows, inserted_at].set(new.astype(target.dtype), mode="drop")
    found = found.at[rows, at].set(token.astype(target.dtype), mode="drop")
    length = before[:, -1:]
    places = jnp.arange(time)
    found = jnp.where((length > time) & (places == time - 1), EOS, found)
    return found, places < length


def _among(uniform: jax.Array, num_ids: int) -> jax.Array:
    """One of num_ids ids that are not reserved, from a uniform number in [0, 1)."""
    return NUM_RESERVED + jnp.minimum((uniform * num_ids).astype(jnp.int32), num_ids - 1)


def targets_key(key: jax.Array) -> jax.Array:
    """The key of a train step from which its targets are drawn."""
    return stream_key(key, "targets")
