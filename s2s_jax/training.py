"""The train step: a pure function from (state, batch) to (state, metric sums)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from s2s_jax.batch import Batch
from s2s_jax.metrics import Mean, MetricSums
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.objectives import Objective
from s2s_jax.prng import stream_key
from s2s_jax.schedules import FeedbackSchedule, Schedule, as_feedback


class TrainState(NamedTuple):
    """The state that training carries from step to step; it consists only of arrays.

    Attributes:
      step: int32 scalar, the number of updates made.
      params: the model's parameters.
      opt_state: the optimiser's state.
      key: the run's PRNG key. It never advances: every draw folds the step into it, so that a
        resumed run makes the same draws as an uninterrupted one.
      schedule_state: the state of a `FeedbackSchedule`; empty for any other schedule.
    """

    step: jax.Array
    params: Params
    opt_state: optax.OptState
    key: jax.Array
    schedule_state: Any = ()


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, MetricSums]]


def init_train_state(
    model: Seq2SeqModel,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    params: Params | None = None,
    schedule: Schedule | FeedbackSchedule | None = None,
) -> TrainState:
    """Makes the initial state.

    Args:
      model: its `init` draws the parameters.
      optimizer: any optax transformation.
      key: determines the parameters and every later draw.
      params: parameters to start from instead; they are copied, since training donates its state.
      schedule: that of the training; only a `FeedbackSchedule` has to be given.
    """
    if params is None:
        first = model.init(stream_key(key, "init"))
    else:
        first = jax.tree.map(jnp.copy, params)
    of_schedule = () if schedule is None else as_feedback(schedule).init()
    of_schedule = jax.tree.map(jnp.array, of_schedule)
    return TrainState(jnp.zeros((), jnp.int32), first, optimizer.init(first), key, of_schedule)


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: Schedule | FeedbackSchedule,
) -> TrainStep:
    """Makes the train step: one update with the gradient at the schedule's teacher_prob.

    Args:
      objective: (params, batch, key, teacher_prob) -> (loss, metric sums).
      optimizer: any optax transformation.
      schedule: training step -> teacher_prob; evaluated on the traced step, so a changing value
        does not recompile anything. With `lambda step: teacher_prob`, where teacher_prob is an
        argument of the jitted function, one program serves all schedules. The state of a
        `FeedbackSchedule` is updated with the metric sums; `init_train_state` makes the first.

    Returns:
      train_step(state, batch) -> (state, metric sums); pure and not jitted, so that the caller can
      choose `jax.jit`, `jax.vmap` or `jax.lax.scan`. It adds "teacher_prob" and "gradient_norm"
      (L2, before the optimiser clips) to the objective's sums. It raises a ValueError if the state
      is not one of the schedule.
    """
    gradient, feedback = jax.grad(objective, has_aux=True), as_feedback(schedule)
    structure = jax.tree.structure(jax.eval_shape(feedback.init))

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, MetricSums]:
        if jax.tree.structure(state.schedule_state) != structure:
            raise ValueError(
                "the train state has no state of this schedule; give init_train_state the schedule"
            )
        key = jax.random.fold_in(state.key, state.step)
        teacher_prob = feedback.teacher_prob(state.step, state.schedule_state)
        gradients, metrics = gradient(state.params, batch, key, teacher_prob)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        metrics = metrics | {
            "teacher_prob": Mean(jnp.asarray(teacher_prob, jnp.float32), jnp.ones(())),
            "gradient_norm": Mean(optax.tree.norm(gradients), jnp.ones(())),
        }
        params = optax.apply_updates(state.params, updates)
        of_schedule = feedback.update(state.schedule_state, metrics)
        return TrainState(state.step + 1, params, opt_state, state.key, of_schedule), metrics

    return train_step
