"""Recurrent layers, LSTM and GRU, whose scans contain only the recurrence.

The projection of the inputs is taken out of the scan, and so are the gradients of all weights: the
backward scan computes the gradient of every step's pre-activations, and one product over time and
batch computes those of the weights from it. The results of the forward scan are kept as a
`RecurrentTrace`. If the scan has been run elsewhere (by the rollout, to sample), `replay` takes the
trace instead of computing it again.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from s2s_jax.models.initial_values import InitialValues
from s2s_jax.models.linear import add_bias, bias_gradient, inputs_gradient, linear, weights_gradient
from s2s_jax.models.replays import refuse_second_derivatives
from s2s_jax.models.rnn.cells import (
    NUM_GATES,
    Cell,
    RecurrentCarry,
    Slopes,
    advance,
    advance_gradient,
    of_recurrent,
)


class RecurrentTrace(NamedTuple):
    """What a scan stores for its gradient; for one step, or with a time axis first.

    Attributes:
      output: [batch, hidden_size], h after the step.
      slopes: the step's derivatives.
    """

    output: jax.Array
    slopes: Slopes


class RecurrentLayer(nnx.Module):
    """One recurrent layer, in two parts: the projection of the input, and the recurrence.

    LSTM: i, f, g, o = x W + h U + b;  c' = sigm(f) c + sigm(i) tanh(g);  h' = sigm(o) tanh(c')
          (Hochreiter & Schmidhuber 1997; the forget gate's bias starts at 1)
    GRU:  r, z = sigm(x W + h U + b);  n = tanh(x W_n + b_n + r (h U_n + u_n));
          h' = (1 - z) n + z h   (Cho et al. 2014, in the form that cuDNN computes)
    """

    def __init__(self, cell: Cell, input_size: int, hidden_size: int, values: InitialValues):
        self.cell: Cell = cell
        self.hidden_size = hidden_size
        gates = NUM_GATES[cell]
        self.input_kernel = nnx.Param(values.glorot_uniform(input_size, gates * hidden_size))
        squares = values.orthogonal(gates, hidden_size)  # one per gate
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
        """X W + b for inputs [..., size], for all steps at once.

        `rows` selects a part of W, for an input whose parts are known at different times: the
        projections of the parts add up to that of the whole, if one of them has the `bias`.
        """
        projected = linear(inputs, self.input_kernel[...][rows].astype(inputs.dtype))
        return add_bias(projected, self.bias[...]) if bias else projected

    def step(
        self, carry: RecurrentCarry, projected: jax.Array
    ) -> tuple[RecurrentCarry, RecurrentTrace]:
        """One step of the recurrence from a projected input [batch, gates * hidden_size]."""
        return _step(self.cell, *self._recurrence(projected.dtype), carry, projected)

    def scan(
        self,
        start: RecurrentCarry,
        projected: jax.Array,
        mask: jax.Array | None = None,
        *,
        reverse: bool = False,
    ) -> tuple[RecurrentCarry, RecurrentTrace]:
        """The layer over time, without a gradient: the last carry and the trace.

        See `unroll` for the arguments.
        """
        kernel, offset, start, projected = jax.lax.stop_gradient(
            (*self._recurrence(projected.dtype), start, projected)
        )

        def step(state: tuple[RecurrentCarry, jax.Array], inputs: tuple[jax.Array, Any]):
            (carry, steps), (index, keep) = state, inputs
            new, trace = _step(self.cell, kernel, offset, carry, _read(steps, index))
            carry = _keep(keep, new, carry)
            steps = _write(steps, index, trace.slopes.joined)
            return (carry, steps), (carry[0], trace.slopes.kept, trace.slopes.inner)

        steps = projected.astype(jnp.float32)  # the slopes take the projections' place
        (last, joined), (output, kept, inner) = jax.lax.scan(
            step, (start, steps), (jnp.arange(len(steps)), mask), reverse=reverse
        )
        return last, RecurrentTrace(output, Slopes(joined, kept, inner))

    def unroll(
        self,
        start: RecurrentCarry,
        projected: jax.Array,
        mask: jax.Array | None = None,
        *,
        reverse: bool = False,
    ) -> tuple[RecurrentCarry, jax.Array]:
        """The layer over time, with its gradient.

        Args:
          start: the carry before the first step.
          projected: [time, batch, gates * hidden_size], from `project`, with time first for the
            scan.
          mask: [time, batch] bool; the carry is unchanged where it is False, so that padding on
            either side is ignored. None if there is no padding, or if it does not matter.
          reverse: whether to go from the last step to the first.

        Returns:
          The last carry and the outputs [time, batch, hidden_size].
        """
        last, trace = self.scan(start, projected, mask, reverse=reverse)
        recurrence = self._recurrence(projected.dtype)
        return _replay(self.cell, reverse, *recurrence, projected, start, mask, last, trace)

    def replay(
        self, start: RecurrentCarry, projected: jax.Array, trace: RecurrentTrace
    ) -> jax.Array:
        """The outputs of `unroll` without a mask, with their gradient, from an existing trace.

        Args:
          start: see `unroll`.
          projected: see `unroll`.
          trace: from `scan`, or from a scan of `step`.
        """
        recurrence = self._recurrence(projected.dtype)
        replayed: Any = _replay(self.cell, False, *recurrence, projected, start, None, None, trace)
        return replayed[1]

    def _recurrence(self, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array | None]:
        """U, and the bias inside the GRU's reset gate."""
        offset = self.candidate_bias[...].astype(dtype) if self.cell == "gru" else None
        return self.recurrent_kernel[...].astype(dtype), offset


def _step(
    cell: Cell,
    kernel: jax.Array,
    offset: jax.Array | None,
    carry: RecurrentCarry,
    projected: jax.Array,
) -> tuple[RecurrentCarry, RecurrentTrace]:
    new, slopes = advance(cell, carry, projected, carry[0] @ kernel, offset)
    return new, RecurrentTrace(new[0], slopes)


def _read(steps: jax.Array, index: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(steps, index, keepdims=False)


def _write(steps: jax.Array, index: jax.Array, step: jax.Array) -> jax.Array:
    """Overwrites the step that was read at this index.

    The outputs of a scan are initialised with zeros, which takes time; overwriting an input does
    not need them. Because of the barrier, later uses read the new step back. Otherwise the compiler
    would compute it twice, the second time from the old step, and keep a copy of all steps for it.
    """
    return jax.lax.optimization_barrier(
        jax.lax.dynamic_update_index_in_dim(steps, step, index, axis=0)
    )


def _keep(mask: jax.Array | None, new: RecurrentCarry, old: RecurrentCarry) -> RecurrentCarry:
    """The new carry where the mask [batch] holds, else the old one."""
    if mask is None:
        return new
    return jax.tree.map(lambda new, old: jnp.where(mask[:, None], new, old), new, old)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _replay(
    cell: Cell,
    reverse: bool,
    kernel: jax.Array,
    offset: jax.Array | None,
    projected: jax.Array,
    start: RecurrentCarry,
    mask: jax.Array | None,
    last: RecurrentCarry | None,
    trace: RecurrentTrace,
) -> tuple[RecurrentCarry | None, jax.Array]:
    """The last carry and the outputs of an earlier scan, with the gradient of that scan."""
    return last, trace.output


def _replay_forward(cell, reverse, kernel, offset, projected, start, mask, last, trace):
    return (last, trace.output), (kernel, offset, projected, start, mask, trace)


def _replay_backward(cell, reverse, kept, cotangents):
    kernel, offset, projected, start, mask, trace = kept
    d_last, d_outputs = cotangents
    if d_last is None:
        d_last = jax.tree.map(jnp.zeros_like, start)

    def state_before(first: jax.Array, later: jax.Array) -> jax.Array:
        """The state that each step began with."""
        first = first[None]
        parts = [later[1:], first] if reverse else [first, later[:-1]]
        return jnp.concatenate(parts)

    def step(state, inputs):
        (d_carry, steps), (index, d_output, kept, inner, keep) = state, inputs
        d_carry = (d_carry[0] + d_output, *d_carry[1:])
        no_gradient = jax.tree.map(jnp.zeros_like, d_carry)
        slopes = Slopes(_read(steps, index), kept, inner)
        d_projected, d_before = advance_gradient(cell, slopes, _keep(keep, d_carry, no_gradient))
        steps = _write(steps, index, d_projected)
        d_recurrent = of_recurrent(cell, slopes, _read(steps, index)).astype(kernel.dtype)
        d_hidden, *d_rest = jax.tree.map(jnp.add, d_before, _keep(keep, no_gradient, d_carry))
        return ((d_hidden + inputs_gradient(d_recurrent, kernel), *d_rest), steps), None

    steps, kept, inner = trace.slopes  # the gradients take the slopes' place
    inputs = jnp.arange(len(steps)), d_outputs, kept, inner, mask
    (d_start, d_projected), _ = jax.lax.scan(step, (d_last, steps), inputs, reverse=not reverse)
    d_recurrent = of_recurrent(cell, trace.slopes, d_projected).astype(kernel.dtype)
    d_kernel = weights_gradient(state_before(start[0], trace.output), d_recurrent)
    d_projected, d_offset = d_projected.astype(projected.dtype), None
    if offset is not None:
        d_offset = bias_gradient(d_recurrent[..., 2 * kernel.shape[0] :]).astype(offset.dtype)
    gradients = d_kernel, d_offset, d_projected, d_start
    return (
        *refuse_second_derivatives(gradients, (kernel, offset, projected, start)),
        None,
        None,
        None,
    )


_replay.defvjp(_replay_forward, _replay_backward)
