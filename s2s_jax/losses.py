"""Losses of the gold targets: masked sums that know how many tokens they hold."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax.metrics import Mean, masked_mean


def cross_entropy(
    logits: jax.Array, target: jax.Array, mask: jax.Array, label_smoothing: float = 0.0
) -> Mean:
    """Negative log-likelihood of the targets, summed over the mask.

        loss = sum_t (1 - a) * -log p(y_t) + a * mean_v -log p(v),   a = label_smoothing

    Args:
      logits: [batch, time, vocab_size].
      target: [batch, time] int32 ids.
      mask: [batch, time] bool; what is outside counts neither in the sum nor in the count.
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
    losses = -jnp.take_along_axis(log_probs, target[..., None], axis=-1)[..., 0]
    if label_smoothing:
        losses = (1.0 - label_smoothing) * losses - label_smoothing * log_probs.mean(-1)
    return masked_mean(losses, mask)


def check_label_smoothing(label_smoothing: float) -> None:
    """Raises a ValueError unless label_smoothing is in [0, 1)."""
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing is {label_smoothing}; it must be in [0, 1)")


class TokenLosses(NamedTuple):
    """What a pass over the targets gives, summed over their mask.

    Attributes:
      loss: with label smoothing; the one that has a gradient.
      nll: without.
      accuracy: of the likeliest token, the lowest id among equals.
    """

    loss: Mean
    nll: Mean
    accuracy: Mean


def token_losses(
    logits: jax.Array, target: jax.Array, mask: jax.Array, label_smoothing: float = 0.0
) -> TokenLosses:
    """The losses of logits [batch, time, vocab_size]; for the rest see `cross_entropy`."""
    loss = cross_entropy(logits, target, mask, label_smoothing)
    nll = cross_entropy(logits, target, mask) if label_smoothing else loss
    return TokenLosses(loss, nll, masked_mean(logits.argmax(-1) == target, mask))


_CHUNK_ELEMENTS = 2**21  # logits at a time: 8 MB


def output_token_losses(
    features: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    target: jax.Array,
    mask: jax.Array,
    label_smoothing: float = 0.0,
) -> TokenLosses:
    """`token_losses` of the logits features @ kernel + bias, which are never there all at once.

    The logits of a chunk of tokens are computed, and at once the gradient of their loss,
    softmax(o) - (1 - a) onehot(y) - a / vocab_size, is multiplied into those of features, kernel
    and bias. So the three products of an output layer are made, none of them twice, and the
    memory beside the parameters' does not grow with batch * time * vocab_size.

    Args:
      features: [batch, time, num_features].
      kernel: [num_features, vocab_size], of the features' dtype.
      bias: [vocab_size] float32.
      target: [batch, time] int32 ids.
      mask: [batch, time] bool.
      label_smoothing: a in [0, 1).

    Returns:
      The sums; "loss" alone has a gradient.

    Raises:
      ValueError: label_smoothing is outside [0, 1).

    Example:
      >>> features, kernel, bias = jnp.ones((1, 2, 3)), jnp.zeros((3, 15)), jnp.zeros(15)
      >>> target, mask = jnp.array([[7, 0]]), jnp.array([[True, False]])
      >>> losses = output_token_losses(features, kernel, bias, target, mask)
      >>> round(float(losses.loss.total / losses.loss.weight), 2)  # log 15
      2.71
    """
    check_label_smoothing(label_smoothing)
    num_tokens, (num_features, vocab_size) = target.size, kernel.shape
    num_chunks = max(1, round(num_tokens * vocab_size / _CHUNK_ELEMENTS))
    chunk_size = -(-num_tokens // num_chunks)

    def chunked(array: jax.Array) -> jax.Array:
        padding = [(0, num_chunks * chunk_size - num_tokens)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(array, padding).reshape(num_chunks, chunk_size, *array.shape[1:])

    sums: Any = _output_sums(
        label_smoothing,
        chunked(features.reshape(num_tokens, num_features)),
        kernel,
        bias,
        chunked(target.reshape(num_tokens)),
        chunked(mask.reshape(num_tokens)),
    )
    weight = mask.sum(dtype=jnp.float32)
    return TokenLosses(*(Mean(total, weight) for total in sums))


Sums = tuple[jax.Array, jax.Array, jax.Array]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _output_sums(
    label_smoothing: float,
    features: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    target: jax.Array,
    mask: jax.Array,
) -> Sums:
    """Loss, nll and correct tokens, summed over [chunks, chunk_size]."""

    def chunk(sums: Sums, inputs: tuple[jax.Array, ...]):
        new, _ = _chunk_sums(label_smoothing, kernel, bias, *inputs)
        return jax.tree.map(jnp.add, sums, new), None

    return jax.lax.scan(chunk, (jnp.zeros(()),) * 3, (features, target, mask))[0]


def _chunk_sums(
    label_smoothing: float,
    kernel: jax.Array,
    bias: jax.Array,
    features: jax.Array,
    target: jax.Array,
    mask: jax.Array,
) -> tuple[Sums, jax.Array]:
    """The sums over a chunk, and the gradient of its loss to the logits."""
    logits = jnp.matmul(features, kernel, preferred_element_type=jnp.float32) + bias
    ids = jnp.arange(logits.shape[-1], dtype=target.dtype)
    is_gold = ids == target[:, None]
    gold = jnp.where(is_gold, logits, 0.0).sum(-1)
    highest = logits.max(-1)
    weights = jnp.exp(logits - highest[:, None])
    total = weights.sum(-1)
    log_total = highest + jnp.log(total)
    nll = log_total - gold
    loss = nll
    if label_smoothing:
        loss = (1 - label_smoothing) * nll + label_smoothing * (log_total - logits.mean(-1))
    better = (logits > gold[:, None]) | ((logits == gold[:, None]) & (ids < target[:, None]))
    correct = ~better.any(-1)
    wanted = (1 - label_smoothing) * is_gold + label_smoothing / logits.shape[-1]
    d_logits = jnp.where(mask[:, None], weights / total[:, None] - wanted, 0.0)
    sums = (jnp.where(mask, value, 0.0).sum() for value in (loss, nll, correct))
    return tuple(sums), d_logits  # pyright: ignore[reportReturnType]


def _output_sums_forward(label_smoothing, features, kernel, bias, target, mask):
    def chunk(carry, inputs):
        sums, d_kernel, d_bias = carry
        new, d_logits = _chunk_sums(label_smoothing, kernel, bias, *inputs)
        d_bias = d_bias + d_logits.sum(0)
        d_logits = d_logits.astype(kernel.dtype)
        d_kernel = d_kernel + jnp.matmul(inputs[0].T, d_logits, preferred_element_type=jnp.float32)
        carry = jax.tree.map(jnp.add, sums, new), d_kernel, d_bias
        return carry, d_logits @ kernel.T

    start = (jnp.zeros(()),) * 3, jnp.zeros(kernel.shape), jnp.zeros(bias.shape)
    (sums, d_kernel, d_bias), d_features = jax.lax.scan(chunk, start, (features, target, mask))
    return sums, (d_features, d_kernel.astype(kernel.dtype), d_bias)


def _output_sums_backward(label_smoothing, gradients, cotangents):
    d_loss = cotangents[0]
    scaled = (gradient * d_loss.astype(gradient.dtype) for gradient in gradients)
    return (*scaled, None, None)


_output_sums.defvjp(_output_sums_forward, _output_sums_backward)
