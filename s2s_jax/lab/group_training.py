"""Runs of a sweep that differ in schedule, seed and scalars alone, trained as one program."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from s2s_jax.data.batching import TrainingBatches
from s2s_jax.lab.config import Config, Overrides
from s2s_jax.lab.errors import LabError
from s2s_jax.lab.evaluator import Evaluator
from s2s_jax.lab.experiment import (
    check_config,
    make_divergence,
    make_evaluator,
    make_experiment,
    training_batches,
)
from s2s_jax.lab.group_key import group_key
from s2s_jax.lab.lane_programs import LanePrograms
from s2s_jax.lab.lanes import Lane, NonFiniteLossError, Progress, train_lanes
from s2s_jax.lab.loop import make_init, progress_template, schedule_values, zero_sums
from s2s_jax.lab.optimizers import make_optimizer, scalars_of
from s2s_jax.lab.run import Run
from s2s_jax.lab.run_session import RunSession


@dataclass(frozen=True)
class GroupRun:
    """One run of a group.

    Attributes:
      config: the run's.
      workdir: its folder.
      overrides: what of the config came from the command line.
      report: takes a line of its progress.
    """

    config: Config
    workdir: Path
    overrides: Overrides
    report: Callable[[str], None]


def train_group(
    runs: Sequence[GroupRun], *, should_stop: Callable[[], bool] = lambda: False
) -> list[dict[str, Any] | LabError]:
    """Trains runs as lanes of one program, or goes on with them; each leaves what a run alone does.

    A run that fails does not stop the others.

    Args:
      runs: of one `group_key`.
      should_stop: asked after each step; True saves a checkpoint of each run and ends the call.

    Returns:
      Each run's `result.json`, or why it failed.

    Raises:
      LabError, DataError: bad input, before anything is written.
      ValueError: the runs are of several groups.

    Example:
      from experiments import addition
      runs = [
          GroupRun(addition.get_config(name), Path("runs") / name / "seed_0", {}, print)
          for name in ("teacher_forcing", "linear")
      ]
      results = train_group(runs)
    """
    if len({group_key(one.config) for one in runs}) > 1:
        raise ValueError("the runs of a group must not differ in what a program is made for")
    results: list[dict[str, Any] | LabError | None] = []
    for one in runs:
        folder = Run(one.workdir)
        folder.check(one.config)
        check_config(one.config)
        result = folder.result()
        finished = result is not None and result["status"] == "finished"
        results.append(result if finished else None)
        if finished:
            one.report(f"{one.workdir} is finished already; nothing to do")
    waiting = [number for number, result in enumerate(results) if result is None]
    if waiting:
        trained = _Group([runs[number] for number in waiting]).train(should_stop)
        for number, result in zip(waiting, trained, strict=True):
            results[number] = result
    return [one for one in results if one is not None]


class _Group:
    """Runs that are not finished, with what they share."""

    def __init__(self, runs: Sequence[GroupRun]):
        self._runs = runs
        self._folders = [Run(one.workdir) for one in runs]
        self._vocabularies = next((one for one in self._folders if one.vocabularies()), None)
        saved = self._vocabularies.vocabularies() if self._vocabularies else None
        config = runs[0].config
        self._parts = make_experiment(config, saved)
        self._template = progress_template(
            self._parts.model, self._parts.objective, self._parts.optimizer
        )
        self._evaluator = make_evaluator(config, self._parts.model, self._parts.task)
        self._batches: dict[int, TrainingBatches] = {}
        self._results: list[dict[str, Any] | LabError] = [
            LabError("it was not trained") for _ in runs
        ]

    def train(self, should_stop: Callable[[], bool]) -> list[dict[str, Any] | LabError]:
        """Trains them."""
        with contextlib.ExitStack() as stack:
            opened: list[tuple[int, RunSession]] = []
            for number in range(len(self._runs)):
                try:
                    opened.append((number, stack.enter_context(self._open(number))))
                except LabError as error:  # another process trains there, say
                    self._results[number] = error
            if opened:
                self._train(opened, should_stop)
        return self._results

    def _open(self, number: int) -> RunSession:
        one, folder = self._runs[number], self._folders[number]
        session = RunSession(
            folder, one.config, one.overrides, self._parts.task, self._template, one.report
        )
        if self._vocabularies and not _same_vocabularies(folder, self._vocabularies):
            with session:
                raise LabError(
                    f"the vocabularies in {folder.folder} are not those in"
                    f" {self._vocabularies.folder}; train the run alone, with s2s train"
                )
        return session

    def _train(
        self, opened: Sequence[tuple[int, RunSession]], should_stop: Callable[[], bool]
    ) -> None:
        init = make_init(self._parts.model, self._parts.optimizer)
        lanes, starts, scalars, evaluators = [], [], [], []
        for number, session in opened:
            config = self._runs[number].config
            key = jax.random.key(config.seed)
            starts.append(session.start or Progress(init(key), zero_sums(self._template)))
            scalars.append(scalars_of(config.train))
            evaluators.append(self._evaluator_of(config))
            lanes.append(self._lane(number, session, evaluators[-1]))
        make = partial(make_optimizer, self._runs[0].config.train)
        programs = LanePrograms(
            self._parts.objective, make, self._template, starts, scalars, lanes, self._report
        )
        for _, session in opened:
            session.start = None  # it is on the device by now
        del starts

        def ended(place: int) -> None:
            (number, session), lane = opened[place], lanes[place]
            self._results[number] = _conclude(session, lane, evaluators[place])

        train_lanes(lanes, programs, should_stop, ended)

    def _lane(self, number: int, session: RunSession, evaluator: Evaluator) -> Lane:
        one = self._runs[number]
        if one.config.seed not in self._batches:
            self._batches[one.config.seed] = training_batches(one.config, self._parts.task)
        schedule, _ = check_config(one.config)
        return Lane(
            self._batches[one.config.seed],
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

    def _evaluator_of(self, config: Config) -> Evaluator:
        """The group's, but for what theory says of this run's schedule."""
        if not self._evaluator.knows_the_truth:
            return self._evaluator
        divergence = make_divergence(config, self._parts.model, self._parts.task)
        return self._evaluator.with_divergence(divergence)

    def _report(self, line: str) -> None:
        for one in self._runs:
            one.report(line)


def _conclude(session: RunSession, lane: Lane, evaluator: Evaluator) -> dict[str, Any] | LabError:
    """Ends a run, and closes what is open."""
    try:
        with session:
            if lane.error is not None:
                if isinstance(lane.error, NonFiniteLossError):
                    session.fail(lane.error)
                raise lane.error
            return session.conclude(lane.step, evaluator)
    except LabError as error:
        return error


def _same_vocabularies(folder: Run, other: Run) -> bool:
    names = ("source_vocabulary.json", "target_vocabulary.json")
    return all(
        (folder.folder / name).read_bytes() == (other.folder / name).read_bytes() for name in names
    )
