"""The training of one run: its compiled update, and what its checkpoints hold."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from s2s_jax.batch import Batch
from s2s_jax.data.batching import TrainingBatches
from s2s_jax.lab.checkpoints import Checkpoints
from s2s_jax.lab.compilation import CompiledInTurn, lowered_in_turn
from s2s_jax.lab.evaluator import Evaluator
from s2s_jax.lab.lanes import Lane, Progress, Reading, StepInput, train_lanes
from s2s_jax.lab.tracking import Tracker
from s2s_jax.metrics import MetricSums, merge
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.objectives import Objective
from s2s_jax.schedules import Schedule
from s2s_jax.training import TrainState, Update, init_train_state, make_update

Shape = tuple[int, int]
"""(source_time, time) of a batch."""


class Trainer:
    """Makes the updates of one run.

    The compiled program takes teacher_prob as an argument and so serves every schedule; metrics are
    added up on the device and fetched one step late, when the device is already at work on the
    next.

    Args:
      model: the functions of `Seq2SeqModel`.
      objective: of `make_objective`.
      optimizer: any optax transformation.
      schedule: training step -> teacher_prob.
      batches: `batches[step]` for every step.
      evaluator: of the same model.
      key: the run's key.
      num_steps: updates to make.
      log_every: steps between lines of `metrics.jsonl`.
      evaluate_every: steps between evaluations, each followed by a checkpoint.
      report: takes a line of progress.
    """

    def __init__(
        self,
        model: Seq2SeqModel,
        objective: Objective,
        optimizer: optax.GradientTransformation,
        schedule: Schedule,
        batches: TrainingBatches,
        evaluator: Evaluator,
        *,
        key: jax.Array,
        num_steps: int,
        log_every: int,
        evaluate_every: int,
        report: Callable[[str], None],
    ):
        self._batches, self._evaluator, self._report = batches, evaluator, report
        self._log_every, self._evaluate_every = log_every, evaluate_every
        self._teacher_probs = schedule_values(schedule, num_steps)
        self._init = partial(make_init(model, optimizer), key)
        # What is traced for the template serves the first program as well: inside jit it is kept.
        self._update = jax.jit(make_update(objective, optimizer))
        batch = batch_template(batches.batch_size, batches.shapes_from(0)[0])
        self.template = _template_of(model, optimizer, self._update, batch)
        """The shapes of a checkpoint's content."""

    def train(
        self,
        tracker: Tracker,
        checkpoints: Checkpoints,
        start: Progress | None = None,
        *,
        seconds_before: float = 0.0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> int:
        """Trains to the last step, or until it should stop.

        Args:
          tracker: logs.
          checkpoints: keeps a checkpoint at every evaluation and where training stops.
          start: a checkpoint's content; None for the beginning.
          seconds_before: what earlier calls have taken.
          should_stop: asked after every step.

        Returns:
          The number of steps made, in all; below num_steps where it should stop.

        Raises:
          NonFiniteLossError: a step's loss or gradient is not finite; what it made is not saved.
        """
        start = start or Progress(self._init(), zero_sums(self.template))
        program = _Program(self._update, self.template, start, self._batches, self._report)
        lane = Lane(
            self._batches,
            self._teacher_probs,
            self._evaluator,
            tracker,
            checkpoints,
            first_step=int(start.state.step),
            log_every=self._log_every,
            evaluate_every=self._evaluate_every,
            report=self._report,
            seconds_before=seconds_before,
        )
        train_lanes([lane], program, should_stop)
        if lane.error is not None:
            raise lane.error
        return lane.step


class _Program:
    """The device's side of one run; see `Programs`.

    Args:
      update: of `make_update`.
      template: of `progress_template`.
      start: where the run goes on.
      batches: the run's.
      report: takes a line of progress.
    """

    def __init__(
        self,
        update: Update,
        template: Progress,
        start: Progress,
        batches: TrainingBatches,
        report: Callable[[str], None],
    ):
        self._template, self._batches, self._report = template, batches, report
        self._step = jax.jit(partial(accumulate, update), donate_argnums=0)
        self._are_finite = jax.jit(lambda tree: jnp.isfinite(optax.tree.norm(tree)))
        self._no_sums = zero_sums(template)
        self._state, self._sums = start
        self._bad_step: jax.Array | np.ndarray = np.full((), -1, np.int32)
        self._compiled: CompiledInTurn | None = None

    def compile(self) -> None:
        """Compiles the step for the first shape, and begins with the others."""
        bad_step = jax.ShapeDtypeStruct((), jnp.int32)
        teacher_prob = jax.ShapeDtypeStruct((), jnp.float32)

        def lower(shape: Shape) -> jax.stages.Lowered:
            batch = batch_template(self._batches.batch_size, shape)
            return self._step.lower(*self._template, bad_step, batch, teacher_prob)

        shapes = self._batches.shapes_from(int(self._state.step))
        self._report(f"compiling the train step for {len(shapes)} batch shapes ...")
        self._compiled = CompiledInTurn(lowered_in_turn(lower), shapes)
        self._compiled[shapes[0]]  # waits; nothing can begin without it

    @property
    def compile_seconds(self) -> float:
        """How long training has waited for the compiler."""
        return self._compiled.seconds_waited if self._compiled else 0.0

    def advance(self, inputs: Mapping[int, StepInput]) -> None:
        """Starts an update."""
        assert self._compiled is not None
        batch, teacher_prob = inputs[0]
        self._state, self._sums, self._bad_step = self._compiled[shape_of(batch)](
            self._state, self._sums, self._bad_step, batch, teacher_prob
        )

    def close(self) -> None:
        """Compiles no more."""
        if self._compiled is not None:
            self._compiled.close()

    def take_sums(self, numbers: Sequence[int]) -> Reading:
        """What was added up; it begins anew."""
        sums, bad_step = self._sums, self._bad_step
        self._sums = self._no_sums
        return lambda number: (sums, int(bad_step))

    def progress(self, number: int) -> Progress:
        """Where the run is."""
        return Progress(self._state, self._sums)

    def first_bad_step(self, number: int) -> int:
        """The first step that was not finite."""
        bad_step = int(self._bad_step)
        # The last update can leave parameters that only the next step would find out.
        if bad_step >= 0 or self._are_finite(self._state.params):
            return bad_step
        return int(self._state.step)


def accumulate(
    update: Update,
    state: TrainState,
    sums: MetricSums,
    bad_step: jax.Array,
    batch: Batch,
    teacher_prob: jax.Array,
) -> tuple[TrainState, MetricSums, jax.Array]:
    """An update that adds its metrics up and notes the first step that is not finite."""
    new_state, new = update(state, batch, teacher_prob)
    finite = jnp.isfinite(new["loss"].total) & jnp.isfinite(new["gradient_norm"].total)
    bad_step = jnp.where((bad_step < 0) & ~finite, state.step, bad_step)
    return new_state, merge(sums, new), bad_step


def schedule_values(schedule: Schedule, num_steps: int) -> np.ndarray:
    """[num_steps] float32 teacher_prob of every step."""
    return np.asarray(jax.vmap(schedule)(jnp.arange(num_steps)), np.float32)


def make_init(
    model: Seq2SeqModel, optimizer: optax.GradientTransformation
) -> Callable[[jax.Array], TrainState]:
    """Makes the compiled function from a key to the state before the first step."""
    return jax.jit(partial(init_train_state, model, optimizer))


def progress_template(
    model: Seq2SeqModel, objective: Objective, optimizer: optax.GradientTransformation
) -> Progress:
    """The shapes of what a checkpoint of such a run holds."""
    return _template_of(
        model, optimizer, make_update(objective, optimizer), batch_template(1, (1, 1))
    )


def _template_of(
    model: Seq2SeqModel, optimizer: optax.GradientTransformation, update: Update, batch: Batch
) -> Progress:
    state = jax.eval_shape(partial(init_train_state, model, optimizer), jax.random.key(0))
    teacher_prob: Any = jax.ShapeDtypeStruct((), jnp.float32)
    return Progress(state, jax.eval_shape(update, state, batch, teacher_prob)[1])


def zero_sums(template: Progress) -> MetricSums:
    """Sums before anything was added."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template.sums)


def shape_of(batch: Batch) -> Shape:
    """The shape that a batch is compiled for."""
    return batch.source.shape[-1], batch.target.shape[-1]


def batch_template(num_rows: int, shape: Shape) -> Batch:
    """The shapes of a batch's arrays."""
    source_time, target_time = shape
    arrays: Any = (
        jax.ShapeDtypeStruct((num_rows, length), dtype)
        for length in (source_time, target_time)
        for dtype in (jnp.int32, jnp.bool_)
    )
    return Batch(*arrays)
