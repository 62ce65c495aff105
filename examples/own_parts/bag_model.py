"""A model of one's own: the mean of the source, then a decaying sum of what was fed."""

from functools import partial

import jax
import jax.numpy as jnp

from s2s_jax.models.interface import Seq2SeqModel


def make(source_vocab_size, target_vocab_size, *, size=16, decay=0.5):
    """The functions of a model; `size` and `decay` are keys of the config."""

    def init(key):
        shapes = (source_vocab_size, size), (target_vocab_size, size), (size, target_vocab_size)
        keys = jax.random.split(key, 3)
        return [0.3 * jax.random.normal(*one) for one in zip(keys, shapes, strict=True)]

    def encode(params, source, source_mask, dropout_key):
        weights = source_mask / source_mask.sum(1, keepdims=True)
        return jnp.einsum("bs,bsh->bh", weights, params[0][source])

    def decode_step(params, memory, carry, token):
        carry = decay * carry + params[1][token]
        return carry, jnp.tanh(carry) @ params[2]

    def decode_sequence(params, memory, tokens):
        step = partial(decode_step, params, memory)
        return jax.lax.scan(step, memory, tokens.T)[1].swapaxes(0, 1)

    def initial_carry(params, memory, max_length):
        return memory

    parts = init, encode, initial_carry, decode_step, decode_sequence
    return Seq2SeqModel(*parts, vocab_size=target_vocab_size)
