"""The training loop: compiled steps, what is logged, evaluations, checkpoints."""

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from s2s_jax.batch import Batch
from s2s_jax.data.batching import TrainingBatches
from s2s_jax.lab.checkpoints import Checkpoints
from s2s_jax.lab.errors import LabError
from s2s_jax.lab.evaluator import Evaluator
from s2s_jax.lab.tracking import Tracker
from s2s_jax.metrics import MetricSums, compute, merge
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.objectives import Objective
from s2s_jax.schedules import Schedule
from s2s_jax.training import TrainState, Update, init_train_state, make_update

_REPORT_SECONDS = 5.0


class NonFiniteLossError(LabError):
    """The loss or the gradient of a step was NaN or infinite.

    Attributes:
      step: the first such step.
    """

    def __init__(self, step: int, kept: int | None):
        checkpoint = f"the checkpoint of step {kept} is kept" if kept else "there is no checkpoint"
        super().__init__(
            f"the loss of step {step} is not finite; {checkpoint};"
            " set train.learning_rate or train.clip_norm lower, in another workdir"
        )
        self.step = step


class Progress(NamedTuple):
    """What a checkpoint holds: a run goes on from it as if it had never stopped.

    Attributes:
      state: the train state.
      sums: the metrics added up since they were last logged.
    """

    state: TrainState
    sums: MetricSums


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
        self._num_steps, self._log_every = num_steps, log_every
        self._evaluate_every = evaluate_every
        self._teacher_probs = np.asarray(jax.vmap(schedule)(jnp.arange(num_steps)), np.float32)
        init = jax.jit(partial(init_train_state, model, optimizer))
        self._init = partial(init, key)
        update = make_update(objective, optimizer)
        self._step = jax.jit(partial(_accumulate, update), donate_argnums=0)
        self._are_finite = jax.jit(lambda tree: jnp.isfinite(optax.tree.norm(tree)))
        self.template = progress_template(model, objective, optimizer)
        """The shapes of a checkpoint's content."""
        self._no_sums = jax.tree.map(
            lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.template.sums
        )

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
        clock = _Clock(seconds_before)
        state, sums = start or Progress(self._init(), self._no_sums)
        step = first = int(state.step)
        num_tokens = target_tokens(self._batches, first)
        if first >= self._num_steps:  # it stopped between its last step and its result
            return first
        compiled, compile_seconds = self._compile()
        if first == 0:
            tracker.scalars(0, {"train/compile_seconds": compile_seconds})
        printer = _Printer(self._report, first, self._num_steps)
        rate = _Clock()
        bad_step: jax.Array | np.ndarray = np.full((), -1, np.int32)
        waiting: tuple[int, int, MetricSums, jax.Array | np.ndarray] | None = None

        def check_finite(first_bad: int) -> None:
            if first_bad >= 0:
                raise NonFiniteLossError(first_bad, checkpoints.latest_step)

        def log_waiting() -> None:
            nonlocal waiting
            if waiting is not None:
                logged, trained_on, done, first_bad = waiting
                waiting = None
                check_finite(int(first_bad))
                metrics = {f"train/{name}": value for name, value in compute(done).items()}
                new_tokens = float(done["loss"].weight)
                metrics["train/tokens_per_second"] = new_tokens / max(rate.restart(), 1e-9)
                metrics["train/target_tokens"] = trained_on
                metrics["train/seconds"] = clock.seconds
                tracker.scalars(logged, metrics)
                printer.step(logged, metrics)

        while step < self._num_steps:
            batch = self._batches[step]
            shape = (batch.source.shape[1], batch.target.shape[1])
            teacher_prob = self._teacher_probs[step]
            state, sums, bad_step = compiled[shape](state, sums, bad_step, batch, teacher_prob)
            step += 1
            num_tokens += int(batch.target_mask.sum())
            log_waiting()
            evaluates = step % self._evaluate_every == 0 or step == self._num_steps
            if step % self._log_every == 0 or evaluates:
                waiting, sums = (step, num_tokens, sums, bad_step), self._no_sums
            stops = step < self._num_steps and should_stop()
            if evaluates or stops:
                log_waiting()
                # The last update can leave parameters that only the next step would find out.
                check_finite(int(bad_step) if self._are_finite(state.params) else step)
                cost = None
                if evaluates:
                    metrics = self._evaluator.dev(state.params)
                    tracker.scalars(step, metrics)
                    self._evaluator.show(state.params, tracker, step)
                    printer.say(step, self._evaluator.summary(metrics))
                    cost = self._evaluator.cost(metrics)
                tracker.flush()
                checkpoints.save(step, Progress(state, sums), cost)
                rate.restart()
            if stops:
                break
        return step

    def _compile(self) -> tuple[dict[tuple[int, int], Callable[..., Any]], float]:
        """Compiles the step for every shape, several at a time; and the seconds that it took."""
        begin = time.perf_counter()
        shapes, rows = self._batches.shapes, self._batches.batch_size
        self._report(f"compiling the train step for {len(shapes)} batch shapes ...")

        def compile_one(shape: tuple[int, int]) -> Callable[..., Any]:
            source_time, time = shape
            arrays: Any = (
                jax.ShapeDtypeStruct((rows, length), dtype)
                for length in (source_time, time)
                for dtype in (jnp.int32, jnp.bool_)
            )
            batch = Batch(*arrays)
            bad_step = jax.ShapeDtypeStruct((), jnp.int32)
            teacher_prob = jax.ShapeDtypeStruct((), jnp.float32)
            return self._step.lower(*self.template, bad_step, batch, teacher_prob).compile()

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            compiled = dict(zip(shapes, pool.map(compile_one, shapes), strict=True))
        return compiled, time.perf_counter() - begin


def target_tokens(batches: TrainingBatches, num_steps: int) -> int:
    """The target tokens of the first batches; exact, as no float32 of a long run would be.

    A resumed run counts them anew: batches depend on the step alone, and every epoch has all pairs.
    """
    epochs, rest = divmod(num_steps, batches.num_batches)

    def count(first: int, number: int) -> int:
        return sum(int(batches[step].target_mask.sum()) for step in range(first, first + number))

    whole = epochs * count(0, batches.num_batches) if epochs else 0
    return whole + count(epochs * batches.num_batches, rest)


def progress_template(
    model: Seq2SeqModel, objective: Objective, optimizer: optax.GradientTransformation
) -> Progress:
    """The shapes of what a checkpoint of such a run holds."""
    state = jax.eval_shape(partial(init_train_state, model, optimizer), jax.random.key(0))
    tokens, mask = np.ones((1, 1), np.int32), np.ones((1, 1), bool)
    batch = Batch(tokens, mask, tokens, mask)
    update = make_update(objective, optimizer)
    return Progress(state, jax.eval_shape(update, state, batch, np.float32(1))[1])


def _accumulate(
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


class _Clock:
    """Seconds since it was started."""

    def __init__(self, before: float = 0.0):
        self._begin = time.perf_counter() - before

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begin

    def restart(self) -> float:
        """Starts anew; returns the seconds until now."""
        seconds = self.seconds
        self._begin = time.perf_counter()
        return seconds


class _Printer:
    """Prints where a run is, at most every few seconds."""

    def __init__(self, report: Callable[[str], None], first: int, num_steps: int):
        self._report, self._first, self._num_steps = report, first, num_steps
        self._clock, self._last = _Clock(), _Clock(_REPORT_SECONDS)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._last.seconds < _REPORT_SECONDS and step < self._num_steps:
            return
        self._last.restart()
        left = self._clock.seconds / (step - self._first) * (self._num_steps - step)
        self.say(
            step,
            f"loss {metrics['train/loss']:.4f}"
            f"  teacher_prob {metrics['train/teacher_prob']:.3f}"
            f"  {metrics['train/tokens_per_second']:,.0f} tokens/s"
            f"  {int(left) // 60}:{int(left) % 60:02d} left",
        )

    def say(self, step: int, text: str) -> None:
        width = len(str(self._num_steps))
        self._report(f"step {step:{width}d}/{self._num_steps}  {text}")
