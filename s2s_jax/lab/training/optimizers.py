"""The learning rate of a run, and the numbers of its optimiser that a program takes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from s2s_jax.lab.base.errors import LabError
from s2s_jax.names import did_you_mean


class Scalars(NamedTuple):
    """What of an optimiser runs of one program may differ in: numbers, or traced scalars.

    Attributes:
      learning_rate: at its highest.
      weight_decay: of a built-in optimiser that has one.
      clip_norm: global L2 norm of the gradient; whether it clips at all is not among them.
    """

    learning_rate: float | jax.Array
    weight_decay: float | jax.Array
    clip_norm: float | jax.Array


def make_learning_rate(
    peak: float | jax.Array, schedule: str, num_steps: int, warmup_steps: int
) -> optax.Schedule:
    """The learning rate of every update: a linear warm-up, then "constant" or "cosine".

        rate(n) = peak * n / W                                          n <= W, in warm-up
        rate(n) = peak                                                  n >= W, constant
        rate(n) = peak * (1 + cos(pi * (n - W) / (N + 1 - W))) / 2      n >= W, cosine

    with n = 1 ... N the update, N = num_steps and W = max(1, warmup_steps). The first update has
    a rate above 0, update W has the peak, and the cosine would be 0 at the update after the last
    one. A warm-up longer than the training has the same slope and ends below the peak.

    Args:
      peak: the highest rate.
      schedule: "cosine" or "constant".
      num_steps: updates of the training.
      warmup_steps: updates until the peak; 0 and 1 begin at it.

    Returns:
      updates made before -> learning rate.

    Raises:
      LabError: the schedule is unknown.

    Example:
      >>> rate = make_learning_rate(1.0, "constant", num_steps=3, warmup_steps=4)
      >>> rate(jnp.arange(3)).tolist()
      [0.25, 0.5, 0.75]
    """
    warmup = max(1, warmup_steps)

    def rising(done: Any) -> jax.Array:
        return peak * jnp.minimum((done + 1) / warmup, 1.0)

    if schedule == "constant":
        return rising
    if schedule == "cosine":
        falling = optax.cosine_decay_schedule(peak, max(1, num_steps + 1 - warmup))  # pyright: ignore
        return optax.join_schedules([rising, falling], [warmup - 1])
    hint = did_you_mean(schedule, ("cosine", "constant"))
    raise LabError(f"train.learning_rate_schedule is {schedule!r}; {hint}")
