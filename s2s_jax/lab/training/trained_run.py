"""A run that was trained: opened from its folder, with its data, evaluated."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from s2s_jax.data.splits import fingerprints_of
from s2s_jax.data.task import Task, Vocabularies
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.keys import Config
from s2s_jax.lab.config.user_code import ENVIRONMENT, Modules
from s2s_jax.lab.runs.checkpoints import Checkpoints
from s2s_jax.lab.runs.provenance import Provenance, differing_data
from s2s_jax.lab.runs.run_folder import RunFolder
from s2s_jax.lab.training.build import (
    check_config,
    load_config_task,
    make_evaluator,
    make_model,
)
from s2s_jax.lab.training.compiled_update import progress_template
from s2s_jax.models.interface import Params, Seq2SeqModel


@dataclass(frozen=True)
class TrainedRun:
    """A run that has a checkpoint; no data is needed to open it.

    Attributes:
      config: the run's.
      vocabularies: the run's.
      model: its functions.
      params: of the checkpoint.
      step: of the checkpoint.
      provenance: what else the run depends on; None where that was not recorded.
      modules: where its components are found.
    """

    config: Config
    vocabularies: Vocabularies
    model: Seq2SeqModel
    params: Params
    step: int
    provenance: Provenance | None = None
    modules: Modules = ENVIRONMENT

    @property
    def origin(self) -> str:
        """Which step it is, and which data it was trained on: their name and fingerprint."""
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
      report: takes a line where a module of the user's has changed since; the run's copy is used.

    Raises:
      LabError: the folder holds no run, or no checkpoint that fits.
    """
    run = RunFolder(workdir)
    config, vocabularies = run.config(), run.vocabularies()
    if vocabularies is None:
        raise LabError(f"{workdir} holds no trained run: its vocabularies are missing")
    modules = run.modules(report)
    _, optimizer = check_config(config, modules)
    model, objective = make_model(config, vocabularies, modules)
    belongs_to = run.belongings()
    with Checkpoints(run.checkpoints, read_only=True, belongs_to=belongs_to) as checkpoints:
        template = progress_template(model, objective, optimizer).state.params
        # Of the parameters alone, what was saved under other switches of JAX can be read, too.
        step, params = checkpoints.restore(template, checkpoint, part="state.params")
    return TrainedRun(config, vocabularies, model, params, step, run.provenance(), modules)


def load_run_task(run: TrainedRun, report: Callable[[str], None] = lambda line: None) -> Task:
    """The data that a run's config names, as they are now, in its vocabularies.

    Args:
      run: of `load_run`.
      report: takes a line where they are not what the run was trained on.

    Raises:
      DataError: the data cannot be loaded.
    """
    task = load_config_task(run.config, run.vocabularies, run.modules)
    there = run.provenance.data if run.provenance else fingerprints_of(task.splits)
    differing = differing_data(there, fingerprints_of(task.splits))
    if differing:
        report(f"the run was trained with other {differing}: the content has changed since")
    return task


def evaluate_run(run: TrainedRun, split: str, task: Task | None = None) -> dict[str, float]:
    """The metrics of a whole split, named "<split>/gold/nll", "<split>/own/..." and so on.

    Args:
      run: of `load_run`.
      split: which one.
      task: of `load_run_task`; None loads it.

    Raises:
      DataError: the data cannot be loaded, or has no such split.
    """
    task = load_run_task(run) if task is None else task
    return make_evaluator(run.config, run.model, task, run.modules).split(run.params, split)
