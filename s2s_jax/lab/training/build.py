"""From a config to the objects that train: the only reader of a ConfigDict."""

import dataclasses
from dataclasses import dataclass

import optax

from s2s_jax.data.batching import TrainingBatches
from s2s_jax.data.markov import known_truth
from s2s_jax.data.task import Task, Vocabularies, make_task
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.bounds import check_config_numbers
from s2s_jax.lab.config.components import KINDS, Component
from s2s_jax.lab.config.keys import (
    Config,
    base_config,
    check_complete,
    component_of,
    component_options,
    flat_keys,
)
from s2s_jax.lab.config.user_code import ENVIRONMENT, Modules
from s2s_jax.lab.evaluation.divergence import (
    Divergence,
    knows_symbols,
    predicted_divergence,
)
from s2s_jax.lab.evaluation.evaluator import Evaluator
from s2s_jax.lab.evaluation.scores import Scorer, make_scorer
from s2s_jax.lab.training.optimizers import make_optimizer
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.objectives import Objective, optimum_of
from s2s_jax.schedules import Schedule

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


def check_config(
    config: Config, modules: Modules = ENVIRONMENT
) -> tuple[Schedule, optax.GradientTransformation]:
    """Refuses values that cannot be used, before any data is looked at.

    Args:
      config: the run's.
      modules: where the user's own components are found.

    Returns:
      The schedule and the optimiser, which need no data.

    Raises:
      LabError: what is wrong, in one line that names it.
    """
    check_complete(config, modules)
    check_config_numbers(flat_keys(config))
    config_scorer(config, modules)
    schedule = make_config_schedule(config, modules)
    optimizer = make_optimizer(config, modules=modules)
    _check_unused(config, component_of(config, "objective", modules))
    model = _make_model(config, _ANY_VOCABULARY, _ANY_VOCABULARY, modules)
    _make_objective(config, dataclasses.replace(model, vocab_size=_LARGE_VOCABULARY), modules)
    return schedule, optimizer


def _check_unused(config: Config, objective: Component) -> None:
    """Refuses keys of the rollout and the smoothing that an objective does not take."""
    if objective.is_built_in:
        return
    defaults = flat_keys(base_config("copy"))
    for name, key in KINDS["objective"].supplied.items():
        if name not in objective.supplied and flat_keys(config)[key] != defaults[key]:
            raise LabError(
                f"{key} has no effect on {objective.name}, which has no argument {name};"
                f" leave it at {defaults[key]!r}"
            )


def config_scorer(config: Config, modules: Modules = ENVIRONMENT) -> Scorer:
    """What scores the hypotheses of a config's runs.

    Raises:
      LabError: it is unknown, or lacks something here.
    """
    return make_scorer(config.eval.scores, config.eval.bleu_tokenize, modules)


def make_config_schedule(config: Config, modules: Modules = ENVIRONMENT) -> Schedule:
    """The schedule of a config.

    Raises:
      LabError: it is unknown, or a parameter is out of range.
    """
    component = component_of(config, "schedule", modules)
    return component.make(options=component_options(config, component))


def make_model(
    config: Config, vocabularies: Vocabularies, modules: Modules = ENVIRONMENT
) -> tuple[Seq2SeqModel, Objective]:
    """The model and the objective of a config, for vocabularies of such sizes.

    Raises:
      LabError: options that cannot be used, or do not go together.
    """
    model = _make_model(config, len(vocabularies.source), len(vocabularies.target), modules)
    return model, _make_objective(config, model, modules)


def _make_model(
    config: Config, source_vocab_size: int, target_vocab_size: int, modules: Modules
) -> Seq2SeqModel:
    component = component_of(config, "model", modules)
    options = component_options(config, component)
    return component.make(source_vocab_size, target_vocab_size, options=options)


def _make_objective(config: Config, model: Seq2SeqModel, modules: Modules) -> Objective:
    component = component_of(config, "objective", modules)
    return component.make(model, options=component_options(config, component))


def load_config_task(
    config: Config, vocabularies: Vocabularies | None, modules: Modules = ENVIRONMENT
) -> Task:
    """The data of a config, in a run's vocabularies or, where it has none yet, in new ones.

    Raises:
      LabError, DataError: the data cannot be loaded.
    """
    data = config.data
    component = component_of(config, "data", modules)
    return make_task(
        component.make(data.data_dir, options=component_options(config, component)),
        source_vocabulary=data.source_vocabulary,
        target_vocabulary=data.target_vocabulary,
        vocabulary_size=data.vocabulary_size,
        max_tokens=data.max_tokens,
        vocabularies=vocabularies,
    )


def training_batches(config: Config, task: Task) -> TrainingBatches:
    """The batches that a config trains on."""
    return task.training_batches(config.data.num_buckets, config.train.batch_size, config.seed)


def make_evaluator(
    config: Config, model: Seq2SeqModel, task: Task, modules: Modules = ENVIRONMENT
) -> Evaluator:
    """What evaluates a model on a config's task."""
    return Evaluator(
        model,
        task,
        scorer=config_scorer(config, modules),
        batch_size=config.eval.batch_size,
        max_examples=config.eval.max_examples,
        num_shown=config.eval.num_examples,
        divergence=make_divergence(config, model, task, modules),
    )


def make_divergence(
    config: Config, model: Seq2SeqModel, task: Task, modules: Modules = ENVIRONMENT
) -> Divergence | None:
    """What measures the distance from the truth, with what theory says of the schedule's end."""
    truth = known_truth(config.data.name, config.data)
    if truth is None or not knows_symbols(task.vocabularies, truth):
        return None
    predicted = None
    optimum = optimum_of(_make_objective(config, model, modules))
    # Under dropout a model is no longer free to learn any distribution.
    if optimum is not None and not config.model.get("dropout", 0.0):
        schedule = make_config_schedule(config, modules)
        teacher_prob = float(schedule(config.train.num_steps - 1))
        predicted = predicted_divergence(truth, task.splits["dev"], teacher_prob, optimum)
    batch_size = config.eval.batch_size
    return Divergence(model, task.vocabularies, truth, task.splits["dev"], batch_size, predicted)
