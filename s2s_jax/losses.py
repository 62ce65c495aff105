"""Losses of the gold targets: masked sums together with their number of tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax.batch import UNK
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


class StepInputs(NamedTuple):
    """What a `TargetRule` reads at a step; those of all steps are time first.

    Attributes:
      token: [batch] int32, the token that is fed at this step.
      gold: [batch] int32, the gold target of this step.
      mask: [batch] bool, whether there is one.
    """

    token: jax.Array
    gold: jax.Array
    mask: jax.Array


class TokenLoss(NamedTuple):
    """The losses of tokens; every array has the tokens' shape.

    Attributes:
      loss: in nats, differentiable.
      nll: in nats, the cross entropy to report, without regularisers.
      is_right: whether the most likely token is right.
      weight: float32, how often the token counts; 0 outside the mask.
    """

    loss: jax.Array
    nll: jax.Array
    is_right: jax.Array
    weight: jax.Array


@dataclass(frozen=True)
class TargetRule:
    """What each step is trained towards, as a scan over the fed tokens.

    The gold targets need no rule. A rule is for targets that depend on what was fed, such as the
    best completions of a prefix or a teacher's distribution after it.

    Attributes:
      begin: (source [batch, source_time], source_mask, target [batch, time], mask) -> the state
        before the first step; every leaf of a state has the batch as its first axis.
      step: (state, `StepInputs`) -> (state, what `loss` needs to know of this step); every leaf has
        the batch as its first axis.
      loss: (logits [..., batch, vocab_size], what the steps gave [..., batch, ...]) -> `TokenLoss`.
      reads_fed: whether the targets depend on the fed tokens. If so, the fed sequence goes on as
        long as its own tokens do, and not as long as the gold one.
      margin: how many steps there are after the longest gold target.
    """

    begin: Callable[[jax.Array, jax.Array, jax.Array, jax.Array], Any]
    step: Callable[[Any, StepInputs], tuple[Any, Any]]
    loss: Callable[[jax.Array, Any], TokenLoss]
    reads_fed: bool = True
    margin: int = 0


def distribution_loss(
    logits: jax.Array, wanted: jax.Array, weight: jax.Array, label_smoothing: float = 0.0
) -> TokenLoss:
    """The cross entropy of logits with target distributions.

        nll = -sum_v w(v) log p(v),   loss = (1 - a) nll + a mean_v -log p(v)

    Args:
      logits: [..., vocab_size].
      wanted: [..., vocab_size], the distributions w.
      weight: [...] float32; see `TokenLoss`.
      label_smoothing: a; see `cross_entropy`.

    Returns:
      The losses; a token is right if no other one is wanted more than it is.

    Example:
      >>> losses = distribution_loss(jnp.zeros(4), jnp.array([0.5, 0.5, 0, 0]), jnp.float32(1))
      >>> round(float(losses.loss), 3), bool(losses.is_right)  # log 4
      (1.386, True)
    """
    nll = loss = soft_cross_entropy(logits, wanted)
    if label_smoothing:
        evenly = jnp.full(logits.shape, 1 / logits.shape[-1])
        loss = (1.0 - label_smoothing) * nll + label_smoothing * soft_cross_entropy(logits, evenly)
    said = logits.argmax(-1)
    of_said = jnp.take_along_axis(wanted, said[..., None], axis=-1)[..., 0]
    return TokenLoss(loss, nll, (of_said >= wanted.max(-1)) & (said != UNK), weight)


@jax.custom_vjp
def soft_cross_entropy(logits: jax.Array, wanted: jax.Array) -> jax.Array:
    """The cross entropy of logits o with distributions, which have no gradient.

        -sum_v w(v) log p(v) = log sum_v exp(o_v) - sum_v w(v) o_v

    Args:
      logits: [..., vocab_size].
      wanted: [..., vocab_size] w; sums to 1.

    Returns:
      [...] float32 nats. With a single token as w, bit by bit what `cross_entropy`'s blockwise
      reading gives, and so is its gradient.

    Example:
      >>> round(float(soft_cross_entropy(jnp.zeros(4), jnp.array([0.5, 0.5, 0, 0]))), 3)  # log 4
      1.386
    """
    return _soft_cross_entropy_forward(logits, wanted)[0]


def _soft_cross_entropy_forward(logits: jax.Array, wanted: jax.Array):
    like, logits = jnp.zeros((), logits.dtype), logits.astype(jnp.float32)
    highest = logits.max(-1, keepdims=True)
    weights = jnp.exp(logits - highest)
    total = weights.sum(-1, keepdims=True)
    nll = (highest + jnp.log(total))[..., 0] - (wanted * logits).sum(-1)
    return nll, (weights / total, wanted, like)


def _soft_cross_entropy_backward(kept: tuple[jax.Array, ...], d_nll: jax.Array):
    probs, wanted, like = kept
    return ((probs - wanted) * d_nll[..., None]).astype(like.dtype), None


soft_cross_entropy.defvjp(_soft_cross_entropy_forward, _soft_cross_entropy_backward)


def make_gold_rule(label_smoothing: float = 0.0) -> TargetRule:
    """The gold targets as a rule, with the losses of `cross_entropy`.

    Args:
      label_smoothing: see `cross_entropy`.
    """

    def step(state: Any, inputs: StepInputs) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        return state, (inputs.gold, inputs.mask)

    def loss(logits: jax.Array, wanted: tuple[jax.Array, jax.Array]) -> TokenLoss:
        gold, mask = wanted
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
        nll = loss = -log_probs_of(log_probs, gold[..., None])[..., 0]
        if label_smoothing:
            loss = (1.0 - label_smoothing) * nll - label_smoothing * log_probs.mean(-1)
        is_right = right_tokens(logits.argmax(-1), gold)
        return TokenLoss(loss, nll, is_right, mask.astype(jnp.float32))

    return TargetRule(lambda *_: None, step, loss, reads_fed=False)
