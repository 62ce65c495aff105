"""Dropout with masks that are drawn once per sequence, all masks of a model in one draw."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax.models.rnn.options import RNNOptions


class DropoutMasks(NamedTuple):
    """Inverted dropout: 1 / (1 - rate) where kept, else 0; None for no dropout.

    Attributes:
      source: [batch, embedding_size], for the source embeddings.
      encoder: one [batch, hidden_size] for the output of each encoder layer.
      target: [batch, embedding_size], for the target embeddings.
      decoder: one [batch, hidden_size] for the output of each decoder layer.
    """

    source: jax.Array | None
    encoder: tuple[jax.Array | None, ...]
    target: jax.Array | None
    decoder: tuple[jax.Array | None, ...]


def draw_dropout(key: jax.Array | None, options: RNNOptions, batch_size: int) -> DropoutMasks:
    """Draws all masks, once per sequence; without a key there is no dropout."""
    num_encoder_masks = 1 + options.num_encoder_layers
    sizes = [options.embedding_size] + [options.hidden_size] * options.num_encoder_layers
    sizes += [options.embedding_size] + [options.hidden_size] * options.num_decoder_layers
    masks: list[jax.Array | None] = [None] * len(sizes)
    if key is not None and options.dropout > 0:
        keep = 1.0 - options.dropout
        # In one draw, because every call of the generator takes half a second to compile.
        drawn = jax.random.bernoulli(key, keep, (batch_size, sum(sizes)))
        ends = list(itertools.accumulate(sizes))
        masks = [*jnp.split(drawn.astype(options.dtype) / keep, ends[:-1], axis=1)]
    source, *encoder = masks[:num_encoder_masks]
    target, *decoder = masks[num_encoder_masks:]
    return DropoutMasks(source, tuple(encoder), target, tuple(decoder))


def drop(inputs: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Inputs [..., batch, size] times their mask [batch, size]."""
    return inputs if mask is None else inputs * mask
