"""The Transformer encoder-decoder."""

from s2s_jax.models.transformer.functions import (
    make_transformer_model,
)

__all__ = [
    "make_transformer_model",
]
