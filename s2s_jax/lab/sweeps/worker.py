"""A process of a sweep: trains what it is sent, one job after another.

python -m s2s_jax.lab.sweeps.worker

A job is a line on standard input: a JSON list of runs, each an `Assignment`; several runs are lanes
of one program. The output of a run goes to the run's own log, next to its folder; its
`result.json` says how it ended. If a job has finished, or its input or loss was bad, the process
answers on standard output with the exit code that `s2s train` would have, and keeps loaded data and
compiled programs for the next job. After anything else, such as a signal, a lack of memory or an
unexpected error, the process exits with the code for that instead. The last job is followed by
null. If the sweep dies, the process saves a checkpoint and exits: see `SentJobs`.
"""

import contextlib
import gc
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from s2s_jax.lab.base.errors import (
    LabError,
    is_for_the_user,
    is_out_of_memory,
    out_of_memory_line,
)
from s2s_jax.lab.base.processes import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_OUT_OF_MEMORY,
    EXIT_STOPPED,
    prepare_jax,
    stop_on_signals,
    tolerate_garbage,
)
from s2s_jax.lab.base.shell_commands import command_line
from s2s_jax.lab.runs.names import log_file
from s2s_jax.lab.sweeps.assignment import Assignment
from s2s_jax.lab.sweeps.sent_jobs import SentJobs

if TYPE_CHECKING:
    from s2s_jax.lab.training.workbench import Result, Workbench


def main() -> int:
    """Works until there are no jobs left or one ends badly.

    Returns:
      The exit code: 0, or that of the last job; see `work`.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    tolerate_garbage()
    stopped = stop_on_signals()
    jobs = SentJobs(os.dup(0))
    os.dup2(
        os.open(os.devnull, os.O_RDONLY), 0
    )  # an experiment that reads standard input must not read jobs
    try:
        prepare_jax()
        from s2s_jax.lab.training.workbench import Workbench
    except Exception as error:
        if not is_for_the_user(error):
            raise
        print(f"s2s: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT

    gc.freeze()  # imported objects are never collected
    bench = Workbench()
    for runs in jobs:
        job = [Assignment.from_json(one) for one in runs]
        _print_to(log_file(job[0].workdir))
        stopped.begin_anew()
        code = work(bench, job, stopped.is_set)
        # A signal that arrived too late for this run must not be lost on the next one.
        if stopped.is_set() or code not in (0, EXIT_BAD_INPUT):
            return code
        gc.collect()  # a failed run can keep its state alive in a reference cycle
        try:
            print(code, file=answers)
        except BrokenPipeError:  # the sweep was killed
            break
    return 0


def work(bench: "Workbench", job: Sequence[Assignment], should_stop: Callable[[], bool]) -> int:
    """Does one job.

    Args:
      bench: keeps loaded data and compiled programs between jobs.
      job: the runs.
      should_stop: asked after each step.

    Returns:
      The exit code: 0 if all runs have finished, 2 for bad input or a run that failed, 71 if the
      device does not have enough memory for all lanes, 75 if a signal stopped the runs, 1 for any
      other exception.
    """
    logs = [log_file(run.workdir).open("a", buffering=1, encoding="utf-8") for run in job]
    try:
        return _train(bench, job, logs, should_stop)
    except (Exception, SystemExit) as error:  # only `main` may end this process
        if is_for_the_user(error):
            code, text = EXIT_BAD_INPUT, f"s2s: {error}"
        elif is_out_of_memory(error):
            code, text = EXIT_OUT_OF_MEMORY, f"{out_of_memory_line(error)}"
        else:
            code, text = EXIT_FAILED, traceback.format_exc().rstrip()
        for log in logs:
            _say(log, text)
        return code
    finally:
        for log in logs:
            with contextlib.suppress(OSError):
                log.close()


def _train(
    bench: "Workbench",
    job: Sequence[Assignment],
    logs: Sequence[TextIO],
    should_stop: Callable[[], bool],
) -> int:
    from s2s_jax.lab.training.workbench import RunSpec

    def report_to(log: TextIO) -> Callable[[str], None]:
        return lambda line: _say(log, line)

    results: dict[int, Result] = {}
    specs: dict[int, RunSpec] = {}
    for number, (run, log) in enumerate(zip(job, logs, strict=True)):
        try:
            config, overrides = run.config()
        except LabError as error:  # the other runs continue
            results[number] = error
        else:
            specs[number] = RunSpec(config, run.workdir, overrides, report_to(log))
    trained = bench.train(list(specs.values()), should_stop=should_stop)
    results |= zip(specs, trained, strict=True)
    return max(_last_words(results[one], job[one].workdir, logs[one]) for one in range(len(job)))


def _last_words(result: "Result", folder: Path, log: TextIO) -> int:
    """Prints what `s2s train` prints at its end; returns its exit code."""
    if isinstance(result, LabError):
        _say(log, f"s2s: {result}")
        return EXIT_BAD_INPUT
    if result["status"] == "stopped":
        steps = result["steps"]
        _say(log, f"stopped at step {steps}; run the same command to continue")
        return EXIT_STOPPED
    _say(log, f"look at the run with: {command_line('tensorboard', '--logdir', folder)}")
    return 0


def _say(log: TextIO, text: str) -> None:
    """Writes to a run's log; a full disk does not end the run."""
    with contextlib.suppress(OSError):
        print(text, file=log)


def _print_to(path: Path) -> None:
    """Redirects other output, such as XLA's warnings, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


if __name__ == "__main__":
    sys.exit(main())
