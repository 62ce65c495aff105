"""Losses of the gold targets: masked sums together with their number of tokens."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax.metrics import Mean, masked_mean, right_tokens


def cross_entropy(
    logits: jax.Array, target: jax.Array, mask: jax.Array, label_smoothing: float = 0.0
) -> Mean:
    """Computes the negative log-likelihood of the targets, summed over the mask.

        loss = sum_t (1 - a) * -log p(y_t) + a * mean_v -log p(v),   a = label_smoothing

    Args:
      logits: [batch, time, vocab_size].
      target: [batch, time] int32 ids.
      mask: [batch, time] bool; tokens outside it are in neither the sum nor the count. Inside it,
        an id that is not in the vocabulary makes the sum NaN.
      label_smoothing: a in [0, 1), spread evenly over the vocabulary (Szegedy et al. 2016,
        arXiv:1512.00567, section 7).

    Returns:
      The sum in nats and the number of tokens.

    Raises:
      ValueError: label_smoothing is outside [0, 1).

    Example:
      >>> zeros = jnp.zeros((1, 2, 15))  # uniform over 15 symbols; the second token is padding
      >>> loss = cross_entropy(zeros, jnp.array([[7, 0]]), jnp.array([[True, False]]))
      >>> round(float(loss.total / loss.weight), 2)  # log 15
      2.71
    """
    check_label_smoothing(label_smoothing)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    losses = -log_probs_of(log_probs, target[..., None])[..., 0]
    if label_smoothing:
        losses = (1.0 - label_smoothing) * losses - label_smoothing * log_probs.mean(-1)
    return masked_mean(losses, mask)


def log_probs_of(log_probs: jax.Array, ids: jax.Array) -> jax.Array:
    """The log-probabilities of some ids; NaN for ids that are not in the vocabulary.

    Args:
      log_probs: [..., vocab_size].
      ids: [..., num_ids].

    Returns:
      [..., num_ids].

    Example:
      >>> log_probs_of(jnp.array([-0.5, -1.0]), jnp.array([1, 2, -1])).tolist()
      [-1.0, nan, nan]
    """
    ids = jnp.where(ids < 0, log_probs.shape[-1], ids)  # a negative id would index from the end
    return jnp.take_along_axis(log_probs, ids, axis=-1, mode="fill", fill_value=jnp.nan)


def check_label_smoothing(label_smoothing: float) -> None:
    """Raises a ValueError unless label_smoothing is in [0, 1)."""
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing is {label_smoothing}; it must be in [0, 1)")


class TokenLosses(NamedTuple):
    """The losses of a pass over the targets, summed over their mask.

    Attributes:
      loss: the loss with label smoothing; only this one has a gradient.
      nll: the loss without label smoothing.
      accuracy: the accuracy of the most likely token, the lowest id in a tie; see `right_tokens`.
    """

    loss: Mean
    nll: Mean
    accuracy: Mean


def token_losses(
    logits: jax.Array, target: jax.Array, mask: jax.Array, label_smoothing: float = 0.0
) -> TokenLosses:
    """The losses of logits [batch, time, vocab_size]; see `cross_entropy` for the arguments."""
    loss = cross_entropy(logits, target, mask, label_smoothing)
    nll = cross_entropy(logits, target, mask) if label_smoothing else loss
    return TokenLosses(loss, nll, masked_mean(right_tokens(logits.argmax(-1), target), mask))
