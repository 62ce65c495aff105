"""How the models of `s2s verify` are trained to convergence."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from s2s_jax.batch import NUM_RESERVED
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.models.rnn.functions import make_rnn_model
from s2s_jax.models.tabular import make_tabular_model
from s2s_jax.models.transformer import make_transformer_model

_NEVER = -1e3  # a logit of probability 0


@dataclass(frozen=True)
class Recipe:
    """How a kind of model is trained to convergence.

    Attributes:
      make_model: (num_symbols, length, first_id) -> model; the target id of symbol 0 is first_id.
      first_id: the lowest first_id that the model can have.
      num_rows: number of sequences in a batch.
      num_steps: number of updates.
      learning_rate: of Adam.
      decay: fraction of the learning rate that is left at the end.
      averaged: fraction of the updates, at the end, whose parameters are averaged.
      q_tolerance: how far a q may be from the predicted one, unless chance alone allows for more.
      kl_tolerance: how far the divergence may be from the predicted one, in nats.
      cost_tolerance: how far the expected cost may be from the predicted one.
    """

    make_model: Callable[[int, int, int], Seq2SeqModel]
    first_id: int
    num_rows: int
    num_steps: int
    learning_rate: float
    decay: float
    averaged: float
    q_tolerance: float
    kl_tolerance: float
    cost_tolerance: float = 0.01


def _make_lstm(num_symbols: int, length: int, first_id: int) -> Seq2SeqModel:
    return make_rnn_model(
        NUM_RESERVED,
        first_id + num_symbols,
        hidden_size=16,
        embedding_size=8,
        bidirectional=False,
        attention="none",
    )


def _make_transformer(num_symbols: int, length: int, first_id: int) -> Seq2SeqModel:
    return make_transformer_model(
        NUM_RESERVED,
        first_id + num_symbols,
        hidden_size=16,
        num_heads=2,
        mlp_size=32,
        num_encoder_layers=1,
        num_decoder_layers=1,
        dropout=0.0,
    )


def make_symbol_table(num_symbols: int, length: int, first_id: int) -> Seq2SeqModel:
    """Makes a tabular model that knows nothing but symbols; all ids below first_id have no chance.

    So it has a row for every sequence of symbols, and no rows for other ids.

    Args:
      num_symbols: number of symbols.
      length: symbols in a sequence.
      first_id: the target id of symbol 0; 0 for `make_tabular_model` itself.

    Example:
      >>> model = make_symbol_table(num_symbols=2, length=3, first_id=4)
      >>> params = model.init(jax.random.key(0))
      >>> _, logits = model.decode_step(params, None, jnp.array([-1]), jnp.array([1]))
      >>> params.shape, jax.nn.softmax(logits).tolist()
      ((7, 2), [[0.0, 0.0, 0.0, 0.0, 0.5, 0.5]])
    """
    table = make_tabular_model(num_symbols, num_symbols, length=length)

    def widen(logits: jax.Array) -> jax.Array:
        before = [(0, 0)] * (logits.ndim - 1) + [(first_id, 0)]
        return jnp.pad(logits, before, constant_values=_NEVER)

    def decode_step(params, memory, carry, token):
        carry, logits = table.decode_step(params, memory, carry, token - first_id)
        return carry, widen(logits)

    def decode_sequence(params, memory, tokens):
        return widen(table.decode_sequence(params, memory, tokens - first_id))

    return dataclasses.replace(
        table,
        decode_step=decode_step,
        decode_sequence=decode_sequence,
        vocab_size=first_id + num_symbols,
    )


RECIPES = {
    "tabular": Recipe(
        make_symbol_table,
        first_id=0,
        num_rows=10_000,
        num_steps=2000,
        learning_rate=0.1,
        decay=0.02,
        averaged=0.8,
        q_tolerance=2e-3,
        kl_tolerance=2e-3,
    ),
    "lstm": Recipe(
        _make_lstm,
        first_id=NUM_RESERVED,
        num_rows=500,
        num_steps=1000,
        learning_rate=0.02,
        decay=0.01,
        averaged=0.2,
        q_tolerance=0.03,
        kl_tolerance=0.01,
    ),
}
RECIPES["transformer"] = dataclasses.replace(
    RECIPES["lstm"], make_model=_make_transformer, learning_rate=0.01
)
"""The models that can be verified. A network's q is only judged if the KL is not identified."""

LIGHT_RECIPES = {
    "tabular": dataclasses.replace(RECIPES["tabular"], num_rows=5000, num_steps=1000),
    "lstm": dataclasses.replace(RECIPES["lstm"], num_rows=1000),
    "transformer": dataclasses.replace(RECIPES["transformer"], num_rows=1000),
}
"""The same for the other methods: less work on tables, and more on networks that are fed noise."""

QUICK_RECIPES = {
    "tabular": dataclasses.replace(RECIPES["tabular"], num_rows=500, num_steps=500, averaged=0.2),
    "lstm": dataclasses.replace(RECIPES["lstm"], num_steps=500),
    "transformer": dataclasses.replace(RECIPES["transformer"], num_steps=500),
}
"""For methods whose optimum is free of noise, because all targets, or all samples, are the same."""
