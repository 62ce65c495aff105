"""The parts of a Transformer layer: normalisation, attention with several heads, feed-forward.

The suffix of a name is its shape: B batch, N heads, T the queries' time, S the keys' time, D the
size of a head, H hidden_size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from s2s_jax.models.initial_values import InitialValues
from s2s_jax.models.linear import add_bias, linear
from s2s_jax.models.transformer.options import Activation

_MASKED = -1e30  # finite, so that a fully masked row becomes uniform instead of NaN
_EPSILON = 1e-5


class KeysValues(NamedTuple):
    """What queries attend to; both [batch, num_heads, time, head_size]."""

    keys: jax.Array
    values: jax.Array


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis, in float32 (Ba et al. 2016, arXiv:1607.06450).

    norm(x) = (x - mean(x)) / sqrt(var(x) + 1e-5) * scale + bias
    """

    def __init__(self, size: int):
        self.scale = nnx.Param(jnp.ones(size))
        self.bias = nnx.Param(jnp.zeros(size))

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Inputs [..., size]; the result has their dtype."""
        wide = inputs.astype(jnp.float32)
        centred = wide - wide.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(variance + _EPSILON)
        return (normed * self.scale[...] + self.bias[...]).astype(inputs.dtype)


class Projection(nnx.Module):
    """A product with a bias, or several of the same inputs side by side."""

    def __init__(self, num_inputs: int, num_outputs: int, values: InitialValues, count: int = 1):
        kernels = values.glorot_uniform(count, num_inputs, num_outputs)
        self.kernel = nnx.Param(kernels.swapaxes(0, 1).reshape(num_inputs, -1))
        self.bias = nnx.Param(jnp.zeros(count * num_outputs))

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """[..., num_inputs] -> [..., count * num_outputs], in the inputs' dtype."""
        return add_bias(linear(inputs, self.kernel[...].astype(inputs.dtype)), self.bias[...])


class SelfAttention(nnx.Module):
    """The projections of attention whose keys and values are of the same sequence."""

    def __init__(self, hidden_size: int, num_heads: int, values: InitialValues):
        self.num_heads = num_heads
        self.inputs = Projection(hidden_size, hidden_size, values, count=3)
        self.output = Projection(hidden_size, hidden_size, values)

    def project(self, states_BxTxH: jax.Array) -> tuple[jax.Array, KeysValues]:
        """Queries [B, N, T, D], keys and values of the same shape."""
        queries, keys, values = _heads(self.inputs(states_BxTxH), self.num_heads, 3)
        return queries, KeysValues(keys, values)


class CrossAttention(nnx.Module):
    """The projections of the decoder's attention over the source."""

    def __init__(self, hidden_size: int, num_heads: int, values: InitialValues):
        self.num_heads = num_heads
        self.query = Projection(hidden_size, hidden_size, values)
        self.source = Projection(hidden_size, hidden_size, values, count=2)
        self.output = Projection(hidden_size, hidden_size, values)

    def queries(self, states_BxTxH: jax.Array) -> jax.Array:
        """[B, N, T, D]."""
        return _heads(self.query(states_BxTxH), self.num_heads, 1)[0]

    def read(self, encoded_BxSxH: jax.Array) -> KeysValues:
        """Keys and values of the source, computed once for all target steps."""
        return KeysValues(*_heads(self.source(encoded_BxSxH), self.num_heads, 2))


class FeedForward(nnx.Module):
    """Two products with a nonlinearity between them.

    relu, gelu: f(x W + b) V + c       swiglu: (silu(x W + b) * (x U + d)) V + c

    Shazeer 2020, arXiv:2002.05202, for swiglu; gelu is the exact one.
    """

    def __init__(self, hidden_size: int, size: int, activation: Activation, values: InitialValues):
        self.activation = activation
        self.inner = Projection(hidden_size, size, values, count=2 if activation == "swiglu" else 1)
        self.outer = Projection(size, hidden_size, values)

    def __call__(self, states: jax.Array) -> jax.Array:
        """[..., hidden_size] -> the same shape."""
        inner = self.inner(states)
        if self.activation == "swiglu":
            gate, inner = jnp.split(inner, 2, axis=-1)
            return self.outer(jax.nn.silu(gate) * inner)
        if self.activation == "gelu":
            return self.outer(jax.nn.gelu(inner, approximate=False))
        return self.outer(jax.nn.relu(inner))


def attention_weights(queries: jax.Array, keys: jax.Array, mask: jax.Array) -> jax.Array:
    """softmax_s(q_t . k_s / sqrt(D)) over the mask, [B, N, T, S] in float32.

    Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1.

    Args:
      queries: [B, N, T, D].
      keys: [B, N, S, D].
      mask: bool, broadcast to [B, N, T, S].
    """
    scores = jnp.einsum("bntd,bnsd->bnts", queries * queries.shape[-1] ** -0.5, keys)
    return jax.nn.softmax(jnp.where(mask, scores.astype(jnp.float32), _MASKED))


def attend(queries: jax.Array, known: KeysValues, mask: jax.Array) -> jax.Array:
    """The weighted values, with the heads side by side: [B, T, H]."""
    weights = attention_weights(queries, known.keys, mask).astype(known.values.dtype)
    context = jnp.einsum("bnts,bnsd->bntd", weights, known.values)
    return context.swapaxes(1, 2).reshape(len(context), context.shape[2], -1)


def _heads(projected: jax.Array, num_heads: int, count: int) -> jax.Array:
    """[B, T, count * H] -> [count, B, N, T, D]."""
    batch_size, time, _ = projected.shape
    parts = projected.reshape(batch_size, time, count, num_heads, -1)
    return parts.transpose(2, 0, 3, 1, 4)
