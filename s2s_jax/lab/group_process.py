"""A process that trains the runs of a group as lanes of one program.

python -m s2s_jax.lab.group_process JSON...   each the arguments of a run's `s2s train`

What it says of a run goes to the run's own log, beside its folder; how the run ended is in its
`result.json`.
"""

import json
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from s2s_jax.lab.errors import LabError, is_for_the_user
from s2s_jax.lab.processes import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_OUT_OF_MEMORY,
    EXIT_STOPPED,
    prepare_jax,
    stop_on_signals,
)
from s2s_jax.lab.programs import command_line
from s2s_jax.lab.sweep import log_file


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains the runs.

    Args:
      arguments: one JSON list a run: what `s2s` would be called with to train it alone.

    Returns:
      The exit code: 0 where all runs have finished, 1 where one failed, 2 for bad input, 71 where
      the memory of the device does not suffice for so many lanes, 75 where a signal stopped them.
    """
    runs = [json.loads(one) for one in (sys.argv[1:] if arguments is None else arguments)]
    folders = [
        Path(one.removeprefix("--workdir="))
        for run in runs
        for one in run
        if one.startswith("--workdir=")
    ]
    logs = [log_file(folder).open("a", buffering=1, encoding="utf-8") for folder in folders]
    try:
        return _train(runs, folders, logs)
    except Exception as error:
        if is_for_the_user(error):
            code, text = EXIT_BAD_INPUT, f"s2s: {error}\n"
        elif is_out_of_memory(error):
            code, text = EXIT_OUT_OF_MEMORY, f"out of memory: {str(error).splitlines()[0]}\n"
        else:
            code, text = EXIT_FAILED, traceback.format_exc()
        for log in logs:
            log.write(text)
        return code
    finally:
        for log in logs:
            log.close()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a program asked for more than its device has."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _train(runs: Sequence[Sequence[str]], folders: Sequence[Path], logs: Sequence[TextIO]) -> int:
    from s2s_jax.lab.config import parse_config

    # As `s2s train` reads them, so that a run's result.json says of itself what it would alone.
    parsed = [parse_config([one for one in run if one.startswith("--config")]) for run in runs]
    prepare_jax()
    from s2s_jax.lab.group_training import GroupRun, train_group

    stopped = stop_on_signals()

    def report_to(log: TextIO) -> Callable[[str], None]:
        return lambda line: print(line, file=log)

    results = train_group(
        [
            GroupRun(config, folder, overrides, report_to(log))
            for (config, overrides, _), folder, log in zip(parsed, folders, logs, strict=True)
        ],
        should_stop=stopped.is_set,
    )
    codes = [
        _last_words(result, folder, log)
        for result, folder, log in zip(results, folders, logs, strict=True)
    ]
    return EXIT_STOPPED if EXIT_STOPPED in codes else EXIT_FAILED if any(codes) else 0


def _last_words(result: "dict | LabError", folder: Path, log: TextIO) -> int:
    """Says what `s2s train` says at its end; returns its exit code."""
    if isinstance(result, LabError):
        print(f"s2s: {result}", file=log)
        return EXIT_BAD_INPUT
    if result["status"] == "stopped":
        steps = result["steps"]
        print(f"stopped at step {steps}; the same command goes on from there", file=log)
        return EXIT_STOPPED
    print(f"look at the run with: {command_line('tensorboard', '--logdir', folder)}", file=log)
    return 0


if __name__ == "__main__":
    sys.exit(main())
