"""The Transformer encoder-decoder as one module; see `functions.py` for its use.

The suffix of a name is its shape: B batch, T target time, S source time, H hidden_size.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from s2s_jax.models.embedding import look_up
from s2s_jax.models.initial_values import InitialValues
from s2s_jax.models.linear import compute_logits
from s2s_jax.models.transformer.dropout import draw_masks, drop, sequence_keys
from s2s_jax.models.transformer.layers import (
    CrossAttention,
    FeedForward,
    KeysValues,
    LayerNorm,
    SelfAttention,
    attend,
    attention_weights,
)
from s2s_jax.models.transformer.options import TransformerOptions
from s2s_jax.models.transformer.positions import rotate, sinusoids


class TransformerMemory(NamedTuple):
    """What the decoder reads; the first axis of every array is the batch.

    Attributes:
      source: of each decoder layer, the keys and values of the source.
      mask: [batch, source_time] bool.
      dropout_keys: [batch] typed keys of the decoder's dropout masks, or None.
    """

    source: tuple[KeysValues, ...]
    mask: jax.Array
    dropout_keys: jax.Array | None


class TransformerCarry(NamedTuple):
    """What the decoder passes on: the keys and values of the steps so far.

    Attributes:
      position: [batch] int32, how many tokens were fed; the same for all rows.
      layers: of each decoder layer, keys and values [batch, num_heads, max_length, head_size].
    """

    position: jax.Array
    layers: tuple[KeysValues, ...]


class EncoderLayer(nnx.Module):
    """Self-attention and a feed-forward network, each with a residual connection."""

    def __init__(self, options: TransformerOptions, values: InitialValues):
        size = options.hidden_size
        self.attention = SelfAttention(size, options.num_heads, values)
        self.feed_forward = FeedForward(size, options.mlp_size, options.activation, values)
        self.attention_norm, self.feed_forward_norm = LayerNorm(size), LayerNorm(size)


class DecoderLayer(nnx.Module):
    """An encoder layer with attention over the source in the middle."""

    def __init__(self, options: TransformerOptions, values: InitialValues):
        size = options.hidden_size
        self.attention = SelfAttention(size, options.num_heads, values)
        self.cross_attention = CrossAttention(size, options.num_heads, values)
        self.feed_forward = FeedForward(size, options.mlp_size, options.activation, values)
        self.attention_norm, self.feed_forward_norm = LayerNorm(size), LayerNorm(size)
        self.cross_attention_norm = LayerNorm(size)


class TransformerEncoderDecoder(nnx.Module):
    """The module that `make_transformer_model` uses; see there.

    Static values are in `options`; all other attributes are parameters or layers of parameters.
    """

    def __init__(self, options: TransformerOptions, values: InitialValues):
        self.options = options
        self.dtype = jnp.dtype(options.dtype)
        size = options.hidden_size

        def table(num_rows: int) -> nnx.Param[jax.Array]:
            return nnx.Param(size**-0.5 * values.normal(num_rows, size))

        self.target_embedding = table(options.target_vocab_size)
        if not options.share_embeddings:
            self.source_embedding = table(options.source_vocab_size)
        if options.positions == "learned":
            self.source_positions = table(options.max_length)
            self.target_positions = table(options.max_length)
        self.encoder = nnx.Dict(
            {
                f"layer_{layer}": EncoderLayer(options, values)
                for layer in range(options.num_encoder_layers)
            }
        )
        self.decoder = nnx.Dict(
            {
                f"layer_{layer}": DecoderLayer(options, values)
                for layer in range(options.num_decoder_layers)
            }
        )
        if options.norm == "pre":
            self.encoder_norm, self.decoder_norm = LayerNorm(size), LayerNorm(size)
        if not options.tie_embeddings:
            # Small, so that an untrained model gives every token nearly the same probability.
            kernel = values.normal(size, options.target_vocab_size) / size
            self.output_kernel = nnx.Param(kernel)
        self.output_bias = nnx.Param(jnp.zeros(options.target_vocab_size))

    def encode(
        self, source: jax.Array, source_mask: jax.Array, dropout_key: jax.Array | None
    ) -> TransformerMemory:
        """See `Seq2SeqModel.encode`."""
        batch_size, time = source.shape
        self._check_length("source", time)
        source_keys = target_keys = None
        if dropout_key is not None and self.options.dropout > 0:
            source_keys, target_keys = (
                sequence_keys(jax.random.fold_in(dropout_key, side), batch_size) for side in (0, 1)
            )
        positions = jnp.arange(time)
        table = self.target_embedding if self.options.share_embeddings else self.source_embedding
        masks = self._masks(source_keys, positions, 1 + 2 * self.options.num_encoder_layers)
        embedded = look_up(table[...], source, self.dtype)
        states = self._place(embedded, positions, next(masks), of_source=True)
        mask = source_mask[:, None, None]
        for layer in self.encoder.values():

            def of_itself(states: jax.Array, attention: SelfAttention = layer.attention):
                queries, known = self._project(attention, states, positions)
                return attention.output(attend(queries, known, mask))

            states = self._add(states, layer.attention_norm, of_itself, next(masks))
            states = self._add(states, layer.feed_forward_norm, layer.feed_forward, next(masks))
        if self.options.norm == "pre":
            states = self.encoder_norm(states)
        known = tuple(layer.cross_attention.read(states) for layer in self.decoder.values())
        return TransformerMemory(known, source_mask, target_keys)

    def initial_carry(self, memory: TransformerMemory, max_length: int) -> TransformerCarry:
        """See `Seq2SeqModel.initial_carry`."""
        self._check_length("target", max_length)
        batch_size, options = len(memory.mask), self.options
        shape = batch_size, options.num_heads, max_length, options.head_size
        empty = KeysValues(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype))
        return TransformerCarry(
            jnp.zeros(batch_size, jnp.int32), (empty,) * options.num_decoder_layers
        )

    def decode_step(
        self, memory: TransformerMemory, carry: TransformerCarry, token: jax.Array
    ) -> tuple[TransformerCarry, jax.Array]:
        """See `Seq2SeqModel.decode_step`."""
        return self.vector_step(
            memory, carry, look_up(self.target_embedding[...], token, self.dtype)
        )

    def vector_step(
        self, memory: TransformerMemory, carry: TransformerCarry, vectors: jax.Array
    ) -> tuple[TransformerCarry, jax.Array]:
        """See `Vectors.step`."""
        position = carry.position[0]
        max_length = carry.layers[0].keys.shape[2]
        mask = jnp.arange(max_length) <= position
        layers = iter(carry.layers)
        new_layers: list[KeysValues] = []

        def remember(known: KeysValues) -> KeysValues:
            kept = KeysValues(
                *(
                    jax.lax.dynamic_update_slice_in_dim(array, new, position, axis=2)
                    for array, new in zip(next(layers), known, strict=True)
                )
            )
            new_layers.append(kept)
            return kept

        embedded = vectors.astype(self.dtype)[:, None]
        states = self._decode(memory, embedded, position[None], mask, remember)
        logits = compute_logits(states[:, 0], *self.output_layer())
        return TransformerCarry(carry.position + 1, tuple(new_layers)), logits

    def decode_sequence(self, memory: TransformerMemory, tokens: jax.Array) -> jax.Array:
        """See `Seq2SeqModel.decode_sequence`."""
        return compute_logits(self._features(memory, tokens), *self.output_layer())

    def features(self, memory: TransformerMemory, tokens: jax.Array) -> jax.Array:
        """See `Features.sequence`."""
        return self._features(memory, tokens.T).swapaxes(0, 1)

    def vector_features(self, memory: TransformerMemory, vectors: jax.Array) -> jax.Array:
        """See `Vectors.sequence`."""
        embedded = vectors.swapaxes(0, 1).astype(self.dtype)
        return self._read_all(memory, embedded).swapaxes(0, 1)

    def target_table(self) -> jax.Array:
        """See `Vectors.table`."""
        return self.target_embedding[...]

    def output_layer(self) -> tuple[jax.Array, jax.Array]:
        """See `Features.output`."""
        if self.options.tie_embeddings:  # scaled for small logits, as the embeddings are for inputs
            kernel = self.target_embedding[...].T * self.options.hidden_size**-0.5
        else:
            kernel = self.output_kernel[...]
        return kernel.astype(self.dtype), self.output_bias[...]

    def attention_weights(self, memory: TransformerMemory, tokens: jax.Array) -> jax.Array:
        """See `Seq2SeqModel.attention_weights`: the last layer's, their mean over the heads."""
        weights: list[jax.Array] = []
        self._features(memory, tokens, weights)
        return weights[-1].mean(1)

    def _features(
        self,
        memory: TransformerMemory,
        tokens_BxT: jax.Array,
        weights: list[jax.Array] | None = None,
    ) -> jax.Array:
        embedded = look_up(self.target_embedding[...], tokens_BxT, self.dtype)
        return self._read_all(memory, embedded, weights)

    def _read_all(
        self,
        memory: TransformerMemory,
        embedded_BxTxH: jax.Array,
        weights: list[jax.Array] | None = None,
    ) -> jax.Array:
        """All decoder layers on a whole sequence, without a cache."""
        time = embedded_BxTxH.shape[1]
        self._check_length("target", time)
        mask, positions = jnp.tri(time, dtype=bool), jnp.arange(time)
        return self._decode(memory, embedded_BxTxH, positions, mask, lambda known: known, weights)

    def _decode(
        self,
        memory: TransformerMemory,
        embedded_BxTxH: jax.Array,
        positions_T: jax.Array,
        mask: jax.Array,
        remember: Callable[[KeysValues], KeysValues],
        weights: list[jax.Array] | None = None,
    ) -> jax.Array:
        """All decoder layers, for a whole sequence or one step.

        Args:
          memory: of the batch.
          embedded_BxTxH: the embeddings of what is fed.
          positions_T: of the target.
          mask: which keys each query attends to, broadcast to [T, number of keys].
          remember: a layer's new keys and values -> all that its queries attend to.
          weights: receives each layer's attention weights over the source.

        Returns:
          The inputs of the output layer, [B, T, H].
        """
        masks = self._masks(
            memory.dropout_keys, positions_T, 1 + 3 * self.options.num_decoder_layers
        )
        states = self._place(embedded_BxTxH, positions_T, next(masks), of_source=False)
        source_mask = memory.mask[:, None, None]
        for layer, source in zip(self.decoder.values(), memory.source, strict=True):

            def of_itself(states: jax.Array, attention: SelfAttention = layer.attention):
                queries, known = self._project(attention, states, positions_T)
                return attention.output(attend(queries, remember(known), mask))

            def of_source(
                states: jax.Array,
                attention: CrossAttention = layer.cross_attention,
                source: KeysValues = source,
            ):
                queries = attention.queries(states)
                if weights is not None:
                    weights.append(attention_weights(queries, source.keys, source_mask))
                return attention.output(attend(queries, source, source_mask))

            states = self._add(states, layer.attention_norm, of_itself, next(masks))
            states = self._add(states, layer.cross_attention_norm, of_source, next(masks))
            states = self._add(states, layer.feed_forward_norm, layer.feed_forward, next(masks))
        return self.decoder_norm(states) if self.options.norm == "pre" else states

    def _project(
        self, attention: SelfAttention, states: jax.Array, positions: jax.Array
    ) -> tuple[jax.Array, KeysValues]:
        queries, (keys, values) = attention.project(states)
        if self.options.positions == "rotary":
            queries, keys = rotate(queries, positions), rotate(keys, positions)
        return queries, KeysValues(keys, values)

    def _place(
        self, embedded: jax.Array, positions: jax.Array, mask: jax.Array | None, of_source: bool
    ) -> jax.Array:
        """Embeddings [B, time, H] at their positions; the scale gives them a variance of 1."""
        states = embedded * self.options.hidden_size**0.5
        if self.options.positions == "sinusoidal":
            states += sinusoids(positions, self.options.hidden_size).astype(states.dtype)
        elif self.options.positions == "learned":
            table = self.source_positions if of_source else self.target_positions
            states += table[...][positions].astype(states.dtype)
        return drop(states, mask, self.options.dropout)

    def _add(
        self,
        states: jax.Array,
        norm: LayerNorm,
        transform: Callable[[jax.Array], jax.Array],
        mask: jax.Array | None,
    ) -> jax.Array:
        """A residual connection around what changes the states, normalised before or after it."""
        if self.options.norm == "pre":
            return states + drop(transform(norm(states)), mask, self.options.dropout)
        return norm(states + drop(transform(states), mask, self.options.dropout))

    def _masks(
        self, keys: jax.Array | None, positions: jax.Array, count: int
    ) -> Iterator[jax.Array | None]:
        """Several dropout masks [B, time, H], in the order in which they are used."""
        if keys is None:
            return iter([None] * count)
        size, rate = self.options.hidden_size, self.options.dropout
        return iter(jnp.split(draw_masks(keys, positions, count * size, rate), count, axis=-1))

    def _check_length(self, side: str, length: int) -> None:
        if self.options.positions == "learned" and length > self.options.max_length:
            raise ValueError(
                f"a {side} of {length} tokens is longer than max_length, {self.options.max_length},"
                " for which positions are learned"
            )
