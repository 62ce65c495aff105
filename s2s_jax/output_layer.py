"""The output layer's losses with their gradients, of a block of steps' logits at a time.

The logits of all target tokens are the largest array that a train step could hold. Here they are
there for a few steps; while they are, everything that asks for them is answered: the losses, and
the gradient of the loss to what the layer has been given. Block by block the answers add up to an
`OutputReading`, from which `token_losses_of` makes losses that can be differentiated.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax.losses import TokenLosses
from s2s_jax.metrics import Mean
from s2s_jax.models.linear import compute_logits, inputs_gradient
from s2s_jax.models.replays import first_order

_BLOCK_ELEMENTS = 2**21  # logits at a time: 8 MB


class OutputSums(NamedTuple):
    """Sums over target tokens, float32.

    Attributes:
      loss: with label smoothing, nats.
      nll: without.
      num_correct: tokens whose gold logit is the highest, the lowest id among equals.
      d_kernel: [num_features, vocab_size], the gradient of loss.
      d_bias: [vocab_size], the same.
    """

    loss: jax.Array
    nll: jax.Array
    num_correct: jax.Array
    d_kernel: jax.Array
    d_bias: jax.Array


class OutputReading(NamedTuple):
    """All that a train step wants to know of the logits.

    Attributes:
      sums: over all target tokens.
      d_features: [time, batch, num_features], the gradient of the summed loss.
    """

    sums: OutputSums
    d_features: jax.Array


def num_blocks(time: int, batch_size: int, vocab_size: int) -> int:
    """How many blocks of steps there are: each of at most 2 million logits, or of one step."""
    steps = max(1, _BLOCK_ELEMENTS // (batch_size * vocab_size))
    return -(-time // steps)


def in_blocks(array: jax.Array, count: int) -> jax.Array:
    """[time, ...] -> [count, steps, ...]; steps of zeros fill the last block."""
    steps = -(-array.shape[0] // count)
    padding = [(0, count * steps - array.shape[0])] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, padding).reshape(count, steps, *array.shape[1:])


def out_of_blocks(array: jax.Array, time: int) -> jax.Array:
    """[count, steps, ...] -> [time, ...]: undoes `in_blocks`."""
    return array.reshape(-1, *array.shape[2:])[:time]


def zero_sums(kernel: jax.Array, bias: jax.Array) -> OutputSums:
    """The sums over no token."""
    zero = jnp.zeros(())
    return OutputSums(zero, zero, zero, jnp.zeros(kernel.shape), jnp.zeros(bias.shape))


def read_block(
    sums: OutputSums,
    features: jax.Array,
    logits: jax.Array,
    kernel: jax.Array,
    target: jax.Array,
    mask: jax.Array,
    label_smoothing: float,
) -> tuple[OutputSums, jax.Array]:
    """Adds a block of logits [steps, batch, vocab_size] to the sums.

        d_logits = softmax(o) - (1 - a) onehot(y) - a / vocab_size,   a = label_smoothing

    is at once multiplied into the gradients of features, kernel and bias, so that no product of
    the layer is made twice.

    Returns:
      The new sums and d_features [steps, batch, num_features].
    """
    block, vocab_size = target.shape, logits.shape[-1]
    features, logits = features.reshape(-1, kernel.shape[0]), logits.reshape(-1, vocab_size)
    target, mask = target.reshape(-1), mask.reshape(-1)
    ids = jnp.arange(vocab_size, dtype=target.dtype)
    is_gold = ids == target[:, None]
    known = (target >= 0) & (target < vocab_size)
    gold = jnp.take_along_axis(logits, jnp.where(known, target, 0)[:, None], axis=-1)[:, 0]
    gold = jnp.where(known, gold, jnp.nan)  # no such id: no loss
    highest = logits.max(-1)
    weights = jnp.exp(logits - highest[:, None])
    total = weights.sum(-1)
    log_total = highest + jnp.log(total)
    nll = log_total - gold
    loss = nll
    if label_smoothing:
        loss = (1 - label_smoothing) * nll + label_smoothing * (log_total - logits.mean(-1))
    better = (logits > gold[:, None]) | ((logits == gold[:, None]) & (ids < target[:, None]))
    correct = ~better.any(-1) & ~jnp.isnan(gold)
    wanted = (1 - label_smoothing) * is_gold + label_smoothing / vocab_size
    d_logits = jnp.where(mask[:, None], weights / total[:, None] - wanted, 0.0)
    d_bias = d_logits.sum(0)
    d_logits = d_logits.astype(kernel.dtype)
    d_kernel = jnp.matmul(features.T, d_logits, preferred_element_type=jnp.float32)
    loss, nll, num_correct = (jnp.where(mask, one, 0.0).sum() for one in (loss, nll, correct))
    new = OutputSums(loss, nll, num_correct, d_kernel, d_bias)
    return jax.tree.map(jnp.add, sums, new), inputs_gradient(d_logits, kernel).reshape(*block, -1)


def read_output(
    features: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    target: jax.Array,
    mask: jax.Array,
    label_smoothing: float = 0.0,
) -> OutputReading:
    """Reads the logits of features that are all known: features @ kernel + bias.

    No gradient passes through the reading; `token_losses_of` gives it back.

    Args:
      features: [time, batch, num_features].
      kernel: [num_features, vocab_size], of the features' dtype.
      bias: [vocab_size] float32.
      target: [time, batch] int32 ids.
      mask: [time, batch] bool.
      label_smoothing: see `cross_entropy`.

    Example:
      >>> features, kernel, bias = jnp.ones((2, 1, 3)), jnp.zeros((3, 15)), jnp.zeros(15)
      >>> target, mask = jnp.array([[7], [0]]), jnp.array([[True], [False]])
      >>> reading = read_output(features, kernel, bias, target, mask)
      >>> round(float(reading.sums.loss), 2)  # log 15
      2.71
    """
    features, kernel, bias = jax.lax.stop_gradient((features, kernel, bias))
    time, batch_size = target.shape
    count = num_blocks(time, batch_size, kernel.shape[1])

    def block(sums: OutputSums, inputs: tuple[jax.Array, ...]):
        features, target, mask = inputs
        logits = compute_logits(features, kernel, bias)
        return read_block(sums, features, logits, kernel, target, mask, label_smoothing)

    blocks = tuple(in_blocks(array, count) for array in (features, target, mask))
    sums, d_features = jax.lax.scan(block, zero_sums(kernel, bias), blocks)
    return OutputReading(sums, out_of_blocks(d_features, time))


def token_losses_of(
    reading: OutputReading,
    features: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    mask: jax.Array,
) -> TokenLosses:
    """The losses that were read, as a function of what the output layer has been given.

    Args:
      reading: of these features, kernel and bias.
      features: [time, batch, num_features].
      kernel: [num_features, vocab_size].
      bias: [vocab_size].
      mask: bool, of any shape; its size is the losses' weight.

    Returns:
      The sums; "loss" alone has a gradient, the one in the reading.
    """
    weight = mask.sum(dtype=jnp.float32)
    loss = _with_gradient(features, kernel, bias, reading)
    return TokenLosses(
        Mean(loss, weight), Mean(reading.sums.nll, weight), Mean(reading.sums.num_correct, weight)
    )


@jax.custom_vjp
def _with_gradient(
    features: jax.Array, kernel: jax.Array, bias: jax.Array, reading: OutputReading
) -> jax.Array:
    return reading.sums.loss


def _with_gradient_forward(features: Any, kernel: Any, bias: Any, reading: OutputReading):
    sums = reading.sums
    # In the dtypes of what they are gradients of.
    gradients = reading.d_features, sums.d_kernel.astype(kernel.dtype), sums.d_bias
    return sums.loss, (gradients, (features, kernel, bias))


def _with_gradient_backward(kept: tuple[Any, Any], d_loss: jax.Array):
    gradients, inputs = kept
    scaled = tuple(gradient * d_loss.astype(gradient.dtype) for gradient in gradients)
    return (*first_order(scaled, inputs), None)


_with_gradient.defvjp(_with_gradient_forward, _with_gradient_backward)
