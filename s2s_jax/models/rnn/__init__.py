"""The recurrent encoder-decoder with attention."""

from s2s_jax.models.rnn.functions import (
    make_rnn_model,
)

__all__ = [
    "make_rnn_model",
]
