"""A process of a sweep: trains what it is sent, one job after another.

python -m s2s_jax.lab.sweeps.worker

A job is a line of standard input: a JSON list of runs, each an `Assignment`; several runs are lanes
of one program. What the process says of a run goes to the run's own log, beside its folder; how
the run ended is in its `result.json`. A job that has finished, or
whose input or loss was bad, is answered on standard output by the exit code that `s2s train` would
have, and what was loaded and compiled stays for the next one. After anything else, a signal, a lack
of memory or what nobody foresaw, the process ends with the code of that instead. After the last job
comes null. Where the sweep dies instead, the process saves a checkpoint and ends: see `SentJobs`.
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
    """Works until there is no job left, or one does not go well.

    Returns:
      The exit code: 0, or that of the last job; see `work`.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    tolerate_garbage()
    stopped = stop_on_signals()
    jobs = SentJobs(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # an experiment that reads reads no job
    try:
        prepare_jax()
        from s2s_jax.lab.training.workbench import Workbench
    except Exception as error:
        if not is_for_the_user(error):
            raise
        print(f"s2s: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT

    gc.freeze()  # what was imported stays
    bench = Workbench()
    for runs in jobs:
        job = [Assignment.from_json(one) for one in runs]
        _print_to(log_file(job[0].workdir))
        stopped.begin_anew()
        code = work(bench, job, stopped.is_set)
        # A signal that a run no longer heard, at its end, is not for the next one.
        if stopped.is_set() or code not in (0, EXIT_BAD_INPUT):
            return code
        gc.collect()  # a run that failed can hold its state in a cycle
        try:
            print(code, file=answers)
        except BrokenPipeError:  # the sweep was killed
            break
    return 0


def work(bench: "Workbench", job: Sequence[Assignment], should_stop: Callable[[], bool]) -> int:
    """Does one job.

    Args:
      bench: has what earlier jobs have left.
      job: the runs.
      should_stop: asked after each step.

    Returns:
      The exit code: 0 where all runs have finished, 2 for bad input or a run that failed, 71 where
      the memory of the device does not suffice for so many lanes, 75 where a signal stopped them,
      1 for any other exception.
    """
    logs = [log_file(run.workdir).open("a", buffering=1, encoding="utf-8") for run in job]
    try:
        return _train(bench, job, logs, should_stop)
    except (Exception, SystemExit) as error:  # nobody but `main` ends this process
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
        except LabError as error:  # the runs beside it go on
            results[number] = error
        else:
            specs[number] = RunSpec(config, run.workdir, overrides, report_to(log))
    trained = bench.train(list(specs.values()), should_stop=should_stop)
    results |= zip(specs, trained, strict=True)
    return max(_last_words(results[one], job[one].workdir, logs[one]) for one in range(len(job)))


def _last_words(result: "Result", folder: Path, log: TextIO) -> int:
    """Says what `s2s train` says at its end; returns its exit code."""
    if isinstance(result, LabError):
        _say(log, f"s2s: {result}")
        return EXIT_BAD_INPUT
    if result["status"] == "stopped":
        steps = result["steps"]
        _say(log, f"stopped at step {steps}; the same command goes on from there")
        return EXIT_STOPPED
    _say(log, f"look at the run with: {command_line('tensorboard', '--logdir', folder)}")
    return 0


def _say(log: TextIO, text: str) -> None:
    """Writes into a run's log; where its disk is full, that is not what a run ends by."""
    with contextlib.suppress(OSError):
        print(text, file=log)


def _print_to(path: Path) -> None:
    """Sends what others print, XLA's warnings say, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


if __name__ == "__main__":
    sys.exit(main())
