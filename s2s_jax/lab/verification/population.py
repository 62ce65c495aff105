"""Runs several trainings as one program: the real train step under vmap, on systematic samples."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from s2s_jax.batch import Batch
from s2s_jax.models.interface import Params
from s2s_jax.objectives import Objective
from s2s_jax.training import TrainState, make_train_step

_NUM_REPORTS = 5
_DATA = 1  # folded into the step's key for the batches; other streams fold in the CRC of their name


class Lanes(NamedTuple):
    """The values that differ between the trainings.

    Attributes:
      teacher_prob: [num_lanes].
      cumulated: [num_lanes, num_sequences] cumulative probabilities of the sequences; without the
        first axis if they are the same for all lanes.
    """

    teacher_prob: jax.Array
    cumulated: jax.Array


def train_population(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    start: TrainState,
    sequences: Batch,
    lanes: Lanes,
    *,
    num_rows: int,
    num_steps: int,
    averaged: float,
    say: Callable[[int], None],
    jit: Callable[..., Any] = jax.jit,
) -> Params:
    """Trains one model for each lane, all from the same weights and with the same coins.

    Args:
      objective: (params, batch, key, teacher_prob) -> (loss, metric sums).
      optimizer: any optax transformation.
      start: the result of `init_train_state`; its key determines coins, samples and batches.
      sequences: every pair that can occur.
      lanes: the values that differ between the trainings.
      num_rows: number of rows in a batch.
      num_steps: number of updates; a multiple of 5.
      averaged: the share of final updates whose parameters are averaged (Polyak & Juditsky 1992):
        this removes the noise of single steps and keeps the optimum.
      say: called with the number of updates made, from time to time.
      jit: the function that compiles; tests pass a faster one.

    Returns:
      The averaged parameters, with a leading axis of size num_lanes.
    """
    num_averaged = round(averaged * num_steps)
    sequences = jax.tree.map(jnp.asarray, sequences)

    # Does not use the lab's programs: one scan of many small steps draws its batches on the device.
    def step(lane: Lanes, carry: tuple[TrainState, Params], _: None):
        state, total = carry
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), _DATA)
        rows = draw_rows(lane.cumulated, key, num_rows)
        batch = jax.tree.map(lambda array: array[rows], sequences)
        train_step = make_train_step(objective, optimizer, lambda step: lane.teacher_prob)
        state = train_step(state, batch)[0]
        counts = state.step > num_steps - num_averaged
        total = jax.tree.map(lambda old, new: old + jnp.where(counts, new, 0), total, state.params)
        return (state, total), None

    def advance(carry: tuple[TrainState, Params], lane: Lanes) -> tuple[TrainState, Params]:
        return jax.lax.scan(partial(step, lane), carry, None, num_steps // _NUM_REPORTS)[0]

    num_lanes = len(lanes.teacher_prob)
    # Step and key are not batched: coins and samples are drawn once, and all lanes share them.
    axes: tuple[TrainState, int] = TrainState(None, 0, 0, None), 0  # pyright: ignore
    params, opt_state = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (num_lanes, *leaf.shape)),
        (start.params, start.opt_state),
    )
    carry = (
        TrainState(start.step, params, opt_state, start.key),
        jax.tree.map(jnp.zeros_like, params),
    )
    of_lanes = Lanes(0, 0 if lanes.cumulated.ndim == 2 else None)  # pyright: ignore
    advance_all = jit(jax.vmap(advance, in_axes=(axes, of_lanes), out_axes=axes))
    for said in range(_NUM_REPORTS):
        carry = advance_all(carry, lanes)
        jax.block_until_ready(carry[1])
        say((said + 1) * (num_steps // _NUM_REPORTS))
    return jax.tree.map(lambda total: total / num_averaged, carry[1])


def draw_rows(cumulated: jax.Array, key: jax.Array, num_rows: int) -> jax.Array:
    """Draws a batch in which each sequence occurs in proportion to its probability.

        row i = the first sequence whose cumulated probability exceeds (i + u) / num_rows

    This is systematic sampling with one uniform u: a sequence of probability p occurs
    floor(p num_rows) times or once more, and p num_rows times on average.

    Args:
      cumulated: [num_sequences] cumulative probabilities.
      key: one PRNG key.
      num_rows: number of rows in the batch.

    Returns:
      The indices of the sequences, [num_rows] int32.

    Example:
      >>> rows = draw_rows(jnp.array([0.25, 0.25, 1.0]), jax.random.key(0), 8)
      >>> rows.tolist()
      [0, 0, 2, 2, 2, 2, 2, 2]
    """
    places = (jnp.arange(num_rows) + jax.random.uniform(key)) / num_rows
    rows = jnp.searchsorted(cumulated, places * cumulated[-1], side="right")
    # Rounding can reach the very end; argmax is the last sequence with positive probability.
    return jnp.minimum(rows, jnp.argmax(cumulated)).astype(jnp.int32)
