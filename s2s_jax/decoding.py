"""Decoding without gold tokens: greedy, sampled, and beam search, over any `Seq2SeqModel`.

Every token except EOS is an ordinary one: PAD and BOS have logits like the others and are not
masked, so greedy decoding equals the rollout that never feeds gold, and neither PAD nor BOS ends a
hypothesis. All functions are pure and run under `jit` with `max_length` and `beam_size` static;
their loops stop as soon as all rows are finished.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax.batch import BOS, EOS, PAD
from s2s_jax.models.interface import Carry, Memory, Params, Seq2SeqModel
from s2s_jax.sampling import choose_argmax, draw_noise, make_token_chooser


class Decoded(NamedTuple):
    """Hypotheses; the leading axes are [batch], or [batch, beam] with the best first.

    Attributes:
      tokens: [..., max_length] int32 ids, PAD after EOS.
      lengths: [...] int32, tokens up to and including EOS; max_length if there is no EOS.
      scores: [...] float32, the log-probability of those tokens under the model, in nats; from
        `beam_search` it is length-normalised.
      finished: [...] bool, True if EOS was emitted.
    """

    tokens: jax.Array
    lengths: jax.Array
    scores: jax.Array
    finished: jax.Array

    @property
    def mask(self) -> jax.Array:
        """[..., max_length] bool, True up to and including EOS."""
        return jnp.arange(self.tokens.shape[-1]) < self.lengths[..., None]


def greedy(model: Seq2SeqModel, params: Params, memory: Memory, max_length: int) -> Decoded:
    """Feeds the token with the highest logit, until EOS.

        y_t = argmax_v o_t(v),   score = sum_t log softmax(o_t)(y_t)

    Args:
      model: the pure functions.
      params: its parameters.
      memory: from `model.encode`, batch first in every leaf.
      max_length: maximum number of tokens in a hypothesis, including EOS; static.

    Returns:
      `Decoded` of [batch] hypotheses.

    Raises:
      ValueError: max_length is below 1.

    Example:
      >>> model = Seq2SeqModel(  # says id 5 and then EOS, whatever it reads
      ...     init=lambda key: (),
      ...     encode=lambda params, source, mask, dropout_key: source,
      ...     initial_carry=lambda params, memory, max_length: memory[:, 0],
      ...     decode_step=lambda params, memory, carry, token: (
      ...         carry, jax.nn.one_hot(jnp.where(token == BOS, 5, EOS), 6)),
      ...     decode_sequence=lambda params, memory, tokens: jnp.zeros((*tokens.shape, 6)),
      ...     vocab_size=6)
      >>> greedy(model, (), jnp.ones((1, 3), int), max_length=4).tokens.tolist()
      [[5, 2, 0, 0]]
    """
    return _decode(model, params, memory, max_length, lambda logits, step: choose_argmax(logits))


def sample(
    model: Seq2SeqModel,
    params: Params,
    memory: Memory,
    max_length: int,
    key: jax.Array,
    temperature: float = 1.0,
    top_k: int = 0,
) -> Decoded:
    """Draws each token from the model and feeds it, until EOS.

        y_t ~ softmax(o_t / temperature), over only the top_k highest

    Args:
      model: the pure functions.
      params: its parameters.
      memory: from `model.encode`, batch first in every leaf.
      max_length: maximum number of tokens in a hypothesis, including EOS; static.
      key: one key; step t draws with fold_in(key, t), as in `prng.per_step_keys`.
      temperature: as in `make_token_chooser`.
      top_k: as in `make_token_chooser`.

    Returns:
      `Decoded` of [batch] hypotheses. The scores are the model's log-probabilities at temperature 1
      over the whole vocabulary, so that samples of different temperatures can be compared.

    Raises:
      ValueError: max_length is below 1, or temperature or top_k is out of range.
    """
    choose = make_token_chooser("sample", temperature, top_k)
    return _decode(
        model,
        params,
        memory,
        max_length,
        lambda logits, step: choose(
            logits, draw_noise(jax.random.fold_in(key, step), logits.shape[:-1])
        ),
    )


def _decode(
    model: Seq2SeqModel,
    params: Params,
    memory: Memory,
    max_length: int,
    choose: Callable[[jax.Array, jax.Array], jax.Array],
) -> Decoded:
    """One hypothesis per row; `choose` is (logits [batch, vocab_size], step) -> tokens [batch]."""
    _check_at_least_1("max_length", max_length)
    batch_size = _batch_size(memory)

    class State(NamedTuple):
        step: jax.Array
        carry: Carry
        fed: jax.Array
        decoded: Decoded

    def unfinished(state: State) -> jax.Array:
        return (state.step < max_length) & ~jnp.all(state.decoded.finished)

    def decode_one(state: State) -> State:
        tokens, lengths, scores, finished = state.decoded
        carry, logits = model.decode_step(params, memory, state.carry, state.fed)
        token = choose(logits, state.step)
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
        gain = jnp.take_along_axis(log_probs, token[:, None], axis=-1)[:, 0]
        decoded = Decoded(
            tokens=tokens.at[:, state.step].set(jnp.where(finished, PAD, token)),
            lengths=lengths + ~finished,
            scores=scores + jnp.where(finished, 0.0, gain),
            finished=finished | (token == EOS),
        )
        return State(state.step + 1, carry, token, decoded)

    start = State(
        step=jnp.zeros((), jnp.int32),
        carry=model.initial_carry(params, memory, max_length),
        fed=jnp.full(batch_size, BOS, jnp.int32),
        decoded=Decoded(
            tokens=jnp.full((batch_size, max_length), PAD, jnp.int32),
            lengths=jnp.zeros(batch_size, jnp.int32),
            scores=jnp.zeros(batch_size, jnp.float32),
            finished=jnp.zeros(batch_size, bool),
        ),
    )
    return jax.lax.while_loop(unfinished, decode_one, start).decoded


def beam_search(
    model: Seq2SeqModel,
    params: Params,
    memory: Memory,
    max_length: int,
    beam_size: int,
    length_penalty: float | jax.Array = 1.0,
) -> Decoded:
    """Searches for the hypotheses with the highest length-normalised log-probability.

        score(y) = sum_t log p(y_t | y_<t) / length(y)**length_penalty,   length includes EOS

    Each step ranks all continuations of the `beam_size` open hypotheses by log-probability (all
    have the same length). Among the first `beam_size` of them, those that end with EOS are finished
    and kept; the first `beam_size` of the others stay open. A row is done once `beam_size` are
    finished, and the finished ones are then ranked by score: the rule of fairseq (Ott et al. 2019,
    arXiv:1904.01038). So a beam of 1 is greedy decoding, whatever the length penalty, and a beam as
    wide as the number of possible hypotheses is an exhaustive search. The search does not stop
    earlier because of scores: with a length penalty a longer hypothesis can still win.

    Args:
      model: the pure functions.
      params: its parameters.
      memory: from `model.encode`, batch first in every leaf.
      max_length: maximum number of tokens in a hypothesis, including EOS; static.
      beam_size: how many hypotheses stay open, and how many are returned; static.
      length_penalty: >= 0; 0 ranks by log-probability, which favours short hypotheses, 1 by its
        mean over the tokens (Wu et al. 2016, arXiv:1609.08144, section 7, divide by
        ((5 + length) / 6)**length_penalty instead). An array may be traced, and is not checked.

    Returns:
      `Decoded` of [batch, beam_size] hypotheses, best first. If fewer than `beam_size` have
      finished by max_length, the best open ones, cut off there, follow after all finished ones. If
      fewer than `beam_size` hypotheses are possible, the rest are empty, with score -inf.

    Raises:
      ValueError: max_length or beam_size is below 1, or length_penalty is negative or not finite.
    """
    _check_at_least_1("max_length", max_length)
    _check_at_least_1("beam_size", beam_size)
    if not isinstance(length_penalty, jax.Array) and not 0 <= length_penalty < jnp.inf:
        raise ValueError(f"length_penalty must be finite and >= 0, not {length_penalty}")
    batch_size = _batch_size(memory)
    rows = jnp.arange(batch_size)[:, None]
    memory = jax.tree.map(lambda leaf: jnp.repeat(leaf, beam_size, axis=0), memory)

    class State(NamedTuple):
        step: jax.Array
        carry: Carry  # leaves [batch * beam, ...]
        fed: jax.Array  # [batch, beam]
        tokens: jax.Array  # [batch, beam, max_length] of the open hypotheses, best first
        log_probs: jax.Array  # [batch, beam] of the open hypotheses; -inf: none
        closed: Decoded  # [batch, beam], the finished ones, in the order of their finish

    def undone(state: State) -> jax.Array:
        return (state.step < max_length) & ~jnp.all(state.closed.finished)

    def extend(state: State) -> State:
        carry, logits = model.decode_step(params, memory, state.carry, state.fed.reshape(-1))
        # Twice beam_size continuations per hypothesis are enough: at most one of them ends in EOS.
        # Those of one hypothesis are ordered by logits: rounding can make log-probabilities equal.
        logits = logits.astype(jnp.float32)
        highest, tokens = jax.lax.top_k(logits, min(2 * beam_size, logits.shape[-1]))
        log_probs = highest - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        branches = tokens.shape[-1]
        log_probs = state.log_probs[:, :, None] + log_probs.reshape(batch_size, beam_size, branches)
        log_probs, best = jax.lax.top_k(log_probs.reshape(batch_size, -1), 2 * beam_size)
        tokens = tokens.reshape(batch_size, -1)[rows, best]
        parents = best // branches
        ended = tokens == EOS

        closes = ended[:, :beam_size] & (log_probs[:, :beam_size] > -jnp.inf)
        num_closed = jnp.sum(state.closed.finished, axis=1, keepdims=True)
        place = num_closed + jnp.cumsum(closes, axis=1) - 1
        place = jnp.where(closes, place, beam_size)  # out of bounds, so dropped
        length = state.step + 1
        closing = state.tokens[rows, parents[:, :beam_size]].at[:, :, state.step].set(EOS)
        closed = Decoded(
            tokens=state.closed.tokens.at[rows, place].set(closing, mode="drop"),
            lengths=state.closed.lengths.at[rows, place].set(length, mode="drop"),
            scores=state.closed.scores.at[rows, place].set(
                _normalise(log_probs[:, :beam_size], length, length_penalty), mode="drop"
            ),
            finished=state.closed.finished.at[rows, place].set(True, mode="drop"),
        )

        stays = jnp.argsort(ended, axis=1, stable=True)[:, :beam_size]
        parents, fed = parents[rows, stays], tokens[rows, stays]
        flat = (rows * beam_size + parents).reshape(-1)
        return State(
            step=length,
            carry=jax.tree.map(lambda leaf: leaf[flat], carry),
            fed=fed,
            tokens=state.tokens[rows, parents].at[:, :, state.step].set(fed),
            log_probs=log_probs[rows, stays],
            closed=closed,
        )

    shape = (batch_size, beam_size)
    no_tokens = jnp.full((*shape, max_length), PAD, jnp.int32)
    state = State(
        step=jnp.zeros((), jnp.int32),
        carry=model.initial_carry(params, memory, max_length),
        fed=jnp.full(shape, BOS, jnp.int32),
        tokens=no_tokens,
        log_probs=jnp.full(shape, -jnp.inf, jnp.float32).at[:, 0].set(0.0),  # one empty hypothesis
        closed=Decoded(
            tokens=no_tokens,
            lengths=jnp.zeros(shape, jnp.int32),
            scores=jnp.full(shape, -jnp.inf, jnp.float32),
            finished=jnp.zeros(shape, bool),
        ),
    )
    state = jax.lax.while_loop(undone, extend, state)

    # The finished ones by score, then the open ones in their order; a full beam needs no open one.
    exists = state.log_probs > -jnp.inf
    still_open = Decoded(
        tokens=jnp.where(exists[:, :, None], state.tokens, PAD),
        lengths=jnp.where(exists, max_length, 0).astype(jnp.int32),
        scores=_normalise(state.log_probs, max_length, length_penalty),
        finished=jnp.zeros(shape, bool),
    )
    both = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), state.closed, still_open)
    num_closed = jnp.sum(state.closed.finished, axis=1, keepdims=True)
    rank = jnp.arange(beam_size)[None]
    by_score = jnp.argsort(-state.closed.scores, axis=1, stable=True)
    order = jnp.where(rank < num_closed, by_score, beam_size + rank - num_closed)
    return jax.tree.map(lambda leaf: leaf[rows, order], both)


def _normalise(
    log_probs: jax.Array, length: int | jax.Array, length_penalty: float | jax.Array
) -> jax.Array:
    return log_probs / jnp.asarray(length, jnp.float32) ** length_penalty


def _batch_size(memory: Memory) -> int:
    return jax.tree.leaves(memory)[0].shape[0]


def _check_at_least_1(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
