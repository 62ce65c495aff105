"""Checks a config and builds from it the plain objects that training needs."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optax

from s2s_jax.data.batching import TrainingBatches
from s2s_jax.data.markov import known_truth
from s2s_jax.data.task import Task, Vocabularies, check_one_kind, make_task
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.files import to_json
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
from s2s_jax.lab.evaluation.divergence import Divergence, knows_symbols, predicted_divergence
from s2s_jax.lab.evaluation.evaluator import Evaluator
from s2s_jax.lab.evaluation.scores import Scorer, make_scorer
from s2s_jax.lab.training.optimizers import Scalars, make_learning_rate
from s2s_jax.lab.training.other_runs import folder_of
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.objectives import Objective, Teacher, ignores_teacher_prob, optimum_of
from s2s_jax.optimizers import with_average
from s2s_jax.schedules import FeedbackSchedule, Schedule

# Options are checked before the vocabularies of the data are known.
_ANY_VOCABULARY, _LARGE_VOCABULARY = 8, 2**24

TEACHER = "objective.teacher"
"""The key of the teacher: a trained run's folder, or `TRUTH`."""

TRUTH = "truth"
"""The value of that key for the true distribution, on tasks that have one."""

_MAY_DIFFER = ("seed", "train.learning_rate")


@dataclass(frozen=True)
class Experiment:
    """A checked config and what it names, before its data is loaded; made by `make_experiment`.

    Attributes:
      config: the config, for the record and for messages.
      components: the components that it names, by section.
      schedule: training step -> teacher_prob, or a schedule with a state.
      scorer: the scorer of hypotheses.
    """

    config: Config
    components: Mapping[str, Component]
    schedule: Schedule | FeedbackSchedule
    scorer: Scorer

    @property
    def seed(self) -> int:
        """The seed of the initial parameters, the batches and every random draw."""
        return self.config.seed

    @property
    def num_steps(self) -> int:
        """The number of updates in the whole training."""
        return self.config.train.num_steps

    @property
    def log_every(self) -> int:
        """The number of steps between lines of metrics."""
        return self.config.train.log_every

    @property
    def evaluate_every(self) -> int:
        """The number of steps between evaluations."""
        return self.config.eval.every

    @property
    def teacher(self) -> str | None:
        """What `objective.teacher` names; None if the objective has no teacher."""
        return self.config.objective.get("teacher")

    @property
    def teacher_folder(self) -> Path | None:
        """The folder of the run that is the teacher; None without one, or if it is the truth.

        Raises:
          LabError: it is in a home folder that does not exist.
        """
        if self.teacher is None or self.teacher == TRUTH:
            return None
        return folder_of(self.teacher, self.seed, TEACHER)

    @property
    def scalars(self) -> Scalars:
        """The numbers of the optimiser that a compiled program takes as arguments."""
        train = self.config.train
        weight_decay = train.optimizer.get("weight_decay") or 0.0
        return Scalars(train.learning_rate, weight_decay, train.clip_norm)

    @property
    def feedback(self) -> FeedbackSchedule | None:
        """The schedule if it has a state, else None."""
        return self.schedule if isinstance(self.schedule, FeedbackSchedule) else None

    @property
    def group_key(self) -> str:
        """A key that is equal for experiments that can share data and compiled programs.

        It contains every config value except the schedule, the seed, the learning rate, the weight
        decay of a built-in optimiser and, if it is not 0, the norm that gradients are clipped to. A
        schedule with a state is part of the program, and so of the key.
        """
        values = {
            key: value
            for key, value in flat_keys(self.config).items()
            if key not in _MAY_DIFFER and (self.feedback or not key.startswith("schedule."))
        }
        if self.teacher_folder is not None:  # its parameters are constants of the program
            values[TEACHER] = str(self.teacher_folder.absolute())
        if self._has_traced_decay:
            del values["train.optimizer.weight_decay"]
        values["train.clip_norm"] = bool(values["train.clip_norm"])
        return json.dumps(to_json(values), sort_keys=True)

    @property
    def _has_traced_decay(self) -> bool:
        """Whether weight decay is an argument of a compiled program.

        A user's own optimiser may do anything with it, so its value is compiled into the program.
        """
        optimizer = self.components["train.optimizer"]
        return optimizer.is_built_in and "weight_decay" in optimizer.options

    def make_optimizer(self, scalars: Scalars | None = None) -> optax.GradientTransformation:
        """Makes the optimiser, with `make_learning_rate`, clipping and averaged parameters.

        Args:
          scalars: used instead of the config's; they do not affect the structure of the state.

        Raises:
          LabError: the learning-rate schedule is unknown, or the optimiser rejects a value.
        """
        train, component = self.config.train, self.components["train.optimizer"]
        peak, weight_decay, clip_norm = scalars or self.scalars
        learning_rate = make_learning_rate(
            peak, train.learning_rate_schedule, train.num_steps, train.warmup_steps
        )
        options = component_options(self.config, component)
        if self._has_traced_decay:
            options["weight_decay"] = weight_decay
        optimizer = component.make(learning_rate, options=options)
        clip = [optax.clip_by_global_norm(clip_norm)] if train.clip_norm else []
        whole = optax.chain(*clip, optimizer)
        return with_average(whole, train.average_decay) if train.average_decay else whole

    def load_task(self, vocabularies: Vocabularies | None = None) -> Task:
        """Loads the data, with a run's vocabularies or, if it has none yet, with new ones.

        Raises:
          LabError, DataError: the data cannot be loaded.
        """
        data, component = self.config.data, self.components["data"]
        return make_task(
            component.make(data.data_dir, options=component_options(self.config, component)),
            source_vocabulary=data.source_vocabulary,
            target_vocabulary=data.target_vocabulary,
            shared_vocabulary=data.shared_vocabulary,
            vocabulary_size=data.vocabulary_size,
            max_tokens=data.max_tokens,
            vocabularies=vocabularies,
        )

    def make_model(self, vocabularies: Vocabularies) -> Seq2SeqModel:
        """Makes the model for the sizes of these vocabularies.

        Raises:
          LabError: options are invalid or incompatible.
        """
        return self._make_model(len(vocabularies.source), len(vocabularies.target))

    def _make_model(self, source_vocab_size: int, target_vocab_size: int) -> Seq2SeqModel:
        component = self.components["model"]
        options = component_options(self.config, component)
        return component.make(source_vocab_size, target_vocab_size, options=options)

    def make_objective(
        self, model: Seq2SeqModel, task: Task | None = None, teacher: Teacher | None = None
    ) -> Objective:
        """Makes the objective for a model.

        Args:
          model: the functions of `Seq2SeqModel`.
          task: the data, whose frequencies a rollout may need; without it, the objective can only
            be checked and asked for its theory.
          teacher: what `objective.teacher` names; likewise.

        Raises:
          LabError: options are invalid or incompatible.
        """
        component = self.components["objective"]
        options = component_options(self.config, component)
        if "unigram_probs" in component.computed and self.config.rollout.source == "unigram":
            options["unigram_probs"] = (
                np.broadcast_to(np.ones(()), model.vocab_size)
                if task is None
                else np.bincount(task.training_tokens.target.ids, minlength=model.vocab_size)
            )
        if self.teacher is not None:
            options["teacher"] = teacher or Teacher(
                _unloaded, _unloaded, model.vocab_size, is_truth=self.teacher == TRUTH
            )
        return component.make(model, options=options)

    def training_batches(self, task: Task) -> TrainingBatches:
        """Makes the training batches.

        Raises:
          DataError: a training pair is longer than `train.tokens_per_batch`.
        """
        config = self.config
        train = config.train
        return task.training_batches(
            config.data.num_buckets, train.batch_size, config.seed, train.tokens_per_batch
        )

    def make_evaluator(self, model: Seq2SeqModel, task: Task) -> Evaluator:
        """Makes the evaluator of a model on a task."""
        settings = self.config.eval
        return Evaluator(
            model,
            task,
            scorer=self.scorer,
            batch_size=settings.batch_size,
            max_examples=settings.max_examples,
            num_shown=settings.num_examples,
            divergence=self.make_divergence(model, task),
        )

    def make_divergence(self, model: Seq2SeqModel, task: Task) -> Divergence | None:
        """Makes the measure of the distance from the truth, with the theory's prediction for it.

        The prediction is for the teacher_prob at the end of the schedule; there is none for a
        schedule with a state. Returns None if the truth is not known.
        """
        config = self.config
        truth = known_truth(config.data.name, config.data)
        if truth is None or not knows_symbols(task.vocabularies, truth):
            return None
        predicted, dev = None, task.splits["dev"]
        optimum = optimum_of(self.make_objective(model))
        # With dropout, a model can no longer learn every distribution.
        is_reachable = not config.model.get("dropout", 0.0)
        if optimum is not None and is_reachable and not isinstance(self.schedule, FeedbackSchedule):
            teacher_prob = float(self.schedule(self.num_steps - 1))
            predicted = predicted_divergence(truth, dev, teacher_prob, optimum)
        return Divergence(model, task.vocabularies, truth, dev, config.eval.batch_size, predicted)


def _unloaded(*_: Any) -> Any:
    raise AssertionError("a teacher that was only checked cannot be asked")


def make_experiment(config: Config, modules: Modules = ENVIRONMENT) -> Experiment:
    """Checks a config and builds everything that needs no data; writes nothing.

    Args:
      config: a config with every key of `base_config`.
      modules: where the user's own components are found.

    Raises:
      LabError, DataError: a value is invalid; the one-line message names it.
    """
    check_complete(config, modules)
    check_config_numbers(flat_keys(config))
    components = {section: component_of(config, section, modules) for section in KINDS}
    schedule = components["schedule"]
    experiment = Experiment(
        config,
        components,
        schedule.make(options=component_options(config, schedule)),
        make_scorer(config.eval.scores, config.eval.bleu_tokenize, modules),
    )
    experiment.make_optimizer()
    _check_unused(config, components["objective"])
    _check_truth(experiment)
    _check_average(experiment)
    _check_shared_vocabulary(experiment)
    model = experiment._make_model(_ANY_VOCABULARY, _ANY_VOCABULARY)
    objective = experiment.make_objective(dataclasses.replace(model, vocab_size=_LARGE_VOCABULARY))
    _check_schedule_is_used(config, objective)
    _check_dropout(config, components["model"])
    return experiment


def _check_truth(experiment: Experiment) -> None:
    """Rejects the truth as teacher of a task that has none."""
    data = experiment.config.data
    if experiment.teacher == TRUTH and known_truth(data.name, data) is None:
        raise LabError(
            f"{TEACHER}=truth; the true distribution of {data.name} is not known;"
            " name the folder of a trained run"
        )


def _check_schedule_is_used(config: Config, objective: Objective) -> None:
    """Rejects a schedule other than teacher forcing, the default, if the objective ignores it."""
    schedule = config.schedule.name
    if ignores_teacher_prob(objective) and schedule != "teacher_forcing":
        raise LabError(
            f"schedule.name={schedule} has no effect on {config.objective.name}, which ignores"
            " teacher_prob; set it to teacher_forcing"
        )


def _check_dropout(config: Config, model: Component) -> None:
    """Rejects R-Drop, which compares two dropout masks, for a built-in model without any."""
    if config.objective.name == "r_drop" and model.is_built_in and not config.model.get("dropout"):
        remedy = (
            "set model.dropout above 0"
            if "dropout" in model.options
            else f"model.name={model.name} has none"
        )
        raise LabError(f"objective.name=r_drop has no effect without dropout; {remedy}")


def _check_average(experiment: Experiment) -> None:
    """Rejects an average of the parameters of an optimiser that averages them itself."""
    train = experiment.config.train
    if train.average_decay and train.optimizer.name == "schedule_free_adamw":
        raise LabError(
            f"train.average_decay is {train.average_decay}, and schedule_free_adamw averages its"
            " parameters itself; set it to 0"
        )


def _check_shared_vocabulary(experiment: Experiment) -> None:
    """Rejects one vocabulary of two kinds, and a shared embedding of two vocabularies.

    That two vocabularies have equal sizes is not enough: an id means another token in each.
    """
    data, model = experiment.config.data, experiment.components["model"]
    if data.shared_vocabulary:
        check_one_kind(data.source_vocabulary, data.target_vocabulary)
    elif model.is_built_in and experiment.config.model.get("share_embeddings"):
        raise LabError(
            "model.share_embeddings needs one vocabulary for source and target;"
            " set data.shared_vocabulary=True"
        )


def _check_unused(config: Config, objective: Component) -> None:
    """Rejects rollout and label smoothing keys that an objective does not take."""
    defaults, values = flat_keys(base_config("copy")), flat_keys(config)
    for name, section in KINDS["objective"].supplied.items():
        if name in objective.supplied:
            continue
        for key, default in defaults.items():
            is_inside = key == section or key.startswith(f"{section}.")
            if is_inside and values[key] != default:
                raise LabError(
                    f"{key} has no effect on {objective.name}, which has no argument {name};"
                    f" leave it at {default!r}"
                )
