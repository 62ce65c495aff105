"""Opens what `objective.teacher` names: a trained run, or the truth of a generated task."""

from collections.abc import Callable

import numpy as np

from s2s_jax.data.markov import HIDDEN, known_truth
from s2s_jax.data.task import Task
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.evaluation.divergence import knows_symbols, symbol_ids
from s2s_jax.lab.training.build import TRUTH, Experiment
from s2s_jax.lab.training.trained_run import load_run
from s2s_jax.objectives import Teacher, make_model_teacher
from s2s_jax.objectives.chain_teacher import make_chain_teacher


def load_teacher(
    experiment: Experiment, task: Task, report: Callable[[str], None] = lambda line: None
) -> Teacher | None:
    """The teacher of an experiment; None if its objective has none.

    Args:
      experiment: its `objective.teacher` is a run's folder or "truth".
      task: the data.
      report: called with a line of progress.

    Raises:
      LabError: there is no such run, its vocabularies are others, or the truth is not known.
    """
    name = experiment.teacher
    if name is None:
        return None
    if name == TRUTH:
        return _truth_of(experiment, task)
    run = load_run(name, report=report)
    if run.vocabularies != task.vocabularies:
        raise LabError(
            f"objective.teacher={name} has other vocabularies; a teacher must be trained on the"
            " same data with the same vocabularies"
        )
    report(f"teacher: {name}, {run.origin}")
    return make_model_teacher(run.model, run.params)


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
