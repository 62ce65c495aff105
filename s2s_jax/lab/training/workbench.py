"""What trains runs, alone or side by side, and keeps what the next ones can use."""

import contextlib
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax

from s2s_jax.data.batching import TrainingBatches
from s2s_jax.data.task import Vocabularies
from s2s_jax.lab.base.allocator import check_memory
from s2s_jax.lab.base.errors import LabError, is_for_the_user
from s2s_jax.lab.config.keys import Config, Overrides
from s2s_jax.lab.evaluation.evaluator import Evaluator
from s2s_jax.lab.runs.provenance import check_lanes
from s2s_jax.lab.runs.run_folder import DataCheck, RunFolder
from s2s_jax.lab.training.build import (
    Experiment,
    check_config,
    make_divergence,
    make_evaluator,
    make_experiment,
    training_batches,
)
from s2s_jax.lab.training.compiled_update import CompiledUpdate, batch_template
from s2s_jax.lab.training.data_remarks import DataRemarks, check_vocabulary_size, data_remarks
from s2s_jax.lab.training.group_key import group_key
from s2s_jax.lab.training.lane import Lane, NonFiniteLossError, schedule_values
from s2s_jax.lab.training.lane_programs import LanePrograms
from s2s_jax.lab.training.loop import train_lanes
from s2s_jax.lab.training.optimizers import make_optimizer, scalars_of
from s2s_jax.lab.training.session import RunSession
from s2s_jax.lab.training.solo_program import SoloProgram

Result = dict[str, Any] | LabError
"""A run's `result.json`, or why it failed."""


@dataclass(frozen=True)
class RunSpec:
    """A run to train, or to go on with.

    Attributes:
      config: the run's.
      workdir: its folder.
      overrides: what of the config came from the command line, for the record.
      report: takes a line of its progress.
    """

    config: Config
    workdir: Path
    overrides: Overrides = field(default_factory=dict)
    report: Callable[[str], None] = print


class Workbench:
    """Trains runs; what was made for one stays for the next ones of its `group_key`.

    That is the data, the evaluation and, of runs that train alone, the compiled programs.

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
        """Trains runs, or goes on with them; several are lanes of one program.

        Each leaves what it leaves where it trains alone, and one that fails does not stop the
        others. A run that was stopped goes on from its checkpoint; a finished one is left alone.

        Args:
          runs: of one `group_key`.
          should_stop: asked after each step; True saves a checkpoint of each run and ends the call.

        Returns:
          Each run's `result.json`, or why it failed.

        Raises:
          LabError, DataError: the data cannot be used, before anything is written.
          ValueError: the runs are of several groups.
        """
        if len(runs) > 1:
            check_lanes()
        if len({group_key(one.config) for one in runs}) > 1:
            raise ValueError("the runs of a group must not differ in what a program is made for")
        results: list[Result | None] = []
        data = DataCheck()
        for one in runs:
            try:
                results.append(_result_before(one, data))
            except ValueError as error:
                if not is_for_the_user(error):
                    raise
                results.append(LabError(str(error)))
        waiting = [number for number, result in enumerate(results) if result is None]
        if waiting:
            left = [runs[number] for number in waiting]
            shared = self._shared_by(left)
            for one in left:
                check_vocabulary_size(shared.experiment.task, one.overrides)
            trained = _Group(left, shared).train(should_stop)
            for number, result in zip(waiting, trained, strict=True):
                results[number] = result
        return [one for one in results if one is not None]

    def _shared_by(self, runs: Sequence[RunSpec]) -> "_Shared":
        """What is there already where it fits, else made anew."""
        saved = (RunFolder(one.workdir).vocabularies() for one in runs)
        vocabularies = next((one for one in saved if one is not None), None)
        if self._shared is not None and not self._shared.fits(runs[0].config, vocabularies):
            self._shared = None
            gc.collect()  # its memory is free before the next takes more
        if self._shared is None:
            self._shared = _Shared.make(runs[0].config, vocabularies)
        return self._shared


@dataclass(frozen=True)
class _Shared:
    """What runs of one `group_key` have in common.

    Attributes:
      key: theirs.
      experiment: of one of them; its task, model and objective are everybody's.
      update: what trains each of them that trains alone.
      evaluator: everybody's, but for what theory says of a schedule.
      batches: by seed.
      remarks: on the data.
      from_a_run: whether the vocabularies are those of a run that was there before, which may
        differ from what the data gives now.
    """

    key: str
    experiment: Experiment
    update: CompiledUpdate
    evaluator: Evaluator
    batches: dict[int, TrainingBatches]
    remarks: DataRemarks
    from_a_run: bool

    @classmethod
    def make(cls, config: Config, vocabularies: Vocabularies | None) -> "_Shared":
        """Loads the data, and makes the rest."""
        parts = make_experiment(config, vocabularies)
        batches = training_batches(config, parts.task)
        update = CompiledUpdate(
            parts.model,
            parts.objective,
            partial(make_optimizer, config),
            batch_template(batches.batch_size, batches.shapes_from(0)[0]),
        )
        check_memory(update.template, update.template.state.params)
        evaluator = make_evaluator(config, parts.model, parts.task)
        return cls(
            group_key(config),
            parts,
            update,
            evaluator,
            {config.seed: batches},
            data_remarks(parts.task, evaluator.scorer),
            from_a_run=vocabularies is not None,
        )

    def fits(self, config: Config, vocabularies: Vocabularies | None) -> bool:
        """Whether a run can use it; None where the run has no vocabularies yet."""
        if vocabularies is None:
            fits = not self.from_a_run
        else:
            fits = vocabularies == self.experiment.task.vocabularies
        return fits and self.key == group_key(config)

    def batches_of(self, config: Config) -> TrainingBatches:
        """Those of a run's seed."""
        if config.seed not in self.batches:
            self.batches[config.seed] = training_batches(config, self.experiment.task)
        return self.batches[config.seed]

    def evaluator_of(self, config: Config) -> Evaluator:
        """The evaluator, with what theory says of this run's schedule."""
        if not self.evaluator.knows_the_truth:
            return self.evaluator
        divergence = make_divergence(config, self.experiment.model, self.experiment.task)
        return self.evaluator.with_divergence(divergence)


class _Group:
    """Runs that are not finished, and train now."""

    def __init__(self, runs: Sequence[RunSpec], shared: _Shared):
        self._runs, self._shared = runs, shared
        self._results: list[Result] = [LabError("it was not trained") for _ in runs]

    def train(self, should_stop: Callable[[], bool]) -> list[Result]:
        """Trains them."""
        with contextlib.ExitStack() as stack:
            opened: list[tuple[int, RunSession]] = []
            for number, one in enumerate(self._runs):
                try:
                    opened.append((number, stack.enter_context(self._open(one))))
                except LabError as error:  # another process trains there, say
                    self._results[number] = error.with_traceback(None)
            if opened:
                for line in self._shared.remarks.lines:
                    self._runs[opened[0][0]].report(line)  # once for all lanes
                self._train(opened, should_stop)
        return self._results

    def _open(self, one: RunSpec) -> RunSession:
        folder, task = RunFolder(one.workdir), self._shared.experiment.task
        if folder.vocabularies() not in (None, task.vocabularies):
            raise LabError(
                f"the vocabularies in {folder.folder} are not those of the runs beside it;"
                " train the run alone, with s2s train"
            )
        template = self._shared.update.template
        counts = self._shared.remarks.counts
        return RunSession(folder, one.config, one.overrides, task, template, one.report, counts)

    def _train(
        self, opened: Sequence[tuple[int, RunSession]], should_stop: Callable[[], bool]
    ) -> None:
        update = self._shared.update
        configs = [self._runs[number].config for number, _ in opened]
        evaluators = [self._shared.evaluator_of(config) for config in configs]
        scalars = [scalars_of(config) for config in configs]
        lanes, starts = [], []
        for (number, session), evaluator in zip(opened, evaluators, strict=True):
            key = jax.random.key(self._runs[number].config.seed)
            starts.append(session.start or update.start(key))
            # After what compiles, since its clock runs from here on.
            lanes.append(self._lane(self._runs[number], session, evaluator))
            session.start = None  # the programs below take it
        if len(lanes) == 1:
            programs = SoloProgram(update, starts[0], scalars[0], lanes[0].batches, self._report)
        else:
            programs = LanePrograms(
                self._shared.experiment.objective,
                partial(make_optimizer, configs[0]),
                update.template,
                starts,
                scalars,
                lanes,
                self._report,
            )
        starts.clear()

        def ended(place: int) -> None:
            (number, session), lane = opened[place], lanes[place]
            self._results[number] = _conclude(session, lane, evaluators[place])

        train_lanes(lanes, programs, should_stop, ended)

    def _lane(self, one: RunSpec, session: RunSession, evaluator: Evaluator) -> Lane:
        schedule, _ = check_config(one.config)
        return Lane(
            self._shared.batches_of(one.config),
            schedule_values(schedule, one.config.train.num_steps),
            evaluator,
            session.tracker,
            session.checkpoints,
            first_step=session.first_step,
            log_every=one.config.train.log_every,
            evaluate_every=one.config.eval.every,
            report=one.report,
            seconds_before=session.seconds_before,
        )

    def _report(self, line: str) -> None:
        for one in self._runs:
            one.report(line)


def _result_before(one: RunSpec, data: DataCheck) -> dict[str, Any] | None:
    """The result of a run that is finished already; None for one that can be trained.

    Raises:
      LabError, DataError: it can be neither.
    """
    folder = RunFolder(one.workdir)
    folder.check(one.config)
    check_config(one.config)
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


def _conclude(session: RunSession, lane: Lane, evaluator: Evaluator) -> Result:
    """Ends a run, and closes what is open."""
    try:
        with session:
            if lane.error is not None:
                if isinstance(lane.error, NonFiniteLossError):
                    session.fail(lane.error)
                raise lane.error
            return session.conclude(lane.step, evaluator)
    except LabError as error:
        return error.with_traceback(None)  # whose frames hold the run's state
