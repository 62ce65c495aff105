"""The recurrent encoder-decoder with attention, as one module; see `functions.py` for its use."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from s2s_jax.models.initial_values import InitialValues
from s2s_jax.models.linear import compute_logits, linear, weights_gradient
from s2s_jax.models.replays import refuse_second_derivatives
from s2s_jax.models.rnn.attention import Attention
from s2s_jax.models.rnn.dropout import draw_dropout, drop
from s2s_jax.models.rnn.embedding import project_tokens
from s2s_jax.models.rnn.options import RNNOptions
from s2s_jax.models.rnn.recurrent import RecurrentCarry, RecurrentLayer, RecurrentTrace


class RNNMemory(NamedTuple):
    """What the decoder reads; every array is [batch, ...].

    Attributes:
      encoded: [batch, source_time, hidden_size] encoder states; None without attention.
      keys: the same, projected for the attention scores; None without attention.
      mask: [batch, source_time] bool.
      start: the initial carries of the decoder layers.
      token_mask: [batch, embedding_size] dropout mask of the target embeddings, or None.
      layer_masks: for each decoder layer the [batch, hidden_size] dropout mask of its output, or
        None.
    """

    encoded: jax.Array | None
    keys: jax.Array | None
    mask: jax.Array
    start: tuple[RecurrentCarry, ...]
    token_mask: jax.Array | None
    layer_masks: tuple[jax.Array | None, ...]


class RNNCarry(NamedTuple):
    """What the decoder passes on: its layers' carries and, with input feeding, its output.

    Attributes:
      layers: one recurrent carry per layer.
      attended: [batch, hidden_size], the attentional vector of the previous step; None without
        input feeding.
    """

    layers: tuple[RecurrentCarry, ...]
    attended: jax.Array | None


class RNNEncoderDecoder(nnx.Module):
    """The module that `make_rnn_model` uses; see there.

    Static values are in `options`; all other attributes are parameters or layers of parameters.
    """

    def __init__(self, options: RNNOptions, values: InitialValues):
        self.options = options
        self.dtype = jnp.dtype(options.dtype)
        hidden_size, embedding_size = options.hidden_size, options.embedding_size
        self.source_embedding, self.target_embedding = (
            nnx.Param(embedding_size**-0.5 * values.normal(vocab_size, embedding_size))
            for vocab_size in (options.source_vocab_size, options.target_vocab_size)
        )
        width = hidden_size // len(options.directions)
        self.encoder = nnx.Dict(
            {
                f"{direction}_{layer}": RecurrentLayer(
                    options.cell, hidden_size if layer else embedding_size, width, values
                )
                for layer in range(options.num_encoder_layers)
                for direction in options.directions
            }
        )
        first_size = embedding_size + (hidden_size if options.input_feeding else 0)
        self.decoder = nnx.Dict(
            {
                f"layer_{layer}": RecurrentLayer(
                    options.cell, hidden_size if layer else first_size, hidden_size, values
                )
                for layer in range(options.num_decoder_layers)
            }
        )
        # The decoder starts from the last encoder layer's final states, layer by layer.
        num_states = 2 if options.cell == "lstm" else 1
        self.bridge = nnx.Dict(
            {
                f"layer_{layer}": nnx.Param(
                    values.glorot_uniform(num_states, hidden_size, hidden_size)
                )
                for layer in range(options.num_decoder_layers)
            }
        )
        if options.attention != "none":
            self.attention = Attention(options.attention, hidden_size, values)
            self.combine_kernel = nnx.Param(values.glorot_uniform(2 * hidden_size, hidden_size))
        else:
            self.attention = None
        if not options.tie_embeddings:
            self.output_kernel = nnx.Param(
                values.glorot_uniform(hidden_size, options.target_vocab_size)
            )
        self.output_bias = nnx.Param(jnp.zeros(options.target_vocab_size))

    def encode(
        self, source: jax.Array, source_mask: jax.Array, dropout_key: jax.Array | None
    ) -> RNNMemory:
        """See `Seq2SeqModel.encode`."""
        batch_size = source.shape[0]
        masks = draw_dropout(dropout_key, self.options, batch_size)
        mask_SxB = source_mask.T
        inputs = None
        finals: list[RecurrentCarry] = []
        for layer in range(self.options.num_encoder_layers):
            finals, outputs = [], []
            for direction in self.options.directions:
                recurrent = self.encoder[f"{direction}_{layer}"]
                if inputs is None:
                    table = self.source_embedding[...]
                    projected = project_tokens(recurrent, table, source.T, masks.source, self.dtype)
                else:
                    projected = recurrent.project(inputs)
                final, output = recurrent.unroll(
                    recurrent.zero_carry(batch_size, self.dtype),
                    projected,
                    mask_SxB,
                    reverse=direction == "backward",
                )
                finals.append(final)
                outputs.append(output)
            inputs = drop(jnp.concatenate(outputs, axis=-1), masks.encoder[layer])
        assert inputs is not None  # there is at least one layer
        final_states = [jnp.concatenate(states, axis=-1) for states in zip(*finals, strict=True)]
        start = tuple(
            tuple(
                jnp.tanh(linear(state, kernel))
                for state, kernel in zip(
                    final_states,
                    self.bridge[f"layer_{layer}"][...].astype(self.dtype),
                    strict=True,
                )
            )
            for layer in range(self.options.num_decoder_layers)
        )
        encoded = keys = None
        if self.attention is not None:
            encoded = inputs.swapaxes(0, 1)
            keys = self.attention.keys(encoded)
        return RNNMemory(encoded, keys, source_mask, start, masks.target, masks.decoder)

    def initial_carry(self, memory: RNNMemory) -> RNNCarry:
        """See `Seq2SeqModel.initial_carry`."""
        attended = jnp.zeros_like(memory.start[0][0]) if self.options.input_feeding else None
        return RNNCarry(memory.start, attended)

    def decode_step(
        self, memory: RNNMemory, carry: RNNCarry, token: jax.Array
    ) -> tuple[RNNCarry, jax.Array]:
        """See `Seq2SeqModel.decode_step`."""
        carry, features, _ = self.trace_step(memory, carry, token)
        return carry, self._logits(features)

    def vector_step(
        self, memory: RNNMemory, carry: RNNCarry, vectors: jax.Array
    ) -> tuple[RNNCarry, jax.Array]:
        """See `Vectors.step`."""
        projected = self._project_vectors(memory, vectors)
        carry, state, _ = self._advance(memory, carry, projected)
        features = (
            self._attend(memory, state[None])[0] if carry.attended is None else carry.attended
        )
        return carry, self._logits(features)

    def vector_features(self, memory: RNNMemory, vectors: jax.Array) -> jax.Array:
        """See `Vectors.sequence`."""
        return self._features(memory, self._project_vectors(memory, vectors))

    def decode_sequence(self, memory: RNNMemory, tokens: jax.Array) -> jax.Array:
        """See `Seq2SeqModel.decode_sequence`."""
        return self._logits(self.features(memory, tokens.T).swapaxes(0, 1))

    def features(self, memory: RNNMemory, tokens: jax.Array) -> jax.Array:
        """See `Features.sequence`."""
        return self._features(memory, self._project_target(memory, tokens))

    def trace_step(
        self, memory: RNNMemory, carry: RNNCarry, token: jax.Array
    ) -> tuple[RNNCarry, jax.Array, tuple[RecurrentTrace, ...]]:
        """See `Replay.step`."""
        projected = self._project_target(memory, token)
        carry, state, traces = self._advance(memory, carry, projected)
        if carry.attended is not None:
            return carry, carry.attended, traces
        return carry, self._attend(memory, state[None])[0], traces

    def trace_sequence(
        self, memory: RNNMemory, tokens: jax.Array
    ) -> tuple[jax.Array, tuple[RecurrentTrace, ...]]:
        """See `Replay.sequence`."""
        traces: list[RecurrentTrace] = []

        def scan(layer: RecurrentLayer, start: RecurrentCarry, projected: jax.Array) -> jax.Array:
            traces.append(layer.scan(start, projected)[1])
            return traces[-1].output

        states = self._through_layers(memory, self._project_target(memory, tokens), scan)
        return self._attend(memory, states), tuple(traces)

    def replay(
        self,
        memory: RNNMemory,
        tokens: jax.Array,
        features: jax.Array,
        traces: tuple[RecurrentTrace, ...],
    ) -> jax.Array:
        """See `Replay.replay`."""
        of_layers = iter(traces)
        states = self._through_layers(
            memory,
            self._project_target(memory, tokens),
            lambda layer, start, projected: layer.replay(start, projected, next(of_layers)),
        )
        return self._attend(memory, states, features)

    def target_table(self) -> jax.Array:
        """See `Vectors.table`."""
        return self.target_embedding[...]

    def output_layer(self) -> tuple[jax.Array, jax.Array]:
        """See `Replay.output`."""
        kernel = (
            self.target_embedding[...].T if self.options.tie_embeddings else self.output_kernel[...]
        )
        return kernel.astype(self.dtype), self.output_bias[...]

    def attention_weights(self, memory: RNNMemory, tokens: jax.Array) -> jax.Array:
        """See `Seq2SeqModel.attention_weights`."""
        assert self.attention is not None
        assert memory.keys is not None
        states, _ = self._unroll(memory, self._project_target(memory, tokens.T))
        return self.attention.weights(states.swapaxes(0, 1), memory.keys, memory.mask)

    def _project_target(self, memory: RNNMemory, tokens: jax.Array) -> jax.Array:
        """The first decoder layer's projection of tokens [..., batch]."""
        return project_tokens(
            self.decoder["layer_0"],
            self.target_embedding[...],
            tokens,
            memory.token_mask,
            self.dtype,
        )

    def _project_vectors(self, memory: RNNMemory, vectors: jax.Array) -> jax.Array:
        """The same projection of vectors [..., batch, embedding_size]."""
        inputs = drop(vectors.astype(self.dtype), memory.token_mask)
        return self.decoder["layer_0"].project(inputs, slice(self.options.embedding_size))

    def _advance(
        self, memory: RNNMemory, carry: RNNCarry, projected: jax.Array
    ) -> tuple[RNNCarry, jax.Array, tuple[RecurrentTrace, ...]]:
        """One step of all layers, from the first one's projected token.

        Returns:
          The new carry, the last layer's state [batch, hidden_size], and each layer's trace.
        """
        if carry.attended is not None:
            fed_back = slice(self.options.embedding_size, None)
            projected = projected + self.decoder["layer_0"].project(
                carry.attended, rows=fed_back, bias=False
            )
        carries: list[RecurrentCarry] = []
        traces: list[RecurrentTrace] = []
        state = projected
        for layer in range(self.options.num_decoder_layers):
            recurrent = self.decoder[f"layer_{layer}"]
            projected = recurrent.project(state) if layer else projected
            new, trace = recurrent.step(carry.layers[layer], projected)
            carries.append(new)
            traces.append(trace)
            state = drop(trace.output, memory.layer_masks[layer])
        attended = None
        if carry.attended is not None:
            attended = self._attend(memory, state[None])[0]
        return RNNCarry(tuple(carries), attended), state, tuple(traces)

    def _unroll(
        self, memory: RNNMemory, projected: jax.Array
    ) -> tuple[jax.Array, jax.Array | None]:
        """The last layer's states, and with input feeding the attentional vectors.

        Without input feeding, all inputs of a layer are known before its scan, so one large product
        is followed by a scan of only the recurrence. With input feeding, the attention of a step is
        part of the next step's input and stays inside the scan; only the projection of the
        embeddings is taken out.

        Args:
          memory: of the batch.
          projected: [time, batch, ...], the first layer's projections of what is fed.

        Returns:
          Both [time, batch, hidden_size].
        """
        if not self.options.input_feeding:
            return self._through_layers(
                memory, projected, lambda layer, start, inputs: layer.unroll(start, inputs)[1]
            ), None

        def step(carry: RNNCarry, projected: jax.Array):
            carry, state, _ = self._advance(memory, carry, projected)
            return carry, (state, carry.attended)

        return jax.lax.scan(step, self.initial_carry(memory), projected)[1]

    def _through_layers(
        self,
        memory: RNNMemory,
        projected: jax.Array,
        scan: Callable[[RecurrentLayer, RecurrentCarry, jax.Array], jax.Array],
    ) -> jax.Array:
        """All decoder layers, one after another.

        Args:
          memory: of the batch.
          projected: the first layer's projections of what is fed.
          scan: (layer, its initial carry, its projected inputs) -> its states; [time, batch, ...].

        Returns:
          The last layer's states [time, batch, hidden_size].
        """
        states = projected
        for layer in range(self.options.num_decoder_layers):
            recurrent = self.decoder[f"layer_{layer}"]
            projected = recurrent.project(states) if layer else projected
            states = scan(recurrent, memory.start[layer], projected)
            states = drop(states, memory.layer_masks[layer])
        return states

    def _features(self, memory: RNNMemory, projected: jax.Array) -> jax.Array:
        states, attended = self._unroll(memory, projected)
        return self._attend(memory, states) if attended is None else attended

    def _attend(
        self, memory: RNNMemory, states: jax.Array, known: jax.Array | None = None
    ) -> jax.Array:
        """The attentional vectors tanh(C [context; state]); without attention the states.

        Both are [time, batch, hidden_size]; the products of attention have the batch first. If the
        vectors are already known, only their gradient is computed.
        """
        if self.attention is None:
            return states
        assert memory.keys is not None
        assert memory.encoded is not None
        states = states.swapaxes(0, 1)
        context = self.attention.context(states, memory.keys, memory.encoded, memory.mask)
        joint = jnp.concatenate([context, states], axis=-1)
        kernel = self.combine_kernel[...].astype(self.dtype)
        if known is not None:
            return _replay_tanh(joint, kernel, known.swapaxes(0, 1)).swapaxes(0, 1)
        return jnp.tanh(linear(joint, kernel)).swapaxes(0, 1)

    def _logits(self, features: jax.Array) -> jax.Array:
        return compute_logits(features, *self.output_layer())


@jax.custom_vjp
def _replay_tanh(inputs: jax.Array, kernel: jax.Array, outputs: jax.Array) -> jax.Array:
    """tanh(inputs @ kernel), which has already been computed as `outputs`."""
    return outputs


def _replay_tanh_forward(inputs: jax.Array, kernel: jax.Array, outputs: jax.Array):
    return outputs, (inputs, kernel, outputs)


def _replay_tanh_backward(kept: tuple[jax.Array, ...], d_outputs: jax.Array):
    inputs, kernel, outputs = kept
    d_product = d_outputs * (1 - outputs**2)
    gradients = d_product @ kernel.T, weights_gradient(inputs, d_product)
    return (*refuse_second_derivatives(gradients, (inputs, kernel)), None)


_replay_tanh.defvjp(_replay_tanh_forward, _replay_tanh_backward)
