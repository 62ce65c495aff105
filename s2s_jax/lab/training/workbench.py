"""Trains runs, alone or side by side, and keeps what later runs can reuse."""

import contextlib
import gc
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from s2s_jax.batch import Batch
from s2s_jax.data.batching import TrainingBatches
from s2s_jax.data.task import Task, Vocabularies
from s2s_jax.lab.base.allocator import check_memory
from s2s_jax.lab.base.errors import LabError, is_for_the_user, one_line
from s2s_jax.lab.config.contracts import (
    check_feedback,
    check_model,
    check_objective,
    check_optimizer,
)
from s2s_jax.lab.config.keys import Config, Overrides, config_files
from s2s_jax.lab.config.user_code import own_errors_in_a_line
from s2s_jax.lab.evaluation.evaluator import Evaluator
from s2s_jax.lab.runs.data_check import DataCheck
from s2s_jax.lab.runs.provenance import check_lanes
from s2s_jax.lab.runs.run_folder import RunFolder
from s2s_jax.lab.training.build import Experiment, make_experiment
from s2s_jax.lab.training.data_remarks import DataRemarks, check_vocabulary_size, data_remarks
from s2s_jax.lab.training.device_lanes import DeviceLanes
from s2s_jax.lab.training.lane import Lane, NonFiniteLossError, schedule_values
from s2s_jax.lab.training.loop import train_lanes
from s2s_jax.lab.training.programs import Programs, batch_template
from s2s_jax.lab.training.session import RunSession
from s2s_jax.lab.training.teachers import LoadedTeacher, check_teacher, load_teacher
from s2s_jax.lab.training.warm_start import (
    WarmStart,
    WarmStarts,
    check_vocabularies,
    starts_warm,
)
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.objectives import Objective

Result = dict[str, Any] | LabError
"""A run's `result.json`, or the error that made it fail."""


@dataclass(frozen=True)
class RunSpec:
    """A run to train or to resume.

    Attributes:
      config: the run's config.
      workdir: its folder.
      overrides: the config values that came from the command line, for the record.
      report: called with each line of its progress.
    """

    config: Config
    workdir: Path
    overrides: Overrides = field(default_factory=dict)
    report: Callable[[str], None] = print


class Workbench:
    """Trains runs; later runs with the same `group_key` reuse what was made for the first one.

    These are the data, the evaluator and the compiled programs.

    Example:
      from experiments import addition
      runs = [
          RunSpec(addition.get_config(name), Path("runs") / name / "seed_0")
          for name in ("teacher_forcing", "linear")
      ]
      bench = Workbench()
      results = [bench.train([one])[0] for one in runs]  # one after the other, compiled once
      results = bench.train(runs)                        # or as lanes of one program
    """

    def __init__(self):
        self._shared: _Shared | None = None

    def train(
        self, runs: Sequence[RunSpec], *, should_stop: Callable[[], bool] = lambda: False
    ) -> list[Result]:
        """Trains or resumes runs; several are trained as lanes of one program.

        Each run leaves the same files as if it trained alone, and one that fails does not stop the
        others. A run that was stopped continues from its checkpoint; a finished one is left alone.

        Args:
          runs: runs with the same `group_key`.
          should_stop: called after each step; True saves a checkpoint of each run and ends the
            call.

        Returns:
          For each run, its `result.json` or the error that made it fail.

        Raises:
          LabError, DataError: the data cannot be used; nothing has been written.
          ValueError: the runs have different group keys.
        """
        if len(runs) > 1:
            check_lanes()
        results: dict[int, Result] = {}
        waiting: dict[int, _Run] = {}
        data, starts = DataCheck(), WarmStarts()
        for number, one in enumerate(runs):
            try:
                experiment = make_experiment(one.config)
                result = _result_before(one, data)
                if result is None:
                    values = schedule_values(experiment.schedule, experiment.num_steps)
                    check_teacher(experiment)
                    start = _start_of(one, experiment, starts)
                    waiting[number] = _Run(one, experiment, values, start)
                else:
                    results[number] = result
            except ValueError as error:
                if not is_for_the_user(error):
                    raise
                results[number] = LabError(str(error))
        if len({one.experiment.group_key for one in waiting.values()}) > 1:
            raise ValueError("the runs of a group must not differ in what a program is made for")
        if waiting:
            left = list(waiting.values())
            shared = self._shared_by(left)
            for one in left:
                check_vocabulary_size(shared.task, one.spec.overrides)
            trained = _Group(left, shared).train(should_stop)
            results |= zip(waiting, trained, strict=True)
        return [results[number] for number in range(len(runs))]

    def _shared_by(self, runs: Sequence["_Run"]) -> "_Shared":
        """Returns what earlier runs left if these runs can use it; otherwise makes it anew."""
        vocabularies = next((known for one in runs for known in one.vocabularies), None)
        experiment = runs[0].experiment
        if self._shared is not None and not self._shared.fits(experiment, vocabularies):
            self._shared = None
            gc.collect()  # frees its memory before the next one is allocated
        if self._shared is None:
            self._shared = _Shared.make(experiment, vocabularies)
        return self._shared


class _Run(NamedTuple):
    """A run that is to be trained.

    Attributes:
      spec: the run.
      experiment: the experiment of its config.
      teacher_probs: the values of its schedule.
      start: what it starts from; None for a run that is resumed or starts from scratch.
    """

    spec: RunSpec
    experiment: Experiment
    teacher_probs: np.ndarray
    start: WarmStart | None

    @property
    def vocabularies(self) -> list[Vocabularies]:
        """Those that were saved with it and those of its start, as far as there are any."""
        saved = RunFolder(self.spec.workdir).vocabularies()
        taken_along = self.start.vocabularies if self.start else None
        return [one for one in (saved, taken_along) if one is not None]


@dataclass(frozen=True)
class _Shared:
    """What runs with the same `group_key` share.

    Attributes:
      key: their `group_key`.
      task: their data.
      model: their model.
      programs: their compiled train steps.
      evaluator: their evaluator, except for the theory's prediction, which depends on the schedule.
      batches: the training batches by seed.
      remarks: the remarks on the data.
      teacher: what their objective learns from; None if it has no teacher.
      from_a_run: whether the vocabularies come from an existing run; they may differ from those
        that the data would give now.
    """

    key: str
    task: Task
    model: Seq2SeqModel
    programs: Programs
    evaluator: Evaluator
    batches: dict[int, TrainingBatches]
    remarks: DataRemarks
    teacher: LoadedTeacher | None
    from_a_run: bool

    @classmethod
    def make(cls, experiment: Experiment, vocabularies: Vocabularies | None) -> "_Shared":
        """Loads the data and makes the rest."""
        task = experiment.load_task(vocabularies)
        if vocabularies is not None and experiment.config.train.init_from:
            check_vocabularies(experiment, task)
        model = experiment.make_model(task.vocabularies)
        for split in task.splits:
            task.check_lengths(split, model.max_length)
        batches = experiment.training_batches(task)
        files = list(config_files(experiment.config).values())
        teacher = load_teacher(experiment, task)
        objective = experiment.make_objective(model, task, teacher and teacher.teacher)
        longest = batch_template(batches.shapes[-1])
        _check_contracts(experiment, model, objective, longest, len(task.vocabularies.target))
        _check_max_length(model, objective, longest)
        with own_errors_in_a_line("the first train step", files):
            programs = Programs(
                model,
                objective,
                experiment.make_optimizer,
                batch_template(batches.shapes_from(0)[0]),
                experiment.feedback,
            )
        check_memory(programs.template, programs.template.state.params)
        evaluator = experiment.make_evaluator(model, task)
        if files:  # otherwise a failure would only show after many steps
            with own_errors_in_a_line("an evaluation", files):
                evaluator.rehearse(programs.template.state.params)
        with own_errors_in_a_line("a remark on the data", files):
            remarks = data_remarks(task, experiment.scorer)
        return cls(
            experiment.group_key,
            task,
            model,
            programs,
            evaluator,
            {experiment.seed: batches},
            remarks,
            teacher,
            from_a_run=vocabularies is not None,
        )

    def fits(self, experiment: Experiment, vocabularies: Vocabularies | None) -> bool:
        """Whether a run can use it; vocabularies is None if the run has none yet."""
        if vocabularies is None:
            fits = not self.from_a_run
        else:
            fits = vocabularies == self.task.vocabularies
        return fits and self.key == experiment.group_key

    def batches_of(self, experiment: Experiment) -> TrainingBatches:
        """The training batches for a run's seed."""
        if experiment.seed not in self.batches:
            self.batches[experiment.seed] = experiment.training_batches(self.task)
        return self.batches[experiment.seed]

    def evaluator_of(self, experiment: Experiment) -> Evaluator:
        """The evaluator, with the theory's prediction for this run's schedule."""
        if not self.evaluator.knows_the_truth:
            return self.evaluator
        divergence = experiment.make_divergence(self.model, self.task)
        return self.evaluator.with_divergence(divergence)


def _check_contracts(
    experiment: Experiment,
    model: Seq2SeqModel,
    objective: Objective,
    batch: Batch,
    vocab_size: int,
) -> None:
    """Checks the user's own model, objective and optimiser on the shapes of a batch.

    Also checks any schedule with a state: not every objective has the sums that it follows.
    """
    own = {
        section: (f"{section}.name={one.name}", one.files)
        for section, one in experiment.components.items()
        if not one.is_built_in
    }
    if "model" in own:
        check_model(*own["model"], model, batch, vocab_size)
    if "objective" in own or "train.optimizer" in own or experiment.feedback:
        params = jax.eval_shape(lambda: model.init(jax.random.key(0)))
        if "objective" in own:
            check_objective(*own["objective"], objective, params, batch)
        if "train.optimizer" in own:
            check_optimizer(*own["train.optimizer"], experiment.make_optimizer(), params)
        if experiment.feedback:
            one = experiment.components["schedule"]
            about = f"schedule.name={one.name}", one.files
            check_feedback(*about, experiment.feedback, objective, params, batch)


def _check_max_length(model: Seq2SeqModel, objective: Objective, batch: Batch) -> None:
    """Checks that a model with a maximum length also has room for what an objective adds."""
    if model.max_length is None:
        return
    params = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    try:
        jax.eval_shape(objective, params, batch, jax.random.key(0), np.float32(0.5))
    except ValueError as error:
        longest = max(batch.source.shape[1], batch.target.shape[1])
        raise LabError(
            f"model.max_length is {model.max_length}, and the longest pair has {longest} tokens:"
            f" {one_line(error)}; set it higher"
        ) from error


class _Group:
    """A group of unfinished runs that are trained together."""

    def __init__(self, runs: Sequence[_Run], shared: _Shared):
        self._runs, self._shared = runs, shared
        self._results: list[Result] = [LabError("it was not trained") for _ in runs]

    def train(self, should_stop: Callable[[], bool]) -> list[Result]:
        """Trains the runs; returns their results."""
        with contextlib.ExitStack() as stack:
            opened: list[tuple[int, RunSession]] = []
            for number, one in enumerate(self._runs):
                try:
                    opened.append((number, stack.enter_context(self._open(one))))
                except LabError as error:  # for example, another process trains there
                    self._results[number] = error.with_traceback(None)
            if opened:
                for line in self._shared.remarks.lines:
                    self._runs[opened[0][0]].spec.report(line)  # once for all lanes
                self._train(opened, should_stop)
        return self._results

    def _open(self, run: _Run) -> RunSession:
        one, task, started_from = run.spec, self._shared.task, run.start and run.start.record
        if any(known != task.vocabularies for known in run.vocabularies):
            where = started_from["workdir"] if started_from else one.workdir
            raise LabError(
                f"the vocabularies in {where} are not those of the runs beside it;"
                " train the run alone, with s2s train"
            )
        folder, teacher = RunFolder(one.workdir), self._shared.teacher
        if teacher is not None:
            teacher.check(folder)
        return RunSession(
            folder,
            run.experiment,
            one.overrides,
            task,
            self._shared.programs.template,
            one.report,
            self._shared.remarks.counts,
            started_from,
            teacher and teacher.record,
        )

    def _train(
        self, opened: Sequence[tuple[int, RunSession]], should_stop: Callable[[], bool]
    ) -> None:
        programs = self._shared.programs
        experiments = [self._runs[number].experiment for number, _ in opened]
        evaluators = [self._shared.evaluator_of(one) for one in experiments]
        lanes, starts = [], []
        for (number, session), evaluator in zip(opened, evaluators, strict=True):
            run = self._runs[number]
            params = run.start.params if run.start else None
            key = jax.random.key(run.experiment.seed)
            starts.append(session.start or programs.start(key, params))
            # Made after the steps that compile, since the lane's clock starts here.
            lanes.append(self._lane(run, session, evaluator))
            session.start = None  # the device side owns it now
        device = DeviceLanes(
            programs,
            starts,
            [one.scalars for one in experiments],
            lanes[0].batches,
            [lane.teacher_probs[lane.step :] for lane in lanes],
            self._report,
        )
        starts.clear()

        def ended(place: int) -> None:
            (number, session), lane = opened[place], lanes[place]
            self._results[number] = _conclude(session, lane, evaluators[place])

        files = list(config_files(experiments[0].config).values())
        try:
            with own_errors_in_a_line("training", files):
                train_lanes(lanes, device, should_stop, ended)
        except (NotImplementedError, ValueError) as error:
            if len(lanes) == 1 or not re.search("vmap|[Bb]atching", str(error)):
                raise
            raise LabError(
                f"these runs cannot be lanes of one program: {one_line(error)};"
                " train them without --population"
            ) from error

    def _lane(self, run: _Run, session: RunSession, evaluator: Evaluator) -> Lane:
        one, experiment, teacher_probs, _ = run
        return Lane(
            self._shared.batches_of(experiment),
            teacher_probs,
            evaluator,
            session.tracker,
            session.checkpoints,
            first_step=session.first_step,
            log_every=experiment.log_every,
            evaluate_every=experiment.evaluate_every,
            report=one.report,
            seconds_before=session.seconds_before,
        )

    def _report(self, line: str) -> None:
        for one in self._runs:
            one.spec.report(line)


def _result_before(one: RunSpec, data: DataCheck) -> dict[str, Any] | None:
    """The result of a run that is already finished; None for one that can be trained.

    Raises:
      LabError, DataError: the folder cannot be used for this run.
    """
    folder = RunFolder(one.workdir)
    folder.check(one.config)
    folder.vocabularies()
    result = folder.finished(one.config)
    if result is not None:
        for line in data.check(folder, one.config):
            one.report(line)
        one.report(f"{one.workdir} is finished already; nothing to do")
    elif (folder.result() or {}).get("status") == "finished":
        one.report(
            f"{one.workdir} says that it is finished, but not after its"
            f" {one.config.train.num_steps} updates, or without the checkpoint of the last;"
            " training goes on"
        )
    return result


def _start_of(one: RunSpec, experiment: Experiment, starts: WarmStarts) -> WarmStart | None:
    """What an unfinished run starts from; None if it continues, or starts from scratch.

    Raises:
      LabError, DataError: it cannot start from there.
    """
    folder = RunFolder(one.workdir)
    if not starts_warm(one.config, folder):
        return None
    start = starts.load(experiment, one.report)
    start.check(folder)
    return start


def _conclude(session: RunSession, lane: Lane, evaluator: Evaluator) -> Result:
    """Ends a run and closes everything that it has open."""
    try:
        with session:
            if lane.error is not None:
                if isinstance(lane.error, NonFiniteLossError):
                    session.fail(lane.error)
                raise lane.error
            return session.conclude(lane.step, evaluator)
    except LabError as error:
        return error.with_traceback(None)  # its frames hold the run's state
