"""The host side of a run in training: what is logged and saved, and when."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.batch import Batch
from s2s_jax.data.batching import TrainingBatches
from s2s_jax.lab.base.decorations import Decorations
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.evaluation.evaluator import Evaluator
from s2s_jax.lab.runs.checkpoints import Checkpoints
from s2s_jax.lab.runs.tracking import Tracker
from s2s_jax.lab.training.device_lanes import DeviceLanes, Reading
from s2s_jax.lab.training.progress_lines import Clock, ProgressPrinter
from s2s_jax.metrics import compute
from s2s_jax.optimizers import evaluation_params
from s2s_jax.schedules import FeedbackSchedule, Schedule


class NonFiniteLossError(LabError):
    """The loss or the gradient of a step was NaN or infinite.

    Attributes:
      step: the first step with a NaN or an infinity.
    """

    def __init__(self, step: int, kept: int | None):
        checkpoint = f"the checkpoint of step {kept} is kept" if kept else "there is no checkpoint"
        super().__init__(
            f"the loss of step {step} is not finite; {checkpoint};"
            " set train.learning_rate or train.clip_norm lower, in another workdir"
        )
        self.step = step


class Lane:
    """The host side of a run in training.

    Args:
      batches: `batches[step]` for every step.
      teacher_probs: [num_steps] float32.
      evaluator: the evaluator of the run's model.
      tracker: the run's tracker, which writes the logs.
      checkpoints: saves a checkpoint at every evaluation and when training stops.
      first_step: number of updates that were made before.
      log_every: number of steps between lines of `metrics.jsonl`.
      evaluate_every: number of steps between evaluations, each followed by a checkpoint.
      report: called with each line of progress.
      seconds_before: time that earlier calls took.

    Attributes:
      step: number of updates made, including those of earlier calls.
      num_steps: total number of updates to make.
      error: why the run failed; None if it has not.
    """

    def __init__(
        self,
        batches: TrainingBatches,
        teacher_probs: np.ndarray,
        evaluator: Evaluator,
        tracker: Tracker,
        checkpoints: Checkpoints,
        *,
        first_step: int,
        log_every: int,
        evaluate_every: int,
        report: Callable[[str], None],
        seconds_before: float = 0.0,
    ):
        self.batches, self.teacher_probs = batches, teacher_probs
        self.step, self.num_steps = first_step, len(teacher_probs)
        self.error: LabError | None = None
        self._evaluator, self._tracker, self._checkpoints = evaluator, tracker, checkpoints
        self._log_every, self._evaluate_every = log_every, evaluate_every
        self._num_tokens = self._tokens_logged = target_tokens(batches, first_step)
        self._clock, self._rate = Clock(seconds_before), Clock()
        self._printer = ProgressPrinter(report, first_step, self.num_steps)
        self._decorations = Decorations(report)
        self._begins_here, self._has_waited, self._compile_seconds = first_step == 0, False, 0.0
        self._waiting: tuple[int, int, Reading] | None = None

    @property
    def trains(self) -> bool:
        """Whether there are updates left to make."""
        return self.error is None and self.step < self.num_steps

    @property
    def evaluates(self) -> bool:
        """Whether an evaluation is due at this step."""
        return self.step % self._evaluate_every == 0 or self.step == self.num_steps

    @property
    def logs(self) -> bool:
        """Whether a line of metrics is due at this step."""
        return self.step % self._log_every == 0 or self.evaluates

    def begin(self, compile_seconds: float) -> None:
        """Starts the clocks: the first program is compiled, and the first update follows."""
        if self._begins_here:
            self._tracker.scalars(0, {"train/compile_seconds": compile_seconds})
        self._compile_seconds = compile_seconds
        self._rate.restart()
        self._printer.restart()

    def advanced(self, batch: Batch) -> None:
        """Counts an update that was just started."""
        self.step += 1
        self._num_tokens += int(batch.target_mask.sum())

    def log_later(self, reading: Reading) -> None:
        """Keeps this step's metrics for `log_waiting`, when the device is at the next step."""
        self._waiting = self.step, self._num_tokens, reading

    def log_waiting(self, number: int) -> None:
        """Logs the metrics that `log_later` kept, if any.

        Raises:
          NonFiniteLossError: a step's loss or gradient was not finite.
          LabError: a checkpoint that was being saved cannot be written.
        """
        self._checkpoints.check()
        if self._waiting is None:
            return
        logged, trained_on, reading = self._waiting
        self._waiting = None
        done, bad_step = reading(number)
        self._check_finite(bad_step)
        metrics = {f"train/{name}": value for name, value in compute(done).items()}
        # Not the weight of the sums: after a resume, they include tokens from before the stop.
        new_tokens, self._tokens_logged = trained_on - self._tokens_logged, trained_on
        metrics["train/tokens_per_second"] = new_tokens / max(self._rate.restart(), 1e-9)
        metrics["train/target_tokens"] = trained_on
        metrics["train/seconds"] = self._clock.seconds
        if self._has_waited and self._begins_here:
            metrics["train/compile_seconds"] = self._compile_seconds
        self._has_waited = False
        self._tracker.scalars(logged, metrics)
        self._printer.step(logged, metrics)

    def keep(self, number: int, device: DeviceLanes) -> None:
        """Evaluates if that is due, and saves a checkpoint; call `log_waiting` first.

        Pictures and examples come last, so that a failure there cannot cost the run its checkpoint.

        Raises:
          NonFiniteLossError: a step's loss or gradient was not finite; nothing is saved.
          LabError: the checkpoint cannot be written.
        """
        self._check_finite(device.first_bad_step(number))
        progress = device.progress(number)
        params = evaluation_params(progress.state.opt_state, progress.state.params)
        cost = None
        if self.evaluates:
            metrics = self._evaluator.dev(params)
            self._tracker.scalars(self.step, metrics, self._evaluator.catalog)
            self._printer.say(self.step, self._evaluator.summary(metrics))
            cost = self._evaluator.cost(metrics)
        self._tracker.flush()
        self._checkpoints.save(self.step, progress, cost)
        if self.evaluates:
            self._evaluator.show(params, self._tracker, self.step, self._decorations.attempt)

    def waited_for_compiler(self, seconds: float) -> None:
        """Records that an update had to wait for its program to compile."""
        self._has_waited = True
        self._compile_seconds += seconds
        self._rate.skip(seconds)
        self._printer.skip(seconds)

    def pause(self, seconds: float) -> None:
        """Excludes some time from the training rate."""
        self._rate.skip(seconds)

    def _check_finite(self, first_bad: int) -> None:
        if first_bad >= 0:
            raise NonFiniteLossError(first_bad, self._checkpoints.latest_step)


def schedule_values(schedule: Schedule | FeedbackSchedule, num_steps: int) -> np.ndarray:
    """The teacher_prob of every step, [num_steps] float32.

    What a `FeedbackSchedule` will give is known only to the train step, which computes it. Here 0
    stands for it: the model's own tokens may be fed.

    Raises:
      LabError: a value is not in [0, 1]; of a `FeedbackSchedule`, the first one.
    """
    if isinstance(schedule, FeedbackSchedule):
        first = schedule.teacher_prob(jnp.zeros((), jnp.int32), schedule.init())
        _check_probabilities(np.asarray([first], np.float32))
        return np.zeros(num_steps, np.float32)
    values = np.asarray(jax.vmap(schedule)(jnp.arange(num_steps)), np.float32)
    _check_probabilities(values)
    return values


def _check_probabilities(values: np.ndarray) -> None:
    outside = np.flatnonzero(~((values >= 0) & (values <= 1)))  # NaN counts as outside
    if len(outside):
        step = outside[0]
        raise LabError(
            f"the schedule gives teacher_prob {values[step]:g} at step {step}; it must be in [0, 1]"
        )


def target_tokens(batches: TrainingBatches, num_steps: int) -> int:
    """Counts the target tokens of the first num_steps batches.

    The count is an exact integer, while a float32 would lose precision in a long run. A resumed run
    can count again, since batches depend only on the step and every epoch contains all pairs.
    """
    epochs, rest = divmod(num_steps, batches.num_batches)

    def count(first: int, number: int) -> int:
        return sum(int(batches[step].target_mask.sum()) for step in range(first, first + number))

    whole = epochs * count(0, batches.num_batches) if epochs else 0
    return whole + count(epochs * batches.num_batches, rest)
