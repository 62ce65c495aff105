"""Recurrent layers, LSTM and GRU, with the input projection taken out of the scan."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

Cell = Literal["lstm", "gru"]

RecurrentCarry = tuple[jax.Array, ...]
"""(h, c) of an LSTM, (h,) of a GRU; each [batch, hidden_size]. The output of a step is h."""

_NUM_GATES = {"lstm": 4, "gru": 3}


class RecurrentLayer(nnx.Module):
    """One recurrent layer, in two parts: what depends on the input alone, and the recurrence.

    LSTM: i, f, g, o = x W + h U + b;  c' = sigm(f) c + sigm(i) tanh(g);  h' = sigm(o) tanh(c')
          (Hochreiter & Schmidhuber 1997; the forget gate's bias starts at 1)
    GRU:  r, z = sigm(x W + h U + b);  n = tanh(x W_n + b_n + r (h U_n + u_n));
          h' = (1 - z) n + z h   (Cho et al. 2014, in the form that cuDNN computes)
    """

    def __init__(self, cell: Cell, input_size: int, hidden_size: int, *, rngs: nnx.Rngs):
        self.cell = cell
        self.hidden_size = hidden_size
        gates = _NUM_GATES[cell]
        glorot = nnx.initializers.glorot_uniform()
        orthogonal = nnx.initializers.orthogonal()
        self.input_kernel = nnx.Param(glorot(rngs.params(), (input_size, gates * hidden_size)))
        # One orthogonal matrix a gate; batched, which compiles once instead of once a gate.
        keys = jax.random.split(rngs.params(), gates)
        squares = jax.vmap(lambda key: orthogonal(key, (hidden_size, hidden_size)))(keys)
        self.recurrent_kernel = nnx.Param(jnp.concatenate(list(squares), axis=1))
        bias = jnp.zeros(gates * hidden_size)
        if cell == "lstm":
            bias = bias.at[hidden_size : 2 * hidden_size].set(1.0)
        else:
            self.candidate_bias = nnx.Param(jnp.zeros(hidden_size))
        self.bias = nnx.Param(bias)

    def zero_carry(self, batch_size: int, dtype: jnp.dtype) -> RecurrentCarry:
        """The carry of zeros that an encoder starts from."""
        zeros = jnp.zeros((batch_size, self.hidden_size), dtype)
        return (zeros, zeros) if self.cell == "lstm" else (zeros,)

    def project(
        self, inputs: jax.Array, rows: slice = slice(None), *, bias: bool = True
    ) -> jax.Array:
        """X W + b for inputs [..., size]: all the steps at once.

        `rows` takes a part of W, for an input whose parts are known at different times: the
        projections of the parts add up to that of the whole, with `bias` in one of them.
        """
        projected = inputs @ self.input_kernel[...][rows].astype(inputs.dtype)
        return projected + self.bias[...].astype(inputs.dtype) if bias else projected

    def step(self, carry: RecurrentCarry, projected: jax.Array) -> RecurrentCarry:
        """One step of the recurrence from a projected input [batch, gates * hidden_size]."""
        hidden = carry[0]
        recurrent = hidden @ self.recurrent_kernel[...].astype(hidden.dtype)
        if self.cell == "lstm":
            i, f, g, o = jnp.split(projected + recurrent, 4, axis=-1)
            cell = jax.nn.sigmoid(f) * carry[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
            return jax.nn.sigmoid(o) * jnp.tanh(cell), cell
        size = self.hidden_size
        reset, update = jnp.split(
            jax.nn.sigmoid(projected[..., : 2 * size] + recurrent[..., : 2 * size]), 2, axis=-1
        )
        candidate = recurrent[..., 2 * size :] + self.candidate_bias[...].astype(hidden.dtype)
        new = jnp.tanh(projected[..., 2 * size :] + reset * candidate)
        return ((1 - update) * new + update * hidden,)

    def unroll(
        self,
        carry: RecurrentCarry,
        inputs: jax.Array,
        mask: jax.Array | None = None,
        *,
        reverse: bool = False,
    ) -> tuple[RecurrentCarry, jax.Array]:
        """Scans the layer over time.

        Args:
          carry: where to start.
          inputs: [time, batch, input_size]; time first, as the scan wants it.
          mask: [time, batch] bool; the carry passes unchanged where it is False, so that padding
            on either side does not count. None where nothing is padding, or no padding matters.
          reverse: from the last step to the first.

        Returns:
          The last carry and the outputs [time, batch, hidden_size].
        """

        def step(carry, inputs):
            projected, keep = inputs
            new = self.step(carry, projected)
            if keep is not None:
                new = jax.tree.map(lambda new, old: jnp.where(keep[:, None], new, old), new, carry)
            return new, new[0]

        return jax.lax.scan(step, carry, (self.project(inputs), mask), reverse=reverse)
