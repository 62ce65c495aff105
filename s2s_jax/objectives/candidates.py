"""Whole hypotheses as the unit of a loss: several candidates for each source, drawn and scored."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax import output_layer
from s2s_jax.batch import BOS, EOS, PAD
from s2s_jax.edit_distance import edit_distance
from s2s_jax.losses import StepInputs, log_probs_of, make_gold_rule
from s2s_jax.models.interface import Memory, Params, Seq2SeqModel, Trace
from s2s_jax.models.linear import compute_logits
from s2s_jax.models.replays import refuse_second_derivatives
from s2s_jax.names import check_known
from s2s_jax.prng import per_step_keys
from s2s_jax.sampling import choose_argmax, draw_noise, make_token_chooser

COSTS = ("edit_rate", "exact_match")
"""The costs of a hypothesis; see `cost_of`."""


class Candidates(NamedTuple):
    """Hypotheses of the model, time first; row b * num_candidates + s is candidate s of source b.

    Attributes:
      fed: [time, rows] int32, BOS and then the tokens but the last.
      tokens: [time, rows] int32, PAD after the end.
      mask: [time, rows] bool, up to and including EOS, or up to the cap.
      log_probs: [rows] float32, log p of the tokens in the mask, without a gradient.
      kept: what `log_prob_gradient` needs of the pass; None if the model has no `Replay`.
    """

    fed: jax.Array
    tokens: jax.Array
    mask: jax.Array
    log_probs: jax.Array
    kept: tuple[jax.Array, Trace] | None


def draw_candidates(
    model: Seq2SeqModel,
    params: Params,
    memory: Memory,
    key: jax.Array,
    cap: jax.Array,
    forced: jax.Array,
    is_forced: jax.Array,
    is_greedy: jax.Array,
) -> Candidates:
    """Draws one hypothesis for each row of the memory, in one scan and without a gradient.

        s_t = forced_t where is_forced, the most likely token where is_greedy, else ~ p(. | s_<t)

    Args:
      model: the functions of `Seq2SeqModel`.
      params: the model's parameters.
      memory: from encode, with as many rows as there are hypotheses.
      key: one PRNG key.
      cap: [rows] int32, the largest number of tokens; 0 for no hypothesis.
      forced: [time, rows] int32, tokens to say.
      is_forced: [time, rows] bool, where they are said.
      is_greedy: [rows] bool.
    """
    params, memory = jax.lax.stop_gradient((params, memory))
    time, num_rows = forced.shape
    choose = make_token_chooser("sample")
    noise = jax.vmap(lambda key: draw_noise(key, (num_rows,)))(per_step_keys(key, time))
    output = None if model.features is None else model.features.output(params)

    def step(state, inputs):
        (carry, token, has_ended), (t, forced, is_forced, noise) = state, inputs
        kept = None
        if model.replay is None or output is None:
            carry, logits = model.decode_step(params, memory, carry, token)
        else:
            carry, features, trace = model.replay.step(params, memory, carry, token)
            kept = features, trace
            logits = compute_logits(features, *output)
        said = jnp.where(is_greedy, choose_argmax(logits), choose(logits, noise))
        said = jnp.where(is_forced, forced, said)
        counts = ~has_ended & (t < cap)
        log_prob = log_probs_of(jax.nn.log_softmax(logits.astype(jnp.float32)), said[:, None])
        log_prob = jnp.where(counts, log_prob[:, 0], 0.0)
        said = jnp.where(counts, said, PAD)
        return (carry, said, has_ended | (said == EOS)), (token, said, counts, log_prob, kept)

    first = jnp.full(num_rows, BOS, jnp.int32)
    start = model.initial_carry(params, memory, time), first, jnp.zeros(num_rows, bool)
    inputs = jnp.arange(time), forced, is_forced, noise
    _, (fed, tokens, mask, log_probs, kept) = jax.lax.scan(step, start, inputs)
    return Candidates(fed, tokens, mask, log_probs.sum(0), kept)


def weighted_nll(
    model: Seq2SeqModel,
    params: Params,
    memory: Memory,
    candidates: Candidates,
    weights: jax.Array,
) -> jax.Array:
    """sum_r sum_t weights(t, r) (-log p(s_t)), with its gradient into params and memory.

    Args:
      model: the functions of `Seq2SeqModel`.
      params: the model's parameters.
      memory: the one that the candidates were drawn from, with its gradient.
      candidates: from `draw_candidates`.
      weights: [time, rows] float32 without a gradient; may be negative.
    """
    weights = jax.lax.stop_gradient(jnp.where(candidates.mask, weights, 0.0))
    inputs = StepInputs(candidates.fed, candidates.tokens, weights)
    rule = make_gold_rule()
    if model.features is None:
        logits = model.decode_sequence(params, memory, candidates.fed.T).swapaxes(0, 1)
        return output_layer.sum_losses(rule.loss(logits, (inputs.gold, inputs.mask))).loss
    if model.replay is None or candidates.kept is None:
        features = model.features.sequence(params, memory, candidates.fed)
    else:
        features = model.replay.replay(params, memory, candidates.fed, *candidates.kept)
    output = model.features.output(params)
    reading = output_layer.read_rule(features, *output, rule, None, inputs)
    return jnp.asarray(output_layer.token_losses_of(reading, features, *output).loss.total)


def add_nll_gradient(
    loss: jax.Array,
    model: Seq2SeqModel,
    params: Params,
    memory: Memory,
    candidates: Candidates,
    weights: jax.Array,
    num_candidates: int,
    num_weighted: int,
) -> jax.Array:
    """The loss unchanged; its gradient into params and memory is that of `weighted_nll` added.

        gradient = sum_r sum_t weights(t, r) grad -log p(s_t)

    Equal candidates of a source have equal gradients, so the first of them gets the weights of all.
    On a CPU only the rows that then have a weight are passed through, in chunks of as many rows as
    there are sources: a trained model often says the same several times. Elsewhere, where a few
    long rows take as long as many, all of them are one chunk.

    Args:
      loss: scalar.
      model: the functions of `Seq2SeqModel`.
      params: the model's parameters.
      memory: of the sources, [batch, ...]; repeated, it is what the candidates were drawn from.
      candidates: from `draw_candidates`, batch * num_candidates rows.
      weights: [time, rows] float32 without a gradient; may be negative.
      num_candidates: of each source.
      num_weighted: how many of these can have a weight; those of the others are 0.
    """
    leaves, structure = jax.tree.flatten((params, memory))
    is_input = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
    inputs = [leaf for leaf, is_one in zip(leaves, is_input, strict=True) if is_one]
    num_rows = weights.shape[1]
    batch_size = num_rows // num_candidates

    def gradient_of(rows: jax.Array, inputs: list[jax.Array], given: Any) -> list[jax.Array]:
        leaves, candidates, weights = given
        of_rows = jax.tree.map(
            lambda leaf: leaf[:, rows], candidates._replace(log_probs=candidates.log_probs[None])
        )
        some = of_rows._replace(log_probs=of_rows.log_probs[0])

        def nll(inputs: list[jax.Array]) -> jax.Array:
            of_inputs = iter(inputs)
            both = [
                next(of_inputs) if is_one else leaf
                for leaf, is_one in zip(leaves, is_input, strict=True)
            ]
            params, memory = jax.tree.unflatten(structure, both)
            memory = jax.tree.map(lambda leaf: leaf[rows // num_candidates], memory)
            return weighted_nll(model, params, memory, some, weights[:, rows])

        return jax.grad(nll)(inputs)

    def in_chunks(inputs: list[jax.Array], given: Any) -> list[jax.Array]:
        has_weight = jnp.any(given[-1] != 0, axis=0)
        order = jnp.argsort(~has_weight)  # those with a weight first

        def add_chunk(number: jax.Array, total: list[jax.Array]) -> list[jax.Array]:
            rows = jax.lax.dynamic_slice_in_dim(order, number * batch_size, batch_size)
            return jax.tree.map(jnp.add, total, gradient_of(rows, inputs, given))

        num_chunks = -(-has_weight.sum() // batch_size)
        return jax.lax.fori_loop(0, num_chunks, add_chunk, jax.tree.map(jnp.zeros_like, inputs))

    def at_once(inputs: list[jax.Array], given: Any) -> list[jax.Array]:
        by_source = jnp.arange(num_rows).reshape(batch_size, num_candidates)
        return gradient_of(by_source[:, :num_weighted].reshape(-1), inputs, given)

    def gradient(inputs: list[jax.Array], given: Any) -> list[jax.Array]:
        return jax.lax.platform_dependent(inputs, given, cpu=in_chunks, default=at_once)

    weights = _merged(candidates, jnp.where(candidates.mask, weights, 0.0), num_candidates)
    given = jax.lax.stop_gradient((leaves, candidates, weights))
    return _add_gradient(gradient, loss, inputs, given)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _add_gradient(
    gradient: Callable[[Any, Any], Any], loss: jax.Array, inputs: Any, given: Any
) -> jax.Array:
    """The loss, with gradient(inputs, given) added to its gradient into the inputs."""
    return loss


def _add_gradient_forward(gradient: Any, loss: jax.Array, inputs: Any, given: Any):
    return loss, (inputs, gradient(inputs, given))


def _add_gradient_backward(gradient: Any, kept: tuple[Any, Any], d_loss: jax.Array):
    inputs, gradients = kept
    scaled = jax.tree.map(lambda one: one * d_loss.astype(one.dtype), gradients)
    return d_loss, refuse_second_derivatives(scaled, inputs), None


_add_gradient.defvjp(_add_gradient_forward, _add_gradient_backward)


def _merged(candidates: Candidates, weights: jax.Array, num_candidates: int) -> jax.Array:
    """The weights [time, rows], those of equal candidates all with the first of them."""
    first = jnp.argmax(_are_equal(candidates, num_candidates), axis=-1)
    is_first = first[..., None] == jnp.arange(num_candidates)  # of [batch, each, first]
    by_source = weights.reshape(len(weights), -1, num_candidates)
    return jnp.where(is_first, by_source[..., None], 0.0).sum(2).reshape(weights.shape)


def _are_equal(candidates: Candidates, num_candidates: int) -> jax.Array:
    """Which candidates of a source are equal: [batch, num_candidates, num_candidates]."""
    tokens = candidates.tokens.T.reshape(-1, num_candidates, len(candidates.tokens))
    return jnp.all(tokens[:, :, None] == tokens[:, None], axis=-1)


def is_distinct(candidates: Candidates, num_candidates: int) -> jax.Array:
    """Whether a candidate differs from all earlier ones of its source: [batch, num_candidates].

    Example:
      >>> tokens = jnp.array([[7, 7, 8], [2, 2, 2]])  # three candidates of one source
      >>> some = Candidates(tokens, tokens, tokens > 0, jnp.zeros(3), None)
      >>> is_distinct(some, 3).tolist()
      [[True, False, True]]
    """
    equal = _are_equal(candidates, num_candidates)
    return ~jnp.any(equal & jnp.tri(num_candidates, k=-1, dtype=bool), axis=-1)


def make_cost(name: str) -> Callable[[Candidates, jax.Array, jax.Array], jax.Array]:
    """Makes the cost of a hypothesis s against its target y, a number from 0, the best.

        edit_rate: Levenshtein(s, y) / |y|     exact_match: 0 if s = y else 1

    |y| does not count the end symbol, and is at least 1. A hypothesis that was cut off before its
    end symbol is not exact.

    Returns:
      (candidates, target [rows, time], mask [rows, time]) -> [rows] float32.

    Raises:
      ValueError: the name is unknown.
    """
    check_known("cost", name, COSTS)

    def edit_rate(candidates: Candidates, target: jax.Array, mask: jax.Array) -> jax.Array:
        distance = edit_distance(candidates.tokens.T, candidates.mask.T, target, mask)
        return distance / jnp.maximum((mask & (target != EOS)).sum(1), 1)

    def exact_match(candidates: Candidates, target: jax.Array, mask: jax.Array) -> jax.Array:
        said = jnp.where(candidates.mask, candidates.tokens, PAD).T
        same = jnp.all((said == jnp.where(mask, target, PAD)) & (mask == candidates.mask.T), axis=1)
        return 1.0 - same

    return {"edit_rate": edit_rate, "exact_match": exact_match}[name]


def repeat_rows(tree: Any, times: int) -> Any:
    """Every row of every leaf several times in a row: [batch, ...] -> [batch * times, ...]."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, times, axis=0), tree)
