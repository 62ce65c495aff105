"""Plans a sweep: all runs of an experiment are checked before the first one starts."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.metric_catalog import CATALOG, Catalog
from s2s_jax.lab.base.text_tables import align
from s2s_jax.lab.config.experiment_file import (
    split_config,
    sweep_of,
    sweep_takes_argument,
)
from s2s_jax.lab.config.overrides import parse_config, plain_value
from s2s_jax.lab.runs.data_check import DataCheck
from s2s_jax.lab.runs.names import log_file, run_name, short_key, varied_beside_schedule
from s2s_jax.lab.runs.run_folder import RunFolder
from s2s_jax.lab.sweeps.assignment import Assignment, with_varied
from s2s_jax.lab.training.build import make_experiment
from s2s_jax.lab.training.teachers import check_teacher
from s2s_jax.lab.training.warm_start import WarmStarts, starts_warm


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
      name: "<schedule>/seed_<n>", with whatever else the sweep varies.
      assignment: what the process that trains it is told.
      status: "finished", "stopped", "failed" or "waiting".
      schedule: its schedule's name.
      seed: its seed.
      varied: (dotted key, value as text) of everything the sweep varies besides schedule and seed.
      num_steps: the total number of updates.
      steps_made: updates that it had made when it was planned.
      score: the metric that is shown while it trains, such as "eval/own/wer".
      group: the same for runs that can share compiled code or be one program; see `group_key`.
      catalog: how `score` is shown.
    """

    name: str
    assignment: Assignment
    status: str
    schedule: str = ""
    seed: int = 0
    varied: tuple[tuple[str, str], ...] = ()
    num_steps: int = 0
    steps_made: int = 0
    score: str = ""
    group: str = ""
    catalog: Catalog = CATALOG

    @property
    def workdir(self) -> Path:
        """Its folder."""
        return self.assignment.workdir

    @property
    def log_file(self) -> Path:
        """The file that takes its output."""
        return log_file(self.workdir)


def plan_sweep(
    config_file: str,
    override_flags: Sequence[str],
    workdir: str | Path,
    num_seeds: int | None = None,
    report: Callable[[str], None] = lambda line: None,
    *,
    needs_data: bool = False,
) -> list[PlannedRun]:
    """Plans and checks every run of an experiment's `sweep()`; writes nothing.

    Args:
      config_file: the experiment; `sweep()` says what each run sets.
      override_flags: `--config.KEY=VALUE` for all runs.
      workdir: the sweep's folder; run folders are `<workdir>/<schedule>/seed_<n>`.
      num_seeds: only seeds below this number; None for all.
      report: takes a line about anything that could not be checked.
      needs_data: whether the data of unfinished runs must be available.

    Raises:
      LabError, DataError: a run's config or data cannot be used, a new run cannot start from
        `train.init_from`, `objective.teacher` is missing, or the data of a finished run have
        changed.
    """
    file, argument = split_config(config_file)
    if argument and not sweep_takes_argument(config_file):
        raise LabError(f"a sweep chooses the schedules itself: write --config={file}")
    if num_seeds is not None and num_seeds < 1:
        raise LabError(f"--seeds is {num_seeds}; it must be at least 1")
    plan: list[PlannedRun] = []
    data, starts = DataCheck(), WarmStarts()
    base, fixed, _ = parse_config([f"--config={config_file}", *override_flags])
    for values in sweep_of(config_file):
        varied = {key: plain_value(key, value) for key, value in values.items()}
        clash = sorted(varied.keys() & fixed.keys())
        if clash:
            raise LabError(f"{clash[0]} is varied by this sweep; it cannot be set for all runs")
        config, _ = with_varied(base, fixed, varied)
        if num_seeds is not None and config.seed >= num_seeds:
            continue
        experiment = make_experiment(config)
        name = run_name(config.schedule.name, config.seed, varied)
        folder = Path(workdir) / name
        run = RunFolder(folder)
        run.check(config)
        result, finished = run.result(), run.finished(config)
        if finished is not None:
            for line in data.check(run, config):
                report(line)
        else:
            check_teacher(experiment)
            if starts_warm(config, run):
                starts.check(experiment)
            if needs_data:
                data.require(config)
        status = result["status"] if result else "waiting"
        if status == "finished" and finished is None:
            status = "stopped"
        scorer = experiment.scorer
        plan.append(
            PlannedRun(
                name,
                Assignment(config_file, folder, tuple(override_flags), tuple(varied.items())),
                status,
                config.schedule.name,
                config.seed,
                tuple((key, str(one)) for key, one in varied_beside_schedule(varied).items()),
                config.train.num_steps,
                result["steps"] if result else 0,
                f"eval/own/{scorer.headline}",
                experiment.group_key,
                scorer.catalog,
            )
        )
    if not plan:
        raise LabError(f"the sweep of {config_file} has no runs")
    _check_folders(plan, config_file)
    return plan


def _check_folders(plan: Sequence[PlannedRun], config_file: str) -> None:
    """Rejects a plan in which two runs have the same folder."""
    folders: dict[str, PlannedRun] = {}
    for one in plan:
        # Some file systems do not distinguish "A" from "a".
        other = folders.setdefault(one.name.casefold(), one)
        if other is one:
            continue
        if dict(other.assignment.varied) == dict(one.assignment.varied):
            raise LabError(f"two runs of the sweep of {config_file} are the same: {one.name}")
        start = (
            f"two runs of the sweep of {config_file} would share the folder {one.name}, which is"
        )
        if "method" in dict(one.varied):
            raise LabError(f"{start} named after the method; give each its own name")
        raise LabError(
            f"{start} named after the last part of each varied key; of the keys that end alike,"
            " vary only one"
        )


def plan_table(plan: Sequence[PlannedRun]) -> str:
    """The grid of a sweep, with one row per combination of values and one column per seed.

    If every run names its method, that stands for what the method sets.

    Args:
      plan: from `plan_sweep`, with at least one run.

    Example:
      >>> nothing = Assignment("", Path())
      >>> runs = [PlannedRun("", nothing, "waiting", "linear", seed) for seed in range(2)]
      >>> print(plan_table(runs))
      schedule  seed 0   seed 1
      linear    waiting  waiting
      <BLANKLINE>
      2 runs, 1 row of up to 2 seeds: 2 waiting
    """
    keys = list(dict.fromkeys(key for one in plan for key, _ in one.varied))
    if all(dict(one.varied).get("method") for one in plan):
        keys = ["method"]
    seeds = sorted({one.seed for one in plan})
    rows: dict[tuple[str, ...], dict[int, str]] = {}
    for one in plan:
        values = dict(one.varied)
        row = (one.schedule, *(values.get(key, "-") for key in keys))
        stands = f"{one.status} at {one.steps_made:,}" if one.status == "stopped" else one.status
        rows.setdefault(row, {})[one.seed] = stands
    short = [short_key(key) for key in keys]
    titles = [key if short.count(name) > 1 else name for key, name in zip(keys, short, strict=True)]
    table = [["schedule", *titles, *(f"seed {seed}" for seed in seeds)]]
    table += [[*row, *(found.get(seed, "-") for seed in seeds)] for row, found in rows.items()]
    lines = align(table, left=range(len(table[0])))
    counts = Counter(one.status for one in plan)
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    num_rows = f"{len(rows)} row{'s' if len(rows) > 1 else ''}"
    num_runs = f"{len(plan)} run{'s' if len(plan) > 1 else ''}"
    num_seeds = f"up to {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    lines += ["", f"{num_runs}, {num_rows} of {num_seeds}: {told}"]
    updates = sum(one.num_steps for one in plan)
    left = sum(one.num_steps - one.steps_made for one in plan if one.status != "finished")
    if updates:
        lines[-1] += f"; {left:,} of {updates:,} updates to make"
    return "\n".join(lines)
