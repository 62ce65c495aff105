"""The truth as a teacher, for tasks whose targets are sampled from a known chain of symbols."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.batch import EOS
from s2s_jax.objectives.distillation import Teacher

_LOWEST = 1e-9
"""Stands for a probability of 0, whose logarithm would make other divergences infinite."""

_matmul = partial(jnp.matmul, precision="highest")


class _Chain(NamedTuple):
    """Where the chain of each row is.

    Attributes:
      belief: [batch, num_states], of the state that emits the next symbol.
      told: [batch, length] the symbols that the source reveals, -1 where hidden.
      after: [batch, length, num_states], P(what the source reveals after step t | s_t), up to a
        factor.
      num_symbols: [batch] int32, symbols so far.
    """

    belief: jax.Array
    told: jax.Array
    after: jax.Array
    num_symbols: jax.Array


def make_chain_teacher(
    initial: ArrayLike,
    transition: ArrayLike,
    emission: ArrayLike,
    length: int,
    *,
    source_symbols: ArrayLike,
    target_ids: ArrayLike,
    vocab_size: int,
) -> Teacher:
    """Makes a teacher that knows P(y_{t+1} | y_1 ... y_t, what the source reveals), for any prefix.

    After `length` symbols comes the end symbol. A symbol that is impossible at its place makes the
    earlier ones irrelevant, as in `s2s_jax.theory.chains.observe`; an id that is no symbol does not
    change what is believed.

    Args:
      initial: [num_states] probabilities of the first state.
      transition: [num_states, num_states].
      emission: [num_states, num_symbols]; the identity for a Markov chain.
      length: symbols in a target.
      source_symbols: [source_vocab_size], the symbol that a source id reveals of the target at the
        same place, -1 if none.
      target_ids: [num_symbols], the target id of each symbol.
      vocab_size: number of target ids.

    Example:
      >>> teacher = make_chain_teacher(
      ...     (0.7, 0.3), ((0.9, 0.1), (0.2, 0.8)), np.eye(2), 3,
      ...     source_symbols=[-1] * 5, target_ids=[4, 5], vocab_size=6,
      ... )
      >>> state = teacher.begin(jnp.array([[4, 2]]), jnp.ones((1, 2), bool), 2)
      >>> for token in (1, 5):  # the start symbol, then a symbol
      ...     state, logits = teacher.step(state, jnp.array([token]))
      >>> [round(float(prob), 3) for prob in jax.nn.softmax(logits)[0, 4:]]
      [0.2, 0.8]
    """
    start, move, emit = (
        jnp.asarray(np.asarray(one), jnp.float32) for one in (initial, transition, emission)
    )
    revealed, ids = jnp.asarray(source_symbols, jnp.int32), jnp.asarray(target_ids, jnp.int32)
    number_of = jnp.full(vocab_size, -1).at[ids].set(jnp.arange(len(ids)))

    def likelihood(symbol: jax.Array) -> jax.Array:
        """P(symbol | state): [batch, num_states]; 1 for symbol -1."""
        return jnp.where(symbol[:, None] < 0, 1.0, emit.T[symbol])

    def begin(source: jax.Array, source_mask: jax.Array, max_length: int) -> _Chain:
        told = jnp.where(source_mask, revealed[source], -1)[:, :length]
        told = jnp.pad(told, ((0, 0), (0, length - told.shape[1])), constant_values=-1)

        def earlier(after: jax.Array, symbol: jax.Array) -> tuple[jax.Array, jax.Array]:
            ahead = _matmul(likelihood(symbol) * after, move.T)
            return ahead / jnp.maximum(ahead.max(-1, keepdims=True), 1e-30), after

        ones = jnp.ones((len(source), len(start)))
        _, after = jax.lax.scan(earlier, ones, told.T, reverse=True)
        belief = jnp.broadcast_to(start, ones.shape)
        return _Chain(belief, told, after.swapaxes(0, 1), jnp.full(len(source), -1))

    def step(state: _Chain, token: jax.Array) -> tuple[_Chain, jax.Array]:
        symbol = jnp.where((token >= 0) & (token < vocab_size), number_of[token], -1)
        fits = likelihood(symbol)
        joint = state.belief * fits
        joint = jnp.where(joint.sum(-1, keepdims=True) > 0, joint, fits)
        joint = jnp.where(joint.sum(-1, keepdims=True) > 0, joint, state.belief)
        seen = _matmul(joint / joint.sum(-1, keepdims=True), move)
        is_first = state.num_symbols < 0  # the start symbol
        belief = jnp.where(is_first[:, None], state.belief, seen)
        number = state.num_symbols + 1
        here = jnp.clip(number, 0, length - 1)[:, None]
        told = jnp.take_along_axis(state.told, here, axis=1)[:, 0]
        after = jnp.take_along_axis(state.after, here[..., None], axis=1)[:, 0]
        only = jnp.where(told[:, None] < 0, 1.0, jnp.eye(len(ids))[told])
        informed = _matmul(belief * after, emit) * only
        blind = jnp.where(told[:, None] < 0, _matmul(belief, emit), only)
        probs = jnp.where(informed.sum(-1, keepdims=True) > 0, informed, blind)
        probs /= probs.sum(-1, keepdims=True)
        ended = (number >= length)[:, None]
        everywhere = (
            jnp.zeros((len(token), vocab_size)).at[:, ids].set(jnp.where(ended, 0.0, probs))
        )
        everywhere = everywhere.at[:, EOS].add(jnp.where(ended[:, 0], 1.0, 0.0))
        return state._replace(belief=belief, num_symbols=number), jnp.log(
            jnp.maximum(everywhere, _LOWEST)
        )

    return Teacher(begin, step, vocab_size, is_truth=True)
