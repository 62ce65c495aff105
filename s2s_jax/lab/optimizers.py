"""The optimiser of a run, and its scalars as values that a program takes."""

from typing import Any, NamedTuple

import jax
import optax

from s2s_jax.lab.errors import LabError
from s2s_jax.names import nearest


class Scalars(NamedTuple):
    """What of an optimiser runs of one program may differ in: numbers, or traced scalars.

    Attributes:
      learning_rate: at its highest.
      weight_decay: of AdamW.
      clip_norm: global L2 norm of the gradient; whether it clips at all is not among them.
    """

    learning_rate: float | jax.Array
    weight_decay: float | jax.Array
    clip_norm: float | jax.Array


def scalars_of(train: Any) -> Scalars:
    """Those of a config's train section."""
    return Scalars(train.learning_rate, train.weight_decay, train.clip_norm)


def make_optimizer(train: Any, scalars: Scalars | None = None) -> optax.GradientTransformation:
    """AdamW with a linear warm-up, and the gradient clipped to a norm.

    Args:
      train: a config's train section.
      scalars: in place of the section's; the state is of the same structure whatever they are.

    Raises:
      LabError: the learning rate's schedule is unknown.
    """
    peak, weight_decay, clip_norm = scalars or scalars_of(train)
    warmup = min(train.warmup_steps, train.num_steps - 1)
    rising = optax.linear_schedule(0.0 if warmup else peak, peak, warmup)
    if train.learning_rate_schedule == "cosine":
        falling = optax.cosine_decay_schedule(peak, train.num_steps - warmup)  # pyright: ignore
        learning_rate = optax.join_schedules([rising, falling], [warmup])
    elif train.learning_rate_schedule == "constant":
        learning_rate = rising
    else:
        name = train.learning_rate_schedule
        hint = nearest(name, ("cosine", "constant"))
        raise LabError(f"train.learning_rate_schedule is {name!r}; {hint}")
    clip = [optax.clip_by_global_norm(clip_norm)] if train.clip_norm else []
    return optax.chain(*clip, optax.adamw(learning_rate, weight_decay=weight_decay))
