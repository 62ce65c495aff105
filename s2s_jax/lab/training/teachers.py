"""Opens what `objective.teacher` names: a trained run, or the truth of a generated task."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from s2s_jax.data.markov import HIDDEN, known_truth
from s2s_jax.data.task import Task
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.evaluation.divergence import knows_symbols, symbol_ids
from s2s_jax.lab.runs.run_folder import RunFolder
from s2s_jax.lab.training.build import TEACHER, TRUTH, Experiment
from s2s_jax.lab.training.other_runs import check_unchanged, naming_the_key
from s2s_jax.lab.training.trained_run import load_run
from s2s_jax.lab.training.warm_start import record_of
from s2s_jax.objectives import Teacher, make_model_teacher
from s2s_jax.objectives.chain_teacher import make_chain_teacher


class LoadedTeacher(NamedTuple):
    """A teacher, and where it comes from.

    Attributes:
      teacher: the teacher.
      record: the run that it is, and what its training used, see
        `s2s_jax.lab.runs.provenance.STARTED_FROM`; None if it is the truth.
    """

    teacher: Teacher
    record: dict[str, Any] | None = None

    def check(self, folder: RunFolder) -> None:
        """Checks that a run which was begun before had the same teacher.

        Raises:
          LabError: the teacher has other parameters now.
        """
        provenance = folder.provenance()
        before = provenance.teacher if provenance else None
        if self.record is not None:
            check_unchanged("with the teacher of step", folder, before, self.record)


def check_teacher(experiment: Experiment) -> None:
    """Checks that a run which is to be trained has its teacher; reads no parameters.

    Raises:
      LabError, DataError: the folder that `objective.teacher` names holds no trained run.
    """
    folder = experiment.teacher_folder
    if folder is None:
        return
    run = RunFolder(folder)
    with naming_the_key(TEACHER):
        if run.vocabularies() is None or not run.has_checkpoint:
            raise LabError(f"{folder} holds no trained run")


def load_teacher(
    experiment: Experiment, task: Task, report: Callable[[str], None] = lambda line: None
) -> LoadedTeacher | None:
    """The teacher of an experiment; None if its objective has none.

    Args:
      experiment: its `objective.teacher` is a run's folder or "truth".
      task: the data.
      report: called with a line of progress.

    Raises:
      LabError: there is no such run, its vocabularies are others, or the truth is not known.
    """
    if experiment.teacher == TRUTH:
        return LoadedTeacher(_truth_of(experiment, task))
    folder = experiment.teacher_folder
    if folder is None:
        return None
    with naming_the_key(TEACHER):
        run = load_run(folder, report=report)
        if run.vocabularies != task.vocabularies:
            raise LabError(
                f"{folder} has other vocabularies; a teacher must be trained on the same data with"
                " the same vocabularies"
            )
        record = record_of(RunFolder(folder), run)
    report(f"teacher: {folder}, {run.origin}")
    return LoadedTeacher(make_model_teacher(run.model, run.params), record)


def _truth_of(experiment: Experiment, task: Task) -> Teacher:
    config, vocabularies = experiment.config, task.vocabularies
    truth = known_truth(config.data.name, config.data)
    if truth is None or not knows_symbols(vocabularies, truth):
        raise LabError("objective.teacher=truth; some symbols never occur in the training data")
    revealed = np.full(len(vocabularies.source), -1)
    for number in range(truth.num_symbols):
        for one in vocabularies.source.encode(str(number)):
            revealed[one] = number
    for one in vocabularies.source.encode(HIDDEN):
        revealed[one] = -1
    return make_chain_teacher(
        truth.initial,
        truth.transition,
        truth.emission,
        truth.length,
        source_symbols=revealed,
        target_ids=symbol_ids(vocabularies, truth),
        vocab_size=len(vocabularies.target),
    )
