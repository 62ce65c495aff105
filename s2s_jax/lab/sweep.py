"""A sweep: an experiment's runs, several at a time, each a process of its own."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from s2s_jax.lab.config import Overrides, apply_overrides, parse_config
from s2s_jax.lab.errors import LabError
from s2s_jax.lab.experiment import check_config
from s2s_jax.lab.experiment_file import sweep_of
from s2s_jax.lab.run import Run

_POLL_SECONDS = 0.5
_REPORT_SECONDS = 15.0


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
      name: "<schedule>/seed_<n>", and what else the sweep varies.
      workdir: its folder.
      arguments: those of `s2s` that train it.
      status: "finished", "stopped", "failed" or "waiting".
    """

    name: str
    workdir: Path
    arguments: tuple[str, ...]
    status: str

    @property
    def command_line(self) -> str:
        """The shell command that trains it."""
        return shlex.join(["s2s", *self.arguments])


def plan_sweep(
    config_file: str,
    override_flags: Sequence[str],
    workdir: str | Path,
    num_seeds: int | None = None,
) -> list[PlannedRun]:
    """The runs of an experiment's `sweep()`, every one of them checked; nothing is written.

    Args:
      config_file: the experiment; `sweep()` says what each run sets.
      override_flags: `--config.KEY=VALUE` for all runs.
      workdir: the sweep's folder; run folders are `<workdir>/<schedule>/seed_<n>`.
      num_seeds: only the seeds below it; None for all.

    Raises:
      LabError: a run's config cannot be used.
    """
    if ":" in config_file:
        raise LabError(
            f"a sweep chooses the schedules itself: write --config={config_file.split(':')[0]}"
        )
    if num_seeds is not None and num_seeds < 1:
        raise LabError(f"--seeds is {num_seeds}; it must be at least 1")
    plan: list[PlannedRun] = []
    base, fixed, _ = parse_config([f"--config={config_file}", *override_flags])
    for varied in sweep_of(config_file):
        clash = sorted(varied.keys() & fixed.keys())
        if clash:
            raise LabError(f"{clash[0]} is what this sweep varies; it cannot be set for all runs")
        config = apply_overrides(base, varied)
        if num_seeds is not None and config.seed >= num_seeds:
            continue
        check_config(config)
        name = run_name(config.schedule.name, config.seed, varied)
        folder = Path(workdir) / name
        run = Run(folder)
        run.check(config)
        result = run.result()
        flags = [f"--config.{key}={value}" for key, value in varied.items()]
        plan.append(
            PlannedRun(
                name,
                folder,
                (
                    "train",
                    f"--config={config_file}",
                    f"--workdir={folder}",
                    *override_flags,
                    *flags,
                ),
                result["status"] if result else "waiting",
            )
        )
    names = [one.name for one in plan]
    if not plan:
        raise LabError(f"the sweep of {config_file} has no runs")
    if len(set(names)) < len(names):
        raise LabError(f"two runs of the sweep of {config_file} are the same")
    return plan


def run_name(schedule: str, seed: int, varied: Overrides) -> str:
    """The folder of a run within its sweep; TensorBoard calls the run by it.

    Example:
      >>> run_name("linear", 1, {"seed": 1, "rollout.coin": "sequence"})
      'linear,coin=sequence/seed_1'
    """
    others = (
        f",{key.rsplit('.', 1)[-1]}={re.sub(r'[^A-Za-z0-9.+-]+', '_', str(value))}"
        for key, value in sorted(varied.items())
        if key not in ("schedule.name", "seed")
    )
    return f"{schedule}{''.join(others)}/seed_{seed}"


def run_sweep(
    plan: Sequence[PlannedRun], num_jobs: int, *, report: Callable[[str], None] = print
) -> list[str]:
    """Trains the runs of a plan that are not finished, each in a process of its own.

    A run that fails does not stop the others. An interrupt is passed on to the running processes,
    which save a checkpoint; the same sweep goes on from there. With several jobs each has its share
    of the machine's cores. A run's own output is in `<run folder>.log`.

    Args:
      plan: of `plan_sweep`.
      num_jobs: runs at a time, at least 1.
      report: takes a line of progress.

    Returns:
      The names of the runs that failed.

    Raises:
      LabError: num_jobs is below 1, or the sweep's folder cannot be written.
      KeyboardInterrupt: after the running processes have saved their checkpoints.
    """
    if num_jobs < 1:
        raise LabError(f"--jobs is {num_jobs}; it must be at least 1")
    waiting = [one for one in plan if one.status != "finished"]
    for one in plan:
        if one.status == "finished":
            report(f"{one.name}: finished before")
    num_jobs = min(num_jobs, len(waiting)) or 1
    running: dict[PlannedRun, subprocess.Popen[bytes]] = {}
    failed: list[str] = []
    total, reported = len(plan), time.monotonic()
    done = total - len(waiting)
    try:
        while waiting or running:
            while waiting and len(running) < num_jobs:
                one = waiting.pop(0)
                running[one] = _start(one, num_jobs)
                report(f"{one.name}: started ({done} of {total} done)")
            time.sleep(_POLL_SECONDS)
            for one, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[one]
                done += 1
                last = _last_line(one)
                if process.returncode == 0:
                    report(f"{one.name}: finished ({done} of {total} done)")
                else:
                    failed.append(one.name)
                    report(f"{one.name}: FAILED, exit code {process.returncode}: {last}")
            if time.monotonic() - reported > _REPORT_SECONDS:
                reported = time.monotonic()
                for one in running:
                    report(f"{one.name}: {_last_line(one)}")
    except KeyboardInterrupt:
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        for process in running.values():
            process.wait()
        raise
    if failed:
        report(f"{len(failed)} of {total} runs failed: {', '.join(failed)}")
    return failed


def _log_file(run: PlannedRun) -> Path:
    return run.workdir.with_name(f"{run.workdir.name}.log")


def _start(run: PlannedRun, num_jobs: int) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    if num_jobs > 1:
        # Processes that each take every core get in each other's way.
        flags = environment.get("XLA_FLAGS", "")
        if (os.cpu_count() or 1) <= num_jobs:
            flags += " --xla_cpu_multi_thread_eigen=false"
        environment["XLA_FLAGS"] = flags.strip()
    try:
        run.workdir.parent.mkdir(parents=True, exist_ok=True)
        with _log_file(run).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "s2s_jax.lab.cli", *run.arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
    except OSError as error:
        raise LabError(f"cannot write to {run.workdir.parent}: {error.strerror}") from error


def _last_line(run: PlannedRun) -> str:
    try:
        with _log_file(run).open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 4000))
            lines = log.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else "starting"
