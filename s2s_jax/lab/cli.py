"""The command line: `s2s train`, `sweep`, `evaluate`, `decode`, `exposure`, `compare`, `verify`."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# Import nothing else here: imports at this level run before the signal handlers are installed.
from s2s_jax.lab.base.errors import LabError, is_for_the_user, is_out_of_memory, out_of_memory_line
from s2s_jax.lab.base.processes import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    StopSignals,
    import_jax,
    prepare_jax,
    provide_home,
    stop_on_signals,
    tolerate_garbage,
)
from s2s_jax.lab.base.streams import (
    check_stdout,
    printing_is_decoration,
    take_streams,
    tell,
    warn,
)

if TYPE_CHECKING:
    import argparse

_TRAINING = ("train", "sweep")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits with 2 on bad input, 75 or 130 when stopped by a signal."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    take_streams()  # first: a file opened earlier could be given a missing stream's descriptor
    trains = bool(arguments) and arguments[0] in _TRAINING
    signals = stop_on_signals() if trains else None
    try:
        code = _main(arguments, signals)
    finally:
        if signals is not None:
            signals.close()
    if code:
        sys.exit(code)


def _main(arguments: Sequence[str], signals: StopSignals | None) -> int:
    """Runs one command and prints its errors; returns its exit code."""
    tolerate_garbage()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # for table rules on a terminal that lacks them
    try:
        code = _run(arguments, signals)
        return code if check_stdout() else EXIT_FAILED
    except KeyboardInterrupt:  # outside a training step
        warn("interrupted")
        return EXIT_INTERRUPTED if signals is None else EXIT_STOPPED
    except (LabError, ValueError) as error:
        if not is_for_the_user(error):
            raise
        warn(str(error))
        return EXIT_BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        warn(out_of_memory_line(error))
        return EXIT_BAD_INPUT
    except OSError as error:
        if error.errno is None or error.filename is None:
            raise
        warn(f"cannot use {error.filename}: {error.strerror}")
        return EXIT_BAD_INPUT


def _run(arguments: Sequence[str], signals: StopSignals | None) -> int:
    """Runs one command; returns its exit code."""
    from s2s_jax.lab.arguments import expand_paths, make_parser
    from s2s_jax.lab.config.bounds import check_flag_numbers

    parser = make_parser()
    overrides = [one for one in _joined(arguments) if one.startswith("--config.")]
    rest = [one for one in _joined(arguments) if not one.startswith("--config.")]
    try:
        options, unknown = parser.parse_known_args(rest)
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}", options.command)
        if overrides and not hasattr(options, "config"):
            message = f"{options.command} takes no config; {overrides[0]} has no effect"
            parser.error(message, options.command)
    except SystemExit as ended:  # help or an error has been printed
        return int(ended.code or 0)
    check_flag_numbers(options)
    provide_home()
    expand_paths(options)
    options.signals = signals
    return _COMMANDS[options.command](options, overrides)


def _joined(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--config.key value` written as `--config.key=value`."""
    joined: list[str] = []
    for one in arguments:
        waits = joined and joined[-1].startswith("--config.") and "=" not in joined[-1]
        if waits and not one.startswith("--"):
            joined[-1] += f"={one}"
        else:
            joined.append(one)
    return joined


def _train(options: argparse.Namespace, overrides: list[str]) -> int:
    from s2s_jax.lab.base.allocator import check_address_space

    check_address_space()
    import_jax()
    from s2s_jax.lab.config.overrides import parse_config

    printing_is_decoration()

    config, chosen, _ = parse_config([f"--config={options.config}", *overrides])
    prepare_jax()
    from s2s_jax.lab.base.shell_commands import command_line
    from s2s_jax.lab.experiment import train_and_evaluate

    result = train_and_evaluate(
        config, options.workdir, chosen, report=_report, should_stop=options.signals.is_set
    )
    if result["status"] == "stopped":
        _report(f"stopped at step {result['steps']}; run the same command to continue")
        return EXIT_STOPPED
    _report(f"look at the run with: {command_line('tensorboard', '--logdir', options.workdir)}")
    return 0


def _sweep(options: argparse.Namespace, overrides: list[str]) -> int:
    from s2s_jax.lab.base.allocator import check_address_space

    _check_population(options)
    starts = not options.dry_run and options.launcher == "local"
    if starts:
        check_address_space()  # here, in one line; otherwise every run would fail
    import_jax()
    from s2s_jax.lab.sweeps.groups import MAX_LANES, groups_table, make_groups
    from s2s_jax.lab.sweeps.plan import plan_sweep, plan_table

    plan = plan_sweep(
        options.config, overrides, options.workdir, options.seeds, warn, needs_data=starts
    )
    max_lanes = MAX_LANES if options.max_lanes is None else options.max_lanes
    groups = make_groups(plan, max_lanes if options.population else 1)
    if options.launcher == "print":
        print("\n".join([one.assignment.command_line() for one in plan]))
        return 0
    if options.dry_run:
        print(plan_table(plan))
        if options.population:
            print(f"\n{groups_table(groups)}")
        return 0
    printing_is_decoration()
    from s2s_jax.lab.base.shell_commands import command_line
    from s2s_jax.lab.sweeps.display import make_display
    from s2s_jax.lab.sweeps.pool import run_sweep

    display = make_display(sys.stdout, _report)
    options.signals.interrupt_from_now_on()
    try:
        failed = run_sweep(plan, options.jobs, display=display, groups=groups)
    except KeyboardInterrupt:
        _report("stopped; run the same command to continue from the checkpoints")
        return EXIT_STOPPED
    if failed:
        return EXIT_FAILED
    _report(f"compare them with: {command_line('s2s', 'compare', options.workdir)}")
    return 0


def _check_population(options: argparse.Namespace) -> None:
    """Rejects flags that exclude each other."""
    if not options.population:
        if options.max_lanes is not None:
            raise LabError("--max-lanes applies only to a population; add --population")
        return
    if options.jobs > 1:
        raise LabError(
            f"--population trains its runs in one process; leave out --jobs={options.jobs}"
        )
    if options.launcher == "print":
        raise LabError(
            "--population trains its runs in one process, but --launcher=print shows one command"
            " per run; leave one of them out"
        )


def _evaluate(options: argparse.Namespace, overrides: list[str]) -> int:
    prepare_jax()
    from s2s_jax.lab.base.files import write_json
    from s2s_jax.lab.experiment import evaluate_run, load_run, load_run_task
    from s2s_jax.lab.runs.provenance import Provenance

    run = load_run(options.workdir, options.checkpoint, warn)
    task = load_run_task(run, warn)
    metrics = evaluate_run(run, options.split, task)
    tell(f"{options.checkpoint} checkpoint: {run.origin}")
    width = max(map(len, metrics))
    catalog = run.experiment.scorer.catalog
    for name, value in metrics.items():
        print(f"{name:{width}}  {catalog.describe(name).text(value)}")
    path = Path(options.workdir) / f"evaluation_{options.split}.json"
    provenance = Provenance.of(task).to_dict()
    record = {"step": run.step, "checkpoint": options.checkpoint, "metrics": metrics}
    write_json(path, record | {"provenance": provenance})
    return 0


def _decode(options: argparse.Namespace, overrides: list[str]) -> int:
    prepare_jax()
    from s2s_jax.lab.decode import translate_file

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # like the source
    unknown, lines = translate_file(
        options.workdir,
        options.input,
        options.output,
        checkpoint=options.checkpoint,
        beam_size=options.beam_size,
        length_penalty=options.length_penalty,
        max_length=options.max_length,
        batch_size=options.batch_size,
        report=tell,
    )
    if unknown:
        symbols = "1 unknown symbol" if unknown == 1 else f"{unknown} unknown symbols"
        were, plural = "was" if unknown == 1 else "were", "" if lines == 1 else "s"
        warn(f"{symbols} in {lines} line{plural} {were} read as <unk>")
    return 0


def _exposure(options: argparse.Namespace, overrides: list[str]) -> int:
    prepare_jax()
    from s2s_jax.lab.exposure.exposure import measure_runs
    from s2s_jax.lab.exposure.settings import Settings
    from s2s_jax.lab.exposure.tables import to_text

    settings = Settings(
        split=options.split,
        checkpoint=options.checkpoint,
        groups=tuple(one.strip() for one in options.measures.split(",") if one.strip()),
        max_examples=options.max_examples,
        min_count=options.min_count,
        num_resamples=options.num_resamples,
        seed=options.seed,
    )
    output = options.output or (options.workdirs[0] if len(options.workdirs) == 1 else None)
    runs = measure_runs(options.workdirs, settings, output=output, report=_report)
    print(to_text(runs, settings))
    return 0


def _compare(options: argparse.Namespace, overrides: list[str]) -> int:
    import_jax()
    from s2s_jax.lab.base.shell_commands import command_line
    from s2s_jax.lab.comparison.comparison import write_comparison
    from s2s_jax.lab.comparison.tensorboard_layouts import address

    metrics = [one.strip() for one in options.metrics.split(",") if one.strip()] or None
    print(write_comparison(options.sweep_dir, metrics, options.baseline))
    print(f"Look at it in a browser, at {address()}, with:")
    print(command_line("tensorboard", "--logdir", options.sweep_dir))
    return 0


def _verify(options: argparse.Namespace, overrides: list[str]) -> int:
    prepare_jax()
    from s2s_jax.lab.verification.command import run_verification

    table, lands = run_verification(
        model=options.model,
        methods=options.methods,
        length=options.length,
        initial=options.initial,
        transition=options.transition,
        seed=options.seed,
        output=options.output or "",
        dependence=options.dependence,
        picture=options.picture or "",
        report=tell,
    )
    print(table)
    return 0 if lands else EXIT_FAILED


def _report(line: str) -> None:
    print(line, flush=True)


_COMMANDS: dict[str, Callable[[argparse.Namespace, list[str]], int]] = {
    "train": _train,
    "sweep": _sweep,
    "evaluate": _evaluate,
    "decode": _decode,
    "exposure": _exposure,
    "compare": _compare,
    "verify": _verify,
}


if __name__ == "__main__":
    main()
