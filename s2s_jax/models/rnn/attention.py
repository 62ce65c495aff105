"""Attention of decoder states over encoder states: dot, general and additive scores.

In this module the suffix of a name is its shape: B batch, T target time, S source time, H features.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from s2s_jax.models.initial_values import InitialValues
from s2s_jax.models.linear import linear

AttentionKind = Literal["none", "dot", "general", "additive"]

_MASKED = -1e30  # finite, so that a fully masked row becomes uniform instead of NaN


class Attention(nnx.Module):
    """Scores, weights and context.

        weights_t = softmax_s score(h_t, m_s),   context_t = sum_s weights_ts m_s
        dot:      score = h . m
        general:  score = h . W m                 (Luong et al. 2015, arXiv:1508.04025, section 3.1)
        additive: score = v . tanh(U h + W m)     (Bahdanau et al. 2015, arXiv:1409.0473, A.1.2)

    Here h is the decoder's state of the same step, as in Luong et al.
    """

    def __init__(self, kind: AttentionKind, features: int, values: InitialValues):
        self.kind = kind
        if kind in ("general", "additive"):
            self.key_kernel = nnx.Param(values.glorot_uniform(features, features))
        if kind == "additive":
            self.query_kernel = nnx.Param(values.glorot_uniform(features, features))
            self.score_kernel = nnx.Param(values.glorot_uniform(features, 1))

    def keys(self, encoded_BxSxH: jax.Array) -> jax.Array:
        """The part of the scores that depends only on the source, computed once: [B, S, H]."""
        if self.kind == "dot":
            return encoded_BxSxH
        return linear(encoded_BxSxH, self.key_kernel[...].astype(encoded_BxSxH.dtype))

    def weights(
        self, states_BxTxH: jax.Array, keys_BxSxH: jax.Array, mask_BxS: jax.Array
    ) -> jax.Array:
        """The attention weights [B, T, S] in float32; they sum to 1 over the source."""
        if self.kind == "additive":
            kernel = self.query_kernel[...].astype(states_BxTxH.dtype)
            queries_BxTxH = linear(states_BxTxH, kernel)
            joint_BxTxSxH = jnp.tanh(queries_BxTxH[:, :, None] + keys_BxSxH[:, None])
            kernel = self.score_kernel[...].astype(joint_BxTxSxH.dtype)
            scores_BxTxS = (joint_BxTxSxH @ kernel)[..., 0]
        else:
            scores_BxTxS = jnp.einsum("bth,bsh->bts", states_BxTxH, keys_BxSxH)
        scores_BxTxS = jnp.where(mask_BxS[:, None], scores_BxTxS.astype(jnp.float32), _MASKED)
        return jax.nn.softmax(scores_BxTxS)

    def context(
        self,
        states_BxTxH: jax.Array,
        keys_BxSxH: jax.Array,
        encoded_BxSxH: jax.Array,
        mask_BxS: jax.Array,
    ) -> jax.Array:
        """The weighted encoder states [B, T, H]."""
        weights_BxTxS = self.weights(states_BxTxH, keys_BxSxH, mask_BxS)
        return jnp.einsum("bts,bsh->bth", weights_BxTxS.astype(encoded_BxSxH.dtype), encoded_BxSxH)
