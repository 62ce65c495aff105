"""From a config to the objects that train: the only reader of a ConfigDict."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import optax

from s2s_jax.data.batching import TrainingBatches
from s2s_jax.data.catalog import dataset_options
from s2s_jax.data.markov import known_truth
from s2s_jax.data.task import Task, Vocabularies, load_task
from s2s_jax.lab.checkpoints import Checkpoints
from s2s_jax.lab.config import (
    Config,
    Overrides,
    check_complete,
    schedule_parameters,
)
from s2s_jax.lab.divergence import (
    Divergence,
    covered_by_theory,
    knows_symbols,
    predicted_divergence,
)
from s2s_jax.lab.errors import LabError
from s2s_jax.lab.evaluator import Evaluator
from s2s_jax.lab.lanes import NonFiniteLossError
from s2s_jax.lab.loop import Trainer, progress_template
from s2s_jax.lab.optimizers import make_optimizer
from s2s_jax.lab.run import Run
from s2s_jax.lab.run_session import RunSession
from s2s_jax.lab.scores import find_scorer
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.models.rnn import make_rnn_model
from s2s_jax.models.rnn_options import RNNOptions
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
    task = _load_task(config, vocabularies)
    model, objective = _make_model(config, task.vocabularies)
    return Experiment(config, task, model, objective, optimizer, schedule)


def check_config(config: Config) -> tuple[Schedule, optax.GradientTransformation]:
    """Refuses values that cannot be used, before any data is looked at.

    Returns:
      The schedule and the optimiser, which need no data.

    Raises:
      LabError: what is wrong, in one line that names it.
    """
    check_complete(config)
    _check_numbers(config)
    find_scorer(config.eval.scores)
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


def train_and_evaluate(
    config: Config,
    workdir: str | Path,
    overrides: Overrides | None = None,
    *,
    report: Callable[[str], None] = print,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains a config in a folder, or goes on where an earlier call stopped.

    The folder then holds what `s2s_jax.lab.run.Run` lists. A run that was stopped and resumed ends
    bit-identical to one that never was; a finished run is not trained again.

    Args:
      config: every key of `base_config`; experiments/*.py make them.
      workdir: the run's folder.
      overrides: what of the config came from the command line, for the record.
      report: takes a line of progress.
      should_stop: asked after each step; True saves a checkpoint and ends the call.

    Returns:
      The content of `result.json`: "status" is "finished", or "stopped" where should_stop said so.

    Raises:
      LabError, DataError: bad input, before anything is written; or a loss that is not finite,
        with the last finite checkpoint kept and the reason in `result.json`.

    Example:
      from experiments import addition
      config = addition.get_config("inverse_sigmoid")
      result = train_and_evaluate(config, "runs/addition")
      print(result["metrics"]["test/own/exact_match"])
    """
    run = Run(workdir)
    run.check(config)
    result = run.result()
    if result is not None and result["status"] == "finished":
        report(f"{workdir} is finished already; nothing to do")
        return result
    experiment = make_experiment(config, run.vocabularies())
    evaluator = make_evaluator(config, experiment.model, experiment.task)
    trainer = Trainer(
        experiment.model,
        experiment.objective,
        experiment.optimizer,
        experiment.schedule,
        training_batches(config, experiment.task),
        evaluator,
        key=jax.random.key(config.seed),
        num_steps=config.train.num_steps,
        log_every=config.train.log_every,
        evaluate_every=config.eval.every,
        report=report,
    )
    with RunSession(run, config, overrides or {}, experiment.task, trainer.template, report) as one:
        try:
            steps = trainer.train(
                one.tracker,
                one.checkpoints,
                one.start,
                seconds_before=one.seconds_before,
                should_stop=should_stop,
            )
        except NonFiniteLossError as error:
            one.fail(error)
            raise
        return one.conclude(steps, evaluator)


@dataclass(frozen=True)
class TrainedRun:
    """A run that has a checkpoint; no data is needed to open it.

    Attributes:
      config: the run's.
      vocabularies: the run's.
      model: its functions.
      params: of the checkpoint.
      step: of the checkpoint.
    """

    config: Config
    vocabularies: Vocabularies
    model: Seq2SeqModel
    params: Params
    step: int


def load_run(workdir: str | Path, checkpoint: Literal["best", "latest"] = "best") -> TrainedRun:
    """Opens a run for evaluation and decoding.

    Args:
      workdir: the run's folder.
      checkpoint: "best" (on the dev split) or "latest".

    Raises:
      LabError: the folder holds no run, or no checkpoint that fits.
    """
    run = Run(workdir)
    config, vocabularies = run.config(), run.vocabularies()
    if vocabularies is None:
        raise LabError(f"{workdir} holds no trained run: its vocabularies are missing")
    _, optimizer = check_config(config)
    model, objective = _make_model(config, vocabularies)
    with Checkpoints(run.checkpoints, read_only=True) as checkpoints:
        template = progress_template(model, objective, optimizer)
        step, progress = checkpoints.restore(template, checkpoint)
    return TrainedRun(config, vocabularies, model, progress.state.params, step)


def load_run_task(run: TrainedRun) -> Task:
    """The data that a run was trained on, in its vocabularies.

    Raises:
      DataError: the data cannot be loaded.
    """
    return _load_task(run.config, run.vocabularies)


def evaluate_run(run: TrainedRun, split: str) -> dict[str, float]:
    """The metrics of a whole split, named "<split>/gold/nll", "<split>/own/..." and so on.

    Raises:
      DataError: the data cannot be loaded, or has no such split.
    """
    task = load_run_task(run)
    return make_evaluator(run.config, run.model, task).split(run.params, split)


def _make_model(config: Config, vocabularies: Vocabularies) -> tuple[Seq2SeqModel, Objective]:
    model = make_rnn_model(len(vocabularies.source), len(vocabularies.target), **config.model)
    smoothing = config.train.label_smoothing
    try:
        return model, make_objective(model, **config.rollout, label_smoothing=smoothing)
    except ValueError as error:
        raise LabError(f"rollout.{error}") from error


def _load_task(config: Config, vocabularies: Vocabularies | None) -> Task:
    data = config.data
    return load_task(
        data.name,
        {name: data[name] for name in dataset_options(data.name)},
        data.data_dir,
        source_vocabulary=data.source_vocabulary,
        target_vocabulary=data.target_vocabulary,
        vocabulary_size=data.vocabulary_size,
        vocabularies=vocabularies,
    )


def training_batches(config: Config, task: Task) -> TrainingBatches:
    """The batches that a config trains on."""
    return task.training_batches(
        config.data.num_buckets, config.train.batch_size, config.seed, config.data.max_tokens
    )


def make_evaluator(config: Config, model: Seq2SeqModel, task: Task) -> Evaluator:
    """What evaluates a model on a config's task."""
    return Evaluator(
        model,
        task,
        scores=config.eval.scores,
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


def _check_numbers(config: Config) -> None:
    """Refuses numbers that are out of range; NaN is out of every range."""
    infinity = float("inf")
    for section, name, lowest, highest in (
        ("data", "num_buckets", 1, 64),
        ("data", "max_tokens", 0, infinity),
        ("train", "num_steps", 1, 2**31 - 1),
        ("train", "batch_size", 1, infinity),
        ("train", "learning_rate", 1e-12, 1e6),
        ("train", "warmup_steps", 0, infinity),
        ("train", "weight_decay", 0, 1e6),
        ("train", "clip_norm", 0, infinity),
        ("train", "label_smoothing", 0, 0.999),
        ("train", "log_every", 1, infinity),
        ("eval", "every", 1, infinity),
        ("eval", "batch_size", 1, infinity),
        ("eval", "num_examples", 0, infinity),
        ("eval", "max_examples", 0, infinity),
    ):
        value = config[section][name]
        if not (lowest <= value <= highest and value < infinity):
            allowed = f"at least {lowest}" if highest == infinity else f"in [{lowest}, {highest}]"
            raise LabError(f"{section}.{name} is {value}; it must be {allowed}")
    if not 0 <= config.seed < 2**32:
        raise LabError(f"seed is {config.seed}; it must be in [0, 2**32)")
