"""The forward pass of a train step: from the encoder's memory to the fed tokens and their losses.

By the time a rollout has chosen the last token, it has computed the decoder's states and logits,
and the loss needs the same ones. For models that have a `Replay`, the loss takes the states from
the pass in which the tokens were fed; with gold targets and tokens chosen one after another, one
scan serves both, at the cost of teacher forcing plus the draws. Other models decode a second time.
If expected embeddings are fed, the gradient flows through the whole scan.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax import output_layer
from s2s_jax.batch import PAD
from s2s_jax.branches import unless_all_gold
from s2s_jax.feeding import Draws, Fed, Feeding, RolloutOptions
from s2s_jax.losses import (
    StepInputs,
    TargetRule,
    TokenLosses,
    check_label_smoothing,
    make_gold_rule,
    token_losses,
)
from s2s_jax.metrics import Mean
from s2s_jax.models.interface import Memory, Params, Replay, Seq2SeqModel, Trace, Vectors
from s2s_jax.models.linear import compute_logits
from s2s_jax.output_layer import LossSums, OutputReading
from s2s_jax.prng import per_step_keys, stream_key
from s2s_jax.rollout import in_passes, make_rollout

OutputLayer = Callable[[Params], tuple[jax.Array, jax.Array]]
"""params -> (kernel, bias); see `Features.output`."""


class ForwardPass(Protocol):
    """From the encoder's memory to what was fed and the losses of the targets given it."""

    def __call__(
        self,
        params: Params,
        memory: Memory,
        target: jax.Array | np.ndarray,
        mask: jax.Array | np.ndarray,
        key: jax.Array,
        teacher_prob: jax.Array,
        state: Any = None,
    ) -> tuple[Fed, TokenLosses]:
        """The gradient of the losses flows into params and memory.

        Args:
          params: the model's parameters.
          memory: from `encode`.
          target: [batch, time] int32 ids.
          mask: [batch, time] bool.
          key: the step's key.
          teacher_prob: scalar in [0, 1].
          state: what the target rule's `begin` returned; None without a rule.
        """
        ...


def make_forward_pass(
    model: Seq2SeqModel,
    options: RolloutOptions | None = None,
    *,
    label_smoothing: float = 0.0,
    rule: TargetRule | None = None,
    unigram_probs: Any | None = None,
) -> ForwardPass:
    """Makes the forward pass; its losses are those of decode_sequence's logits on the fed tokens.

    Args:
      model: the functions of `Seq2SeqModel`.
      options: what is fed; None for the default.
      label_smoothing: see `cross_entropy`; with a rule, that is the rule's affair.
      rule: what each step is trained towards; None for the gold tokens.
      unigram_probs: see `Feeding`.

    Raises:
      ValueError: `Feeding` rejects an option, label_smoothing is outside [0, 1), or embeddings are
        fed and the rule needs to know the fed tokens.
    """
    check_label_smoothing(label_smoothing)
    options = options or RolloutOptions()
    beyond_gold = rule is not None and rule.reads_fed
    feeding = Feeding(model, options, unigram_probs, beyond_gold=beyond_gold)
    if model.vectors is not None and feeding.is_soft:
        if beyond_gold:
            raise ValueError(
                f"feed is {options.feed!r}; it feeds no tokens, and these targets depend on them"
            )
        if options.passes:
            return _make_soft_passes(model, model.vectors, feeding, label_smoothing, rule)
        rule = rule or make_gold_rule(label_smoothing)
        return _make_soft_pass(model, model.vectors, feeding, rule)
    if model.replay is None or model.features is None:
        rollout = make_rollout(model, options, unigram_probs=unigram_probs, beyond_gold=beyond_gold)
        return _make_two_passes(model, rollout, label_smoothing, rule)
    if not feeding.knows_all and not options.passes:
        return _make_single_pass(
            model, model.replay, model.features.output, label_smoothing, feeding, rule
        )
    return _make_replayed_pass(
        model, model.replay, model.features.output, label_smoothing, feeding, rule
    )


def _make_two_passes(
    model: Seq2SeqModel, rollout: Any, label_smoothing: float, rule: TargetRule | None
) -> ForwardPass:
    """A rollout, then the whole sequence at once on the tokens that it fed."""
    read = _make_read(label_smoothing, rule)

    def two_passes(params, memory, target, mask, key, teacher_prob, state=None):
        target = jnp.asarray(target, jnp.int32)
        fed = rollout(params, memory, target, mask, key, teacher_prob)
        if model.features is not None:
            features = model.features.sequence(params, memory, fed.tokens.T)
            output = model.features.output(params)
            reading = read(features, output, target.T, mask.T, state, fed.tokens.T)
            return fed, output_layer.token_losses_of(reading, features, *output)
        logits = model.decode_sequence(params, memory, fed.tokens)
        if rule is None:
            return fed, token_losses(logits, target, mask, label_smoothing)
        inputs = StepInputs(fed.tokens.T, target.T, mask.T)
        wanted = jax.lax.stop_gradient(jax.lax.scan(rule.step, state, inputs)[1])
        sums = output_layer.sum_losses(rule.loss(logits.swapaxes(0, 1), wanted))
        return fed, _losses_of(sums)

    return two_passes


def _make_read(label_smoothing: float, rule: TargetRule | None) -> Callable[..., OutputReading]:
    """(features, (kernel, bias), target, mask, state, fed tokens) -> reading; all time first."""

    def read(
        features: jax.Array, output: tuple[jax.Array, jax.Array], target, mask, state, tokens
    ) -> OutputReading:
        if rule is None:
            return output_layer.read_output(features, *output, target, mask, label_smoothing)
        inputs = StepInputs(tokens, target, mask)
        return output_layer.read_rule(features, *output, rule, state, inputs)

    return read


def _losses_of(sums: LossSums) -> TokenLosses:
    return TokenLosses(
        Mean(sums.loss, sums.weight),
        Mean(jax.lax.stop_gradient(sums.nll), sums.weight),
        Mean(sums.num_correct, sums.weight),
    )


class _Passed(NamedTuple):
    """The results of a pass, time first; features are [time, batch, num_features]."""

    fed: Fed
    features: jax.Array
    trace: Trace
    reading: OutputReading


def _make_single_pass(
    model: Seq2SeqModel,
    replay: Replay,
    output: OutputLayer,
    label_smoothing: float,
    feeding: Feeding,
    rule: TargetRule | None,
) -> ForwardPass:
    """One scan that chooses the tokens and computes their losses and gradients, time first."""
    pass_on = _make_pass_on(replay, output, label_smoothing, rule)

    def own_or_gold(params, memory, target, mask, key, state, teacher_prob):
        time, batch_size = target.shape
        draws = feeding.draw(params, target, mask, key, teacher_prob)
        kernel, bias = output(params)

        def step(carry, inputs: tuple[Draws, jax.Array, jax.Array]):
            (decoder_carry, token, state), (draws, mask, exists) = carry, inputs
            decoder_carry, features, trace = replay.step(params, memory, decoder_carry, token)
            logits = compute_logits(features, kernel, bias)
            if rule is None:
                sums, d_logits = output_layer.read_logits(
                    logits, draws.gold, mask, label_smoothing, kernel.dtype
                )
            else:
                token = jnp.where(exists, token, PAD)
                state, wanted = rule.step(state, StepInputs(token, draws.gold, mask))
                sums, d_logits = output_layer.read_wanted(logits, rule, wanted, kernel.dtype)
            token, replaced = feeding.next(logits, draws)
            carry = decoder_carry, token, state
            return carry, (token, replaced, features, trace, sums, d_logits)

        def block(carry, inputs):
            decoder, gradient = carry
            decoder, steps = jax.lax.scan(step, decoder, inputs)
            *kept, features, trace, sums, d_logits = steps
            gradient, d_features = output_layer.add_gradient(gradient, features, d_logits, kernel)
            return (decoder, gradient), (*kept, features, trace, sums, d_features)

        decoder = model.initial_carry(params, memory, time), feeding.first(batch_size), state
        count = output_layer.num_blocks(time, batch_size, model.vocab_size)
        inputs = draws, mask, jnp.ones(time, bool)  # False in the steps that fill the last block
        blocks = jax.tree.map(lambda array: output_layer.in_blocks(array, count), inputs)
        (_, gradient), steps = jax.lax.scan(
            block, (decoder, output_layer.zero_gradient(kernel, bias)), blocks
        )
        steps = jax.tree.map(lambda array: output_layer.out_of_blocks(array, time), steps)
        tokens, replaced, features, trace, sums, d_features = steps
        reading = OutputReading(jax.tree.map(jnp.sum, sums), gradient, d_features)
        return _Passed(feeding.fed(tokens, replaced), features, trace, reading)

    def gold(params, memory, target, mask, key, state, teacher_prob):
        return pass_on(params, memory, target, mask, state, feeding.all_gold(target))

    return _replayed(replay, output, unless_all_gold(own_or_gold, gold))


def _make_pass_on(
    replay: Replay, output: OutputLayer, label_smoothing: float, rule: TargetRule | None
) -> Callable[..., _Passed]:
    """(params, memory, target, mask, state, fed) -> the pass on tokens that are all known."""
    read = _make_read(label_smoothing, rule)

    def pass_on(params, memory, target, mask, state, fed: Fed) -> _Passed:
        features, trace = replay.sequence(params, memory, fed.tokens)
        reading = read(features, output(params), target, mask, state, fed.tokens)
        return _Passed(fed, features, trace, reading)

    return pass_on


def _make_replayed_pass(
    model: Seq2SeqModel,
    replay: Replay,
    output: OutputLayer,
    label_smoothing: float,
    feeding: Feeding,
    rule: TargetRule | None,
) -> ForwardPass:
    """First the tokens, known in advance or chosen in passes; then the losses of a pass on them."""
    pass_on = _make_pass_on(replay, output, label_smoothing, rule)

    def replaced_or_gold(params, memory, target, mask, key, state, teacher_prob):
        draws = feeding.draw(params, target, mask, key, teacher_prob)
        if feeding.knows_all:
            fed = feeding.known(draws)
        else:
            fed = in_passes(model, feeding, draws, params, memory)
        return pass_on(params, memory, target, mask, state, fed)

    def gold(params, memory, target, mask, key, state, teacher_prob):
        return pass_on(params, memory, target, mask, state, feeding.all_gold(target))

    return _replayed(replay, output, unless_all_gold(replaced_or_gold, gold))


def _replayed(replay: Replay, output: OutputLayer, run: Callable[..., _Passed]) -> ForwardPass:
    """A pass without a gradient, and then the gradient of its losses."""

    def replayed(params, memory, target, mask, key, teacher_prob, state=None):
        target, mask = jnp.asarray(target, jnp.int32).T, jnp.asarray(mask, bool).T
        # No gradient flows through the choice of a token; that of the loss is in the reading.
        passed = run(params, memory, target, mask, key, state, jnp.float32(teacher_prob))
        features = replay.replay(params, memory, passed.fed.tokens, passed.features, passed.trace)
        losses = output_layer.token_losses_of(passed.reading, features, *output(params))
        return passed.fed.turned(), losses

    return replayed


def _make_soft_pass(
    model: Seq2SeqModel, vectors: Vectors, feeding: Feeding, rule: TargetRule
) -> ForwardPass:
    """One scan that feeds expected embeddings, differentiated through as a whole."""

    def soft_pass(params, memory, target, mask, key, teacher_prob, state=None):
        target, mask = jnp.asarray(target, jnp.int32).T, jnp.asarray(mask, bool).T
        draws = feeding.draw(params, target, mask, key, jnp.float32(teacher_prob))
        table, gumbel_keys = (
            vectors.table(params),
            per_step_keys(stream_key(key, "samples"), len(target)),
        )

        def step(carry, inputs):
            (decoder_carry, state, vector, token), (draws, mask, key) = carry, inputs
            decoder_carry, logits = vectors.step(params, memory, decoder_carry, vector)
            state, wanted = rule.step(state, StepInputs(token, draws.gold, mask))
            sums = output_layer.sum_losses(rule.loss(logits, wanted))
            vector, token = feeding.expect(logits, table, key)
            vector = jnp.where(draws.own[:, None], vector, table[draws.gold])
            token = jnp.where(draws.own, token, draws.gold)
            return (decoder_carry, state, vector, token), (token, sums)

        first = feeding.first(target.shape[1])
        start = model.initial_carry(params, memory, len(target)), state, table[first], first
        tokens, sums = jax.lax.scan(step, start, (draws, mask, gumbel_keys))[1]
        return feeding.fed(tokens, draws.own).turned(), _losses_of(jax.tree.map(jnp.sum, sums))

    return soft_pass


def _make_soft_passes(
    model: Seq2SeqModel,
    vectors: Vectors,
    feeding: Feeding,
    label_smoothing: float,
    rule: TargetRule | None,
) -> ForwardPass:
    """Passes over all steps at once, fed expected embeddings of the predictions of the last pass.

    The gradient flows through them only if `through_passes` says so.
    """
    features, sequence = model.features, vectors.sequence
    if features is None or sequence is None:
        raise ValueError(
            f"passes is {feeding.options.passes} and feed {feeding.options.feed!r}; this model"
            " cannot be fed all vectors at once"
        )
    read = _make_read(label_smoothing, rule)

    def soft_passes(params, memory, target, mask, key, teacher_prob, state=None):
        target, mask = jnp.asarray(target, jnp.int32).T, jnp.asarray(mask, bool).T
        time, batch_size = target.shape
        draws = feeding.draw(params, target, mask, key, jnp.float32(teacher_prob))
        table, (kernel, bias) = vectors.table(params), features.output(params)
        samples_key = stream_key(key, "samples")
        first, gold = table[feeding.first(batch_size)], table[target]

        @jax.checkpoint  # so that no logits are kept for the gradient
        def expect(block: Any) -> tuple[jax.Array, jax.Array]:
            some, steps = block
            keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(samples_key, steps)
            logits = compute_logits(some, kernel, bias)
            return jax.vmap(feeding.expect, in_axes=(0, None, 0))(logits, table, keys)

        def one(fed: tuple[jax.Array, jax.Array], _: None):
            given = sequence(params, memory, fed[0]), jnp.arange(time)
            expected, tokens = output_layer.map_blocks(expect, given, model.vocab_size)
            if not feeding.options.through_passes:
                expected = jax.lax.stop_gradient(expected)
            chosen = jnp.where(draws.own[..., None], expected, gold)
            tokens = jnp.where(draws.own, tokens, target)
            return (jnp.concatenate([first[None], chosen[:-1]]), tokens), None

        start = jnp.concatenate([first[None], gold[:-1]]), target
        (fed_vectors, tokens), _ = jax.lax.scan(one, start, None, feeding.options.passes)
        some = sequence(params, memory, fed_vectors)
        fed = feeding.fed(tokens, draws.own)
        reading = read(some, (kernel, bias), target, mask, state, fed.tokens)
        return fed.turned(), output_layer.token_losses_of(reading, some, kernel, bias)

    return soft_passes
