"""From a config to the objects that train: the only reader of a ConfigDict."""

from dataclasses import dataclass

import optax

from s2s_jax.data.batching import TrainingBatches
from s2s_jax.data.catalog import dataset_options
from s2s_jax.data.markov import known_truth
from s2s_jax.data.task import Task, Vocabularies, load_task
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.bounds import check_config_numbers
from s2s_jax.lab.config.keys import Config, check_complete, flat_keys, schedule_parameters
from s2s_jax.lab.evaluation.divergence import (
    Divergence,
    covered_by_theory,
    knows_symbols,
    predicted_divergence,
)
from s2s_jax.lab.evaluation.evaluator import Evaluator
from s2s_jax.lab.evaluation.scores import Scorer, make_scorer
from s2s_jax.lab.training.optimizers import make_optimizer
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.models.rnn.functions import make_rnn_model
from s2s_jax.models.rnn.options import RNNOptions
from s2s_jax.objectives import Objective, make_objective
from s2s_jax.rollout import Feeding
from s2s_jax.schedules import Schedule, make_schedule

# Options are checked before the data's vocabularies are known.
_ANY_VOCABULARY, _LARGE_VOCABULARY = 8, 2**24


@dataclass(frozen=True)
class Experiment:
    """What a config asks for."""

    config: Config
    task: Task
    model: Seq2SeqModel
    objective: Objective
    optimizer: optax.GradientTransformation
    schedule: Schedule


def make_experiment(config: Config, vocabularies: Vocabularies | None = None) -> Experiment:
    """Builds everything that a config names; nothing of the run is written.

    Args:
      config: every key of `base_config`.
      vocabularies: those of a run that is already there.

    Raises:
      LabError, DataError: a value that cannot be used, in one line that names it.
    """
    schedule, optimizer = check_config(config)
    task = load_config_task(config, vocabularies)
    model, objective = make_model(config, task.vocabularies)
    return Experiment(config, task, model, objective, optimizer, schedule)


def check_config(config: Config) -> tuple[Schedule, optax.GradientTransformation]:
    """Refuses values that cannot be used, before any data is looked at.

    Returns:
      The schedule and the optimiser, which need no data.

    Raises:
      LabError: what is wrong, in one line that names it.
    """
    check_complete(config)
    check_config_numbers(flat_keys(config))
    config_scorer(config)
    schedule, optimizer = make_config_schedule(config), make_optimizer(config.train)
    for section, make in (
        ("model", lambda: RNNOptions(_ANY_VOCABULARY, _ANY_VOCABULARY, **config.model)),
        ("rollout", lambda: Feeding(_LARGE_VOCABULARY, **config.rollout)),
    ):
        try:
            make()
        except ValueError as error:
            raise LabError(f"{section}.{error}") from error
    return schedule, optimizer


def config_scorer(config: Config) -> Scorer:
    """What scores the hypotheses of a config's runs.

    Raises:
      LabError: it is unknown, or lacks something here.
    """
    return make_scorer(config.eval.scores, config.eval.bleu_tokenize)


def make_config_schedule(config: Config) -> Schedule:
    """The schedule of a config.

    Raises:
      LabError: it is unknown, or a parameter is out of range.
    """
    name, parameters = schedule_parameters(config.schedule.to_dict(), config.train.num_steps)
    try:
        return make_schedule(name, **parameters)
    except ValueError as error:
        where = ""
        if name.endswith("_reaching") and config.schedule.reach_step is None:
            where = " (the step is schedule.reach_fraction of train.num_steps)"
        raise LabError(f"schedule: {error}{where}") from error


def make_model(config: Config, vocabularies: Vocabularies) -> tuple[Seq2SeqModel, Objective]:
    """The model and the objective of a config, for vocabularies of such sizes.

    Raises:
      LabError: options of the rollout that do not go together.
    """
    model = make_rnn_model(len(vocabularies.source), len(vocabularies.target), **config.model)
    smoothing = config.train.label_smoothing
    try:
        return model, make_objective(model, **config.rollout, label_smoothing=smoothing)
    except ValueError as error:
        raise LabError(f"rollout.{error}") from error


def load_config_task(config: Config, vocabularies: Vocabularies | None) -> Task:
    """The data of a config, in a run's vocabularies or, where it has none yet, in new ones.

    Raises:
      DataError: the data cannot be loaded.
    """
    data = config.data
    return load_task(
        data.name,
        {name: data[name] for name in dataset_options(data.name)},
        data.data_dir,
        source_vocabulary=data.source_vocabulary,
        target_vocabulary=data.target_vocabulary,
        vocabulary_size=data.vocabulary_size,
        max_tokens=data.max_tokens,
        vocabularies=vocabularies,
    )


def training_batches(config: Config, task: Task) -> TrainingBatches:
    """The batches that a config trains on."""
    return task.training_batches(config.data.num_buckets, config.train.batch_size, config.seed)


def make_evaluator(config: Config, model: Seq2SeqModel, task: Task) -> Evaluator:
    """What evaluates a model on a config's task."""
    return Evaluator(
        model,
        task,
        scorer=config_scorer(config),
        batch_size=config.eval.batch_size,
        max_examples=config.eval.max_examples,
        num_shown=config.eval.num_examples,
        divergence=make_divergence(config, model, task),
    )


def make_divergence(config: Config, model: Seq2SeqModel, task: Task) -> Divergence | None:
    """What measures the distance from the truth, with what theory says of the schedule's end."""
    truth = known_truth(config.data.name, config.data)
    if truth is None or not knows_symbols(task.vocabularies, truth):
        return None
    predicted = None
    if covered_by_theory(config.rollout, config.model.dropout, config.train.label_smoothing):
        teacher_prob = float(make_config_schedule(config)(config.train.num_steps - 1))
        rollout = config.rollout
        predicted = predicted_divergence(
            truth, task.splits["dev"], teacher_prob, rollout.coin, rollout.feed
        )
    batch_size = config.eval.batch_size
    return Divergence(model, task.vocabularies, truth, task.splits["dev"], batch_size, predicted)
