"""How the models of `s2s verify` are trained to convergence."""

from collections.abc import Callable
from dataclasses import dataclass

from s2s_jax.batch import NUM_RESERVED
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.models.rnn.functions import make_rnn_model
from s2s_jax.models.tabular import make_tabular_model


@dataclass(frozen=True)
class Recipe:
    """How a kind of model is trained to convergence.

    Attributes:
      make_model: (num_symbols, length) -> model.
      first_id: the target id of symbol 0.
      num_rows: number of sequences in a batch.
      num_steps: number of updates.
      learning_rate: of Adam.
      decay: fraction of the learning rate that is left at the end.
      averaged: fraction of the updates, at the end, whose parameters are averaged.
      q_tolerance: how far a q may be from the predicted one, unless chance alone allows for more.
      kl_tolerance: how far the divergence may be from the predicted one, in nats.
    """

    make_model: Callable[[int, int], Seq2SeqModel]
    first_id: int
    num_rows: int
    num_steps: int
    learning_rate: float
    decay: float
    averaged: float
    q_tolerance: float
    kl_tolerance: float


def _make_lstm(num_symbols: int, length: int) -> Seq2SeqModel:
    return make_rnn_model(
        NUM_RESERVED,
        NUM_RESERVED + num_symbols,
        hidden_size=16,
        embedding_size=8,
        bidirectional=False,
        attention="none",
    )


def _make_table(num_symbols: int, length: int) -> Seq2SeqModel:
    return make_tabular_model(num_symbols, num_symbols, length=length)


RECIPES = {
    "tabular": Recipe(
        _make_table,
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
"""The models that can be verified. The LSTM's q is only judged if the KL is not identified."""
