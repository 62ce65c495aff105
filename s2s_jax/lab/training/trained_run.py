"""Opens a trained run from its folder, loads its data and evaluates it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import jax

from s2s_jax.data.splits import fingerprints_of
from s2s_jax.data.task import Task, Vocabularies
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.keys import Config
from s2s_jax.lab.runs.checkpoints import Checkpoints
from s2s_jax.lab.runs.provenance import Provenance, differing_data
from s2s_jax.lab.runs.run_folder import RunFolder
from s2s_jax.lab.training.build import Experiment, make_experiment
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.optimizers import averages_params, evaluation_params
from s2s_jax.training import init_train_state


@dataclass(frozen=True)
class TrainedRun:
    """A run that has a checkpoint; it can be opened without its data.

    Attributes:
      experiment: the experiment of its config.
      vocabularies: the run's vocabularies.
      model: the functions of its model.
      params: the parameters to evaluate, from the checkpoint.
      step: the step of the checkpoint.
      provenance: what else the run depends on; None if that was not recorded.
    """

    experiment: Experiment
    vocabularies: Vocabularies
    model: Seq2SeqModel
    params: Params
    step: int
    provenance: Provenance | None = None

    @property
    def config(self) -> Config:
        """The run's config."""
        return self.experiment.config

    @property
    def origin(self) -> str:
        """The step, and the name and fingerprint of the training data, as text."""
        known = self.provenance.data if self.provenance else {}
        data = f", data {known.get('train', known.get('all', ''))}" if known else ""
        return f"step {self.step:,}, trained on {self.config.data.name}{data}"


def load_run(
    workdir: str | Path,
    checkpoint: Literal["best", "latest"] = "best",
    report: Callable[[str], None] = lambda line: None,
) -> TrainedRun:
    """Opens a run for evaluation and decoding.

    Args:
      workdir: the run's folder.
      checkpoint: "best" (on the dev split) or "latest".
      report: called with a line if a user's module has changed since; the run's copy is used.

    Raises:
      LabError: the folder holds no run, or no matching checkpoint.
    """
    run = RunFolder(workdir)
    config, vocabularies = run.config(), run.vocabularies()
    if vocabularies is None:
        raise LabError(f"{workdir} holds no trained run: its vocabularies are missing")
    experiment = make_experiment(config, run.modules(report))
    model = experiment.make_model(vocabularies)
    belongs_to = run.belongings()
    with Checkpoints(run.checkpoints, read_only=True, belongs_to=belongs_to) as checkpoints:
        optimizer = experiment.make_optimizer()
        init = partial(init_train_state, model, optimizer, schedule=experiment.schedule)
        state = jax.eval_shape(init, jax.random.key(0))
        if averages_params(state.opt_state):
            step, whole = checkpoints.restore(state, checkpoint, part="state")
            params = evaluation_params(whole.opt_state, whole.params)
        else:
            # The parameters alone can also be read under different JAX switches.
            step, params = checkpoints.restore(state.params, checkpoint, part="state.params")
    return TrainedRun(experiment, vocabularies, model, params, step, run.provenance())


def load_run_task(run: TrainedRun, report: Callable[[str], None] = lambda line: None) -> Task:
    """Loads the current state of the data that a run's config names, with the run's vocabularies.

    Args:
      run: see `load_run`.
      report: called with a line if the data differ from what the run was trained on.

    Raises:
      DataError: the data cannot be loaded.
    """
    task = run.experiment.load_task(run.vocabularies)
    there = run.provenance.data if run.provenance else fingerprints_of(task.splits)
    differing = differing_data(there, fingerprints_of(task.splits))
    if differing:
        report(f"the run was trained with other {differing}: the content has changed since")
    return task


def evaluate_run(run: TrainedRun, split: str, task: Task | None = None) -> dict[str, float]:
    """Computes the metrics of a whole split: "<split>/gold/nll", "<split>/own/..." and so on.

    Args:
      run: see `load_run`.
      split: the name of the split.
      task: the result of `load_run_task`; None loads it.

    Raises:
      DataError: the data cannot be loaded, or has no such split.
    """
    task = load_run_task(run) if task is None else task
    return run.experiment.make_evaluator(run.model, task).split(run.params, split)
