"""The session of a run in training: opens everything in its folder, and ends the run."""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from s2s_jax.data.files import clear_abandoned
from s2s_jax.data.task import Task
from s2s_jax.lab.config.keys import Config, Overrides, config_files, flat_keys
from s2s_jax.lab.config.user_code import changed_since_import
from s2s_jax.lab.evaluation.evaluator import Evaluator
from s2s_jax.lab.runs.checkpoints import Checkpoints
from s2s_jax.lab.runs.names import HPARAM_NAMES, trial_of
from s2s_jax.lab.runs.provenance import Provenance, belongings, differing_versions
from s2s_jax.lab.runs.run_folder import RunFolder
from s2s_jax.lab.runs.tracking import Tracker
from s2s_jax.lab.training.build import Experiment
from s2s_jax.lab.training.lane import NonFiniteLossError
from s2s_jax.lab.training.programs import Progress
from s2s_jax.optimizers import evaluation_params


class RunSession:
    """Opens a run's folder for training, creates it if it is missing, and ends the run.

    Args:
      run: the folder, already checked.
      experiment: the run's experiment; its config is what is recorded.
      overrides: the values in it that came from the command line.
      task: the run's task.
      template: the `template` of `Programs`.
      report: called with each line of progress.
      data: the entry "data" of `result.json`.
      started_from: what a new run starts from; see `Provenance`.
      teacher: the run that is its teacher; likewise.

    Attributes:
      tracker: writes the logs, from the newest checkpoint on.
      checkpoints: the run's checkpoints.
      start: the content of the newest checkpoint; None for a new run.
      seconds_before: the time that earlier sessions took, up to that checkpoint.

    Raises:
      LabError: the folder cannot be written, or another process trains there.
    """

    def __init__(
        self,
        run: RunFolder,
        experiment: Experiment,
        overrides: Overrides,
        task: Task,
        template: Progress,
        report: Callable[[str], None],
        data: Mapping[str, Any],
        started_from: Mapping[str, Any] | None = None,
        teacher: Mapping[str, Any] | None = None,
    ):
        config = experiment.config
        self._run, self._config, self._overrides = run, config, overrides
        self._num_steps = experiment.num_steps
        self._task, self._template, self._report = task, template, report
        self._data = dict(data)
        run.make_folder()
        with contextlib.ExitStack() as stack:
            files = config_files(config)
            provenance = Provenance.of(task, files, started_from, teacher)
            belongs_to = belongings(
                config, provenance.vocabularies, provenance.data, provenance.code
            )
            # Opened before the config is written: their lock lets only one process write one.
            self.checkpoints = stack.enter_context(
                Checkpoints(run.checkpoints, belongs_to=belongs_to)
            )
            clear_abandoned(run.folder)
            run.start(config, task.vocabularies, provenance, files)
            changed = changed_since_import(files)
            if changed:
                report(
                    f"{', '.join(changed)} has changed since this process imported it; the run is"
                    " of what was imported, and keeps a copy of that"
                )
            self.start: Progress | None = None
            resumed_at = self.checkpoints.latest_step
            if resumed_at is not None:
                resumed_at, self.start = self.checkpoints.restore(template)
                report(f"resuming {run.folder} at step {resumed_at}")
                self._say_what_changed(provenance)
                lost = run.lost_lines(
                    resumed_at,
                    log_every=experiment.log_every,
                    evaluate_every=experiment.evaluate_every,
                )
                if lost:
                    report(lost)
            self.seconds_before = run.seconds(resumed_at)
            self._clock = time.perf_counter() - self.seconds_before
            self.tracker = stack.enter_context(Tracker(run.folder, resumed_at))
            trial_id, varied = trial_of(run.folder, config.schedule.name, overrides)
            self.tracker.hparams(_hparams(config, varied), trial_id=trial_id)
            self._open = stack.pop_all()

    @property
    def first_step(self) -> int:
        """The number of updates that were made before."""
        return 0 if self.start is None else int(self.start.state.step)

    def _say_what_changed(self, provenance: Provenance) -> None:
        """Reports versions that have changed since the start."""
        before = self._run.provenance()
        if before is None:
            self._report(
                f"{self._run.folder} did not record its data and JAX's switches; they are not"
                " compared"
            )
        differing = differing_versions(before.versions, provenance.versions) if before else ""
        if differing:
            self._report(f"{self._run.folder} was started with {differing}: the result is of both")

    def fail(self, error: NonFiniteLossError) -> None:
        """Records that the run failed, and why."""
        self._write("failed", steps=error.step, error=str(error))

    def conclude(self, steps: int, evaluator: Evaluator) -> dict[str, Any]:
        """Ends the run; if it has made all its updates, scores its best checkpoint.

        Args:
          steps: number of updates made.
          evaluator: the evaluator of the run's model.

        Returns:
          The content of `result.json`.
        """
        if steps < self._num_steps:
            return self._write("stopped", steps=steps)
        best_step, best = self.checkpoints.restore(self._template, "best")
        params = evaluation_params(best.state.opt_state, best.state.params)
        metrics: dict[str, float] = {}
        for split in self._task.splits:
            if split != "train":
                predictions = None if split == "dev" else self._run.predictions(split)
                found = evaluator.split(params, split, predictions)
                self._report(f"best checkpoint (step {best_step}): {evaluator.summary(found)}")
                metrics |= found
        if evaluator.knows_the_truth:
            # Theory predicts where training ends, not the best step on the way there.
            _, last = self.checkpoints.restore(self._template, "latest")
            metrics |= evaluator.divergence(
                evaluation_params(last.state.opt_state, last.state.params)
            )
        # The dev metrics of that step are already in the log.
        tests = {name: value for name, value in metrics.items() if name[:5] != "eval/"}
        if not self._run.has_logged(tests):  # it may have, before it was killed and resumed
            self.tracker.scalars(steps, tests, evaluator.catalog)
        # The result comes last: it implies that everything else has been written.
        self._open.close()
        return self._write(
            "finished",
            steps=steps,
            metrics=metrics,
            best_step=best_step,
            scores=evaluator.scorer.signature or evaluator.scorer.name,
            score_metrics=[one.to_dict() for one in evaluator.scorer.metrics],
        )

    def _write(self, status: str, **more: Any) -> dict[str, Any]:
        seconds = time.perf_counter() - self._clock
        return self._run.write_result(
            status,
            self._config,
            self._overrides,
            wall_seconds=seconds,
            data=self._data,
            **more,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, traceback)


def _hparams(config: Config, varied: Iterable[str]) -> dict[str, Any]:
    """The values of a config that TensorBoard's HPARAMS table shows, for comparing runs.

    Args:
      config: the run's config.
      varied: the dotted keys in which it differs from other runs beside it.
    """
    values = flat_keys(config)
    return {
        HPARAM_NAMES.get(key, key): values[key] for key in (*HPARAM_NAMES, *varied) if key in values
    }
