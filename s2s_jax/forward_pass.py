"""The forward pass of a train step: from the encoder's memory to the fed tokens and their losses.

By the time a rollout has chosen the last token, it has computed the decoder's states and logits,
and the loss needs the same ones. For models that have a `Replay`, one scan over target time serves
both, at the cost of teacher forcing plus the draws; other models decode a second time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax import output_layer
from s2s_jax.branches import unless_all_gold
from s2s_jax.losses import TokenLosses, check_label_smoothing, token_losses
from s2s_jax.models.interface import Memory, Params, Replay, Seq2SeqModel, Trace
from s2s_jax.models.linear import compute_logits
from s2s_jax.output_layer import OutputReading
from s2s_jax.rollout import Draws, Fed, Feeding, make_rollout

ForwardPass = Callable[
    [Params, Memory, jax.Array, jax.Array, jax.Array, jax.Array], tuple[Fed, TokenLosses]
]
"""(params, memory, target [batch, time], mask [batch, time], key, teacher_prob) -> the fed tokens
and the losses of the target given them, whose gradient flows into params and memory."""


def make_forward_pass(
    model: Seq2SeqModel, *, label_smoothing: float = 0.0, **feeding_options: Any
) -> ForwardPass:
    """Makes the forward pass; its losses are those of decode_sequence's logits on the fed tokens.

    Args:
      model: the functions of `Seq2SeqModel`.
      label_smoothing: see `cross_entropy`.
      feeding_options: the options of `make_rollout`.

    Raises:
      ValueError: `make_rollout` rejects an option, or label_smoothing is outside [0, 1).
    """
    check_label_smoothing(label_smoothing)
    if model.replay is None:
        return _make_two_passes(model, label_smoothing, feeding_options)
    feeding = Feeding(model.vocab_size, **feeding_options)
    return _make_single_pass(model, model.replay, label_smoothing, feeding)


def _make_two_passes(
    model: Seq2SeqModel, label_smoothing: float, feeding_options: dict[str, Any]
) -> ForwardPass:
    """A rollout, then decode_sequence on the tokens that it fed."""
    rollout = make_rollout(model, **feeding_options)

    def two_passes(params, memory, target, mask, key, teacher_prob):
        fed = rollout(params, memory, target, key, teacher_prob)
        logits = model.decode_sequence(params, memory, fed.tokens)
        return fed, token_losses(logits, target, mask, label_smoothing)

    return two_passes


class _Passed(NamedTuple):
    """The results of a pass, time first; features are [time, batch, num_features]."""

    fed: Fed
    features: jax.Array
    trace: Trace
    reading: OutputReading


def _make_single_pass(
    model: Seq2SeqModel, replay: Replay, label_smoothing: float, feeding: Feeding
) -> ForwardPass:
    """One scan that chooses the tokens and computes their losses and gradients, time first."""

    def own_or_gold(params, memory, target, mask, key, teacher_prob):
        time, batch_size = target.shape
        draws, (kernel, bias) = feeding.draw(target, key, teacher_prob), replay.output(params)

        def step(carry, inputs: tuple[Draws, jax.Array]):
            (decoder_carry, token), (draws, mask) = carry, inputs
            decoder_carry, features, trace = replay.step(params, memory, decoder_carry, token)
            logits = compute_logits(features, kernel, bias)
            token = feeding.next(logits, draws)
            sums, d_logits = output_layer.read_logits(
                logits, draws.gold, mask, label_smoothing, kernel.dtype
            )
            return (decoder_carry, token), (token, features, trace, sums, d_logits)

        def block(carry, inputs):
            decoder, gradient = carry
            decoder, (tokens, features, trace, sums, d_logits) = jax.lax.scan(step, decoder, inputs)
            gradient, d_features = output_layer.add_gradient(gradient, features, d_logits, kernel)
            return (decoder, gradient), (tokens, features, trace, sums, d_features)

        decoder = model.initial_carry(params, memory), feeding.first(batch_size)
        count = output_layer.num_blocks(time, batch_size, model.vocab_size)
        blocks = jax.tree.map(lambda array: output_layer.in_blocks(array, count), (draws, mask))
        (_, gradient), steps = jax.lax.scan(
            block, (decoder, output_layer.zero_gradient(kernel, bias)), blocks
        )
        steps = jax.tree.map(lambda array: output_layer.out_of_blocks(array, time), steps)
        tokens, features, trace, sums, d_features = steps
        reading = OutputReading(jax.tree.map(jnp.sum, sums), gradient, d_features)
        return _Passed(feeding.fed(tokens, draws), features, trace, reading)

    def gold(params, memory, target, mask, key, teacher_prob):
        fed = feeding.all_gold(target)
        features, trace = replay.sequence(params, memory, fed.tokens)
        reading = output_layer.read_output(
            features, *replay.output(params), target, mask, label_smoothing
        )
        return _Passed(fed, features, trace, reading)

    run = unless_all_gold(own_or_gold, gold)

    def single_pass(params, memory, target, mask, key, teacher_prob):
        target, teacher_prob = jnp.asarray(target, jnp.int32).T, jnp.float32(teacher_prob)
        mask = mask.T
        # No gradient flows through the choice of a token; that of the loss is in the reading.
        passed = run(params, memory, target, mask, key, teacher_prob)
        features = replay.replay(params, memory, passed.fed.tokens, passed.features, passed.trace)
        losses = output_layer.token_losses_of(
            passed.reading, features, *replay.output(params), mask
        )
        return passed.fed.turned(), losses

    return single_pass
