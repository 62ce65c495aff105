"""The learning rate of a run, and the optimiser scalars that a program takes as arguments."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from s2s_jax.lab.base.errors import LabError
from s2s_jax.names import did_you_mean

LEARNING_RATE_SCHEDULES = ("cosine", "constant", "inverse_sqrt")
"""The names that `train.learning_rate_schedule` accepts."""


class Scalars(NamedTuple):
    """The optimiser values in which runs of one program may differ: numbers, or traced scalars.

    Attributes:
      learning_rate: the peak learning rate.
      weight_decay: the weight decay of a built-in optimiser that has one.
      clip_norm: maximum global L2 norm of the gradient; whether to clip at all is not traced.
    """

    learning_rate: float | jax.Array
    weight_decay: float | jax.Array
    clip_norm: float | jax.Array


def make_learning_rate(
    peak: float | jax.Array, schedule: str, num_steps: int, warmup_steps: int
) -> optax.Schedule:
    """The learning rate of every update: a linear warm-up, then one of `LEARNING_RATE_SCHEDULES`.

        rate(n) = peak * n / W                                          n <= W, in warm-up
        rate(n) = peak                                                  n >= W, constant
        rate(n) = peak * (1 + cos(pi * (n - W) / (N + 1 - W))) / 2      n >= W, cosine
        rate(n) = peak * sqrt(W / n)                                    n >= W, inverse_sqrt

    with n = 1 ... N the update, N = num_steps and W = max(1, warmup_steps). The first update has
    a rate above 0, update W has the peak rate, and the cosine would reach 0 one update after the
    last. A warm-up longer than the training keeps its slope and ends below the peak.

    inverse_sqrt is the schedule of Vaswani et al. 2017 (arXiv:1706.03762, section 5.3), whose
    factor hidden_size ** -0.5 * W ** -0.5 is the peak here. It does not depend on N.

    Args:
      peak: the highest rate.
      schedule: "cosine", "constant" or "inverse_sqrt".
      num_steps: number of updates in the training.
      warmup_steps: number of updates until the peak; with 0 or 1 training starts at the peak.
        inverse_sqrt needs at least 1, since its decay is as long as its warm-up.

    Returns:
      A function: number of updates made before -> learning rate.

    Raises:
      LabError: the schedule is unknown, or is inverse_sqrt without a warm-up.

    Example:
      >>> rate = make_learning_rate(1.0, "constant", num_steps=3, warmup_steps=4)
      >>> rate(jnp.arange(3)).tolist()
      [0.25, 0.5, 0.75]
      >>> make_learning_rate(1.0, "inverse_sqrt", num_steps=16, warmup_steps=4)(15).item()
      0.5
    """
    if schedule == "inverse_sqrt" and warmup_steps < 1:
        raise LabError(
            f"train.warmup_steps is {warmup_steps}; train.learning_rate_schedule=inverse_sqrt needs"
            " at least 1"
        )
    warmup = max(1, warmup_steps)

    def rising(done: Any) -> jax.Array:
        return peak * jnp.minimum((done + 1) / warmup, 1.0)

    if schedule == "constant":
        return rising
    if schedule == "cosine":
        falling = optax.cosine_decay_schedule(peak, max(1, num_steps + 1 - warmup))  # pyright: ignore
        return optax.join_schedules([rising, falling], [warmup - 1])
    if schedule == "inverse_sqrt":
        return lambda done: jnp.minimum(rising(done), peak * jnp.sqrt(warmup / (done + 1)))
    hint = did_you_mean(schedule, LEARNING_RATE_SCHEDULES)
    raise LabError(f"train.learning_rate_schedule is {schedule!r}; {hint}")
