"""The recurrent cells, LSTM and GRU: the elementwise part of a step, and its gradient.

The matrix products are elsewhere. A step stores its own derivatives, and its gradient is a few
elementwise products with them, so no activation is computed again. All gates of an LSTM are
activated in one operation, which XLA vectorises on a CPU; gate by gate it would not.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Cell = Literal["lstm", "gru"]

RecurrentCarry = tuple[jax.Array, ...]
"""(h, c) of an LSTM, (h,) of a GRU; each [batch, hidden_size]. The output of a step is h."""

NUM_GATES = {"lstm": 4, "gru": 3}


class Slopes(NamedTuple):
    """The derivatives of a step, in float32 whatever the model computes in.

    The derivative of a saturated gate is a small difference, which would be lost in bfloat16.

    Attributes:
      joined: [batch, gates * hidden_size], with respect to the projected inputs. LSTM: of c' with
        respect to those of i, f and g, and of h' with respect to that of o. GRU: of h' with respect
        to those of r, z and n.
      kept: [batch, hidden_size]. LSTM: of c' with respect to c. GRU: of h' with respect to h,
        except through the matrix product.
      inner: [batch, hidden_size]. LSTM: of h' with respect to c'. GRU: of p_n + r (q_n + u_n) with
        respect to q_n.
    """

    joined: jax.Array
    kept: jax.Array
    inner: jax.Array


def advance(
    cell: Cell,
    carry: RecurrentCarry,
    projected: jax.Array,
    recurrent: jax.Array,
    offset: jax.Array | None,
) -> tuple[RecurrentCarry, Slopes]:
    """One step.

        LSTM: i, f, g, o = sigm, sigm, tanh, sigm of p + q;  c' = f c + i g;  h' = o tanh(c')
        GRU:  r, z = sigm(p + q);  n = tanh(p_n + r (q_n + u_n));  h' = (1 - z) n + z h

    Args:
      cell: "lstm" or "gru".
      carry: before the step.
      projected: p = x W + b, [batch, gates * hidden_size].
      recurrent: q = h U, of the same shape.
      offset: u_n of a GRU, [hidden_size]; None for an LSTM.

    Returns:
      The carry after the step, and the step's derivatives.
    """
    dtype, size = carry[0].dtype, carry[0].shape[-1]
    projected, recurrent = projected.astype(jnp.float32), recurrent.astype(jnp.float32)
    if cell == "lstm":
        memory = carry[1].astype(jnp.float32)
        scale, shift = _lstm_activations(size)
        gates = scale * jnp.tanh(scale * (projected + recurrent)) + shift
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        new_memory = f * memory + i * g
        output = jnp.tanh(new_memory)
        partners = jnp.concatenate([g, memory, i, output], axis=-1)
        slopes = partners * (scale**2 - (gates - shift) ** 2)
        new = (o * output).astype(dtype), new_memory.astype(dtype)
        return new, Slopes(slopes, f, o * (1 - output**2))
    assert offset is not None
    hidden = carry[0].astype(jnp.float32)
    r, z = jnp.split(_sigmoid(projected[..., : 2 * size] + recurrent[..., : 2 * size]), 2, axis=-1)
    candidate = recurrent[..., 2 * size :] + offset
    n = jnp.tanh(projected[..., 2 * size :] + r * candidate)
    by_new = (1 - z) * (1 - n**2)
    slopes = [by_new * candidate * r * (1 - r), (hidden - n) * z * (1 - z), by_new]
    new = ((1 - z) * n + z * hidden).astype(dtype)
    return (new,), Slopes(jnp.concatenate(slopes, axis=-1), z, r)


def advance_gradient(
    cell: Cell, slopes: Slopes, d_new: RecurrentCarry
) -> tuple[jax.Array, RecurrentCarry]:
    """The gradient of `advance`.

    Args:
      cell: "lstm" or "gru".
      slopes: as returned by `advance`.
      d_new: the gradient with respect to the carry after the step.

    Returns:
      [batch, gates * hidden_size] float32, the gradient with respect to projected, from which
      `of_recurrent` computes that with respect to recurrent; and the gradient with respect to the
      carry, except the part that passes through recurrent.
    """
    dtype = d_new[0].dtype
    d_hidden = d_new[0].astype(jnp.float32)
    by_gate = slopes.joined.reshape(*d_hidden.shape[:-1], NUM_GATES[cell], -1)
    if cell == "lstm":
        d_memory = d_new[1].astype(jnp.float32) + d_hidden * slopes.inner
        of_output = np.arange(4)[:, None] == 3
        d_gates = jnp.where(of_output, d_hidden[..., None, :], d_memory[..., None, :])
        d_before = jnp.zeros_like(d_new[0]), (d_memory * slopes.kept).astype(dtype)
    else:
        d_gates = d_hidden[..., None, :]
        d_before = ((d_hidden * slopes.kept).astype(dtype),)
    return (d_gates * by_gate).reshape(slopes.joined.shape), d_before


def of_recurrent(cell: Cell, slopes: Slopes, d_projected: jax.Array) -> jax.Array:
    """The gradient of recurrent, from that of projected; for one step, or with time first."""
    if cell == "lstm":
        return d_projected
    reset, update, new = jnp.split(d_projected, 3, axis=-1)
    return jnp.concatenate([reset, update, new * slopes.inner], axis=-1)


def _lstm_activations(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The activations of all gates as one function: scale tanh(scale x) + shift, [4 * size] each.

    sigm(x) = tanh(x / 2) / 2 + 1 / 2. For both sigm and tanh the slope is scale^2 - (y - shift)^2.
    """
    scale = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], np.float32), size)
    shift = np.repeat(np.array([0.5, 0.5, 0.0, 0.5], np.float32), size)
    return scale, shift


def _sigmoid(x: jax.Array) -> jax.Array:
    return 0.5 * jnp.tanh(0.5 * x) + 0.5
