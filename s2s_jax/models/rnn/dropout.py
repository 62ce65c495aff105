"""Dropout whose masks are drawn once a sequence, all of a model's at once."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax.models.rnn.options import RNNOptions


class DropoutMasks(NamedTuple):
    """Inverted dropout: 1 / (1 - rate) where kept, else 0; None where nothing is dropped.

    Attributes:
      source: [batch, embedding_size] of the source embeddings.
      encoder: one [batch, hidden_size] behind each encoder layer.
      target: [batch, embedding_size] of the target embeddings.
      decoder: one [batch, hidden_size] behind each decoder layer.
    """

    source: jax.Array | None
    encoder: tuple[jax.Array | None, ...]
    target: jax.Array | None
    decoder: tuple[jax.Array | None, ...]


def draw_dropout(key: jax.Array | None, options: RNNOptions, batch_size: int) -> DropoutMasks:
    """The masks of a call, each drawn once a sequence; without a key nothing is dropped."""
    num_encoder_masks = 1 + options.num_encoder_layers
    sizes = [options.embedding_size] + [options.hidden_size] * options.num_encoder_layers
    sizes += [options.embedding_size] + [options.hidden_size] * options.num_decoder_layers
    masks: list[jax.Array | None] = [None] * len(sizes)
    if key is not None and options.dropout > 0:
        keep = 1.0 - options.dropout
        # All at once: every call of the generator takes half a second to compile.
        drawn = jax.random.bernoulli(key, keep, (batch_size, sum(sizes)))
        ends = list(itertools.accumulate(sizes))
        masks = [*jnp.split(drawn.astype(options.dtype) / keep, ends[:-1], axis=1)]
    source, *encoder = masks[:num_encoder_masks]
    target, *decoder = masks[num_encoder_masks:]
    return DropoutMasks(source, tuple(encoder), target, tuple(decoder))


def drop(inputs: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Inputs [..., batch, size] times their mask [batch, size]."""
    return inputs if mask is None else inputs * mask
