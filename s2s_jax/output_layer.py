"""The output layer's losses and their gradients, computed for one block of steps at a time.

The logits of all target tokens would be the largest array of a train step. Here, they exist for
only a few steps at a time. From those, `read_logits` computes all that is needed: the losses and
their gradient, which `add_gradient` propagates to the layer's inputs and weights. Accumulated over
the blocks, these form an `OutputReading`, from which `token_losses_of` makes differentiable losses.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax.losses import StepInputs, TargetRule, TokenLoss, TokenLosses
from s2s_jax.metrics import Mean
from s2s_jax.models.linear import (
    bias_gradient,
    compute_logits,
    inputs_gradient,
    weights_gradient,
)
from s2s_jax.models.replays import refuse_second_derivatives

_BLOCK_ELEMENTS = 2**21  # maximum number of logits in a block: 8 MB


class LossSums(NamedTuple):
    """Sums over target tokens, float32.

    Attributes:
      loss: the loss with label smoothing, in nats.
      nll: the loss without label smoothing, in nats.
      num_correct: number of tokens whose gold logit is the highest; ties go to the lowest id.
      weight: number of tokens.
    """

    loss: jax.Array
    nll: jax.Array
    num_correct: jax.Array
    weight: jax.Array


class WeightsGradient(NamedTuple):
    """The gradient of the summed loss with respect to the layer's weights, float32.

    Attributes:
      kernel: [num_features, vocab_size].
      bias: [vocab_size].
    """

    kernel: jax.Array
    bias: jax.Array


class OutputReading(NamedTuple):
    """All that a train step needs from the logits.

    Attributes:
      sums: the sums over all target tokens.
      d_weights: the gradient of the summed loss with respect to kernel and bias.
      d_features: the same with respect to the features, [time, batch, num_features].
    """

    sums: LossSums
    d_weights: WeightsGradient
    d_features: jax.Array


def num_blocks(time: int, batch_size: int, vocab_size: int) -> int:
    """The number of blocks of steps; a block has at most 2**21 logits, or a single step."""
    steps = max(1, _BLOCK_ELEMENTS // (batch_size * vocab_size))
    return -(-time // steps)


def in_blocks(array: jax.Array, count: int) -> jax.Array:
    """[time, ...] -> [count, steps, ...]; the last block is padded with steps of zeros."""
    steps = -(-array.shape[0] // count)
    padding = [(0, count * steps - array.shape[0])] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, padding).reshape(count, steps, *array.shape[1:])


def out_of_blocks(array: jax.Array, time: int) -> jax.Array:
    """[count, steps, ...] -> [time, ...]; the inverse of `in_blocks`."""
    return array.reshape(-1, *array.shape[2:])[:time]


def map_blocks(function: Callable[[Any], Any], arrays: Any, vocab_size: int) -> Any:
    """A function of some steps, applied to all of them one block after another.

    Args:
      function: arrays [steps, ...] -> arrays [steps, ...], by way of logits for these steps.
      arrays: of all steps, [time, batch, ...] or, beside such arrays, [time].
      vocab_size: of the logits.

    Example:
      >>> arrays = jnp.ones((5, 2)), jnp.arange(5)
      >>> map_blocks(lambda block: block[0][:, 0] * block[1], arrays, vocab_size=2**20).tolist()
      [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    time, batch_size = next(leaf for leaf in jax.tree.leaves(arrays) if leaf.ndim > 1).shape[:2]
    count = num_blocks(time, batch_size, vocab_size)
    blocks = jax.tree.map(lambda array: in_blocks(array, count), arrays)
    return jax.tree.map(lambda array: out_of_blocks(array, time), jax.lax.map(function, blocks))


def zero_gradient(kernel: jax.Array, bias: jax.Array) -> WeightsGradient:
    """The gradient before any token is added: zeros."""
    return WeightsGradient(jnp.zeros(kernel.shape), jnp.zeros(bias.shape))


def read_logits(
    logits: jax.Array,
    target: jax.Array,
    mask: jax.Array,
    label_smoothing: float,
    dtype: jnp.dtype,
) -> tuple[LossSums, jax.Array]:
    """Computes the losses of logits [..., vocab_size] and the gradient of their sum.

        d_logits = softmax(o) - (1 - a) onehot(y) - a / vocab_size,   a = label_smoothing

    Returns:
      The sums over the mask [...], and d_logits in the given dtype, 0 outside the mask.

    Example:
      >>> one, mask = jnp.array([2]), jnp.array([True])
      >>> sums, d_logits = read_logits(jnp.zeros((1, 4)), one, mask, 0.0, jnp.dtype("float32"))
      >>> d_logits.tolist()
      [[0.25, 0.25, -0.75, 0.25]]
    """
    vocab_size = logits.shape[-1]
    target, mask = target[..., None], mask[..., None]
    ids = jnp.arange(vocab_size, dtype=target.dtype)
    known = (target >= 0) & (target < vocab_size)
    gold = jnp.take_along_axis(logits, jnp.where(known, target, 0), axis=-1)
    gold = jnp.where(known, gold, jnp.nan)  # NaN for ids outside the vocabulary
    highest = logits.max(-1, keepdims=True)
    weights = jnp.exp(logits - highest)
    total = weights.sum(-1, keepdims=True)
    log_total = highest + jnp.log(total)
    nll = log_total - gold
    loss = nll
    if label_smoothing:
        mean = logits.mean(-1, keepdims=True)
        loss = (1 - label_smoothing) * nll + label_smoothing * (log_total - mean)
    better = (logits > gold) | ((logits == gold) & (ids < target))
    correct = ~better.any(-1, keepdims=True) & ~jnp.isnan(gold)
    wanted = (1 - label_smoothing) * (ids == target) + label_smoothing / vocab_size
    d_logits = jnp.where(mask, weights / total - wanted, 0.0)
    loss, nll, correct = (jnp.where(mask, one, 0.0).sum() for one in (loss, nll, correct))
    return LossSums(loss, nll, correct, mask.sum(dtype=jnp.float32)), d_logits.astype(dtype)


def add_gradient(
    gradient: WeightsGradient, features: jax.Array, d_logits: jax.Array, kernel: jax.Array
) -> tuple[WeightsGradient, jax.Array]:
    """Adds the contribution of d_logits [steps, batch, vocab_size] to the weights' gradient.

    Returns:
      The new gradient of the weights, and d_features [steps, batch, num_features].
    """
    d_kernel = weights_gradient(features, d_logits, gradient.kernel.dtype)
    new = WeightsGradient(gradient.kernel + d_kernel, gradient.bias + bias_gradient(d_logits))
    d_features = inputs_gradient(d_logits.reshape(-1, kernel.shape[1]), kernel)
    return new, d_features.reshape(features.shape)


def read_output(
    features: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    target: jax.Array,
    mask: jax.Array,
    label_smoothing: float = 0.0,
) -> OutputReading:
    """Reads the logits features @ kernel + bias, for features that are all known in advance.

    No gradient flows through the reading; `token_losses_of` restores it.

    Args:
      features: [time, batch, num_features].
      kernel: [num_features, vocab_size], in the features' dtype.
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

    def block(gradient: WeightsGradient, inputs: tuple[jax.Array, ...]):
        features, target, mask = inputs
        logits = compute_logits(features, kernel, bias)
        sums, d_logits = read_logits(logits, target, mask, label_smoothing, kernel.dtype)
        gradient, d_features = add_gradient(gradient, features, d_logits, kernel)
        return gradient, (sums, d_features)

    blocks = tuple(in_blocks(array, count) for array in (features, target, mask))
    gradient, (sums, d_features) = jax.lax.scan(block, zero_gradient(kernel, bias), blocks)
    return OutputReading(jax.tree.map(jnp.sum, sums), gradient, out_of_blocks(d_features, time))


def read_rule(
    features: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    rule: TargetRule,
    state: Any,
    inputs: StepInputs,
) -> OutputReading:
    """Reads the logits features @ kernel + bias with the losses of a `TargetRule`.

    Args:
      features: [time, batch, num_features].
      kernel: [num_features, vocab_size].
      bias: [vocab_size] float32.
      rule: what each step is trained towards.
      state: the rule's state before the first step.
      inputs: of all steps, time first.
    """
    features, kernel, bias = jax.lax.stop_gradient((features, kernel, bias))
    time, batch_size = inputs.token.shape
    count = num_blocks(time, batch_size, kernel.shape[1])

    def block(carry: tuple[WeightsGradient, Any], block: tuple[jax.Array, StepInputs]):
        (gradient, state), (features, inputs) = carry, block
        state, wanted = jax.lax.scan(rule.step, state, inputs)
        logits = compute_logits(features, kernel, bias)
        sums, d_logits = read_wanted(logits, rule, wanted, kernel.dtype)
        gradient, d_features = add_gradient(gradient, features, d_logits, kernel)
        return (gradient, state), (sums, d_features)

    blocks = jax.tree.map(lambda array: in_blocks(array, count), (features, inputs))
    start = zero_gradient(kernel, bias), state
    (gradient, _), (sums, d_features) = jax.lax.scan(block, start, blocks)
    return OutputReading(jax.tree.map(jnp.sum, sums), gradient, out_of_blocks(d_features, time))


def read_wanted(
    logits: jax.Array, rule: TargetRule, wanted: Any, dtype: jnp.dtype
) -> tuple[LossSums, jax.Array]:
    """Computes the losses of logits [..., batch, vocab_size] by a rule, and their sum's gradient.

    Args:
      logits: [..., batch, vocab_size].
      rule: what each step is trained towards.
      wanted: what the rule's steps gave, [..., batch, ...].
      dtype: of the gradient.

    Returns:
      The sums, and d_logits in the given dtype.
    """

    def loss(logits: jax.Array) -> tuple[jax.Array, LossSums]:
        sums = sum_losses(rule.loss(logits, wanted))
        return sums.loss, sums

    d_logits, sums = jax.grad(loss, has_aux=True)(logits)
    return sums, d_logits.astype(dtype)


def sum_losses(losses: TokenLoss) -> LossSums:
    """The sums of losses of tokens, each times its weight; those of weight 0 may be anything."""

    def total(values: jax.Array) -> jax.Array:
        return jnp.where(losses.weight != 0, values * losses.weight, 0.0).sum()

    return LossSums(
        total(losses.loss), total(losses.nll), total(losses.is_right), losses.weight.sum()
    )


def token_losses_of(
    reading: OutputReading, features: jax.Array, kernel: jax.Array, bias: jax.Array
) -> TokenLosses:
    """The losses of a reading, as a differentiable function of the output layer's arguments.

    Args:
      reading: the reading of these features, kernel and bias.
      features: [time, batch, num_features].
      kernel: [num_features, vocab_size].
      bias: [vocab_size].

    Returns:
      The sums; only "loss" has a gradient, the one in the reading.
    """
    loss, sums = _with_gradient(features, kernel, bias, reading), reading.sums
    return TokenLosses(
        Mean(loss, sums.weight), Mean(sums.nll, sums.weight), Mean(sums.num_correct, sums.weight)
    )


@jax.custom_vjp
def _with_gradient(
    features: jax.Array, kernel: jax.Array, bias: jax.Array, reading: OutputReading
) -> jax.Array:
    return reading.sums.loss


def _with_gradient_forward(features: Any, kernel: Any, bias: Any, reading: OutputReading):
    # Each gradient in the dtype of its argument.
    d_kernel, d_bias = reading.d_weights
    gradients = reading.d_features, d_kernel.astype(kernel.dtype), d_bias
    return reading.sums.loss, (gradients, (features, kernel, bias))


def _with_gradient_backward(kept: tuple[Any, Any], d_loss: jax.Array):
    gradients, inputs = kept
    scaled = tuple(gradient * d_loss.astype(gradient.dtype) for gradient in gradients)
    return (*refuse_second_derivatives(scaled, inputs), None)


_with_gradient.defvjp(_with_gradient_forward, _with_gradient_backward)
