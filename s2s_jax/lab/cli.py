"""The command line: `s2s train`, `sweep`, `evaluate`, `decode`, `compare`."""

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from s2s_jax.lab.arguments import make_parser
from s2s_jax.lab.bounds import check_flag_numbers
from s2s_jax.lab.errors import LabError, is_for_the_user, is_out_of_memory, out_of_memory_line
from s2s_jax.lab.processes import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    prepare_jax,
    stop_on_signals,
    tolerate_garbage,
)
from s2s_jax.lab.programs import command_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits 0, 2 on bad input, 75 or 130 when stopped by a signal."""
    tolerate_garbage()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = make_parser()
    overrides = [one for one in _joined(arguments) if one.startswith("--config.")]
    rest = [one for one in _joined(arguments) if not one.startswith("--config.")]
    options = parser.parse_args(rest)
    if overrides and not hasattr(options, "config"):
        parser.error(f"{options.command} takes no config; {overrides[0]} has no effect")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the rules of a table, in a terminal without
    try:
        check_flag_numbers(options)
        _COMMANDS[options.command](options, overrides)
    except KeyboardInterrupt:  # where nobody waits for the end of a step
        print("s2s: interrupted", file=sys.stderr)
        sys.exit(EXIT_STOPPED if options.command in ("train", "sweep") else EXIT_INTERRUPTED)
    except (LabError, ValueError) as error:
        if not is_for_the_user(error):
            raise
        sys.exit(_fail(str(error)))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sys.exit(_fail(out_of_memory_line(error)))
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does; that is no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)


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


def _fail(message: str) -> int:
    print(f"s2s: {message}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _train(options: argparse.Namespace, overrides: list[str]) -> None:
    from s2s_jax.lab.config import parse_config

    config, chosen, _ = parse_config([f"--config={options.config}", *overrides])
    prepare_jax()
    from s2s_jax.lab.experiment import train_and_evaluate

    stopped = stop_on_signals()
    result = train_and_evaluate(
        config, options.workdir, chosen, report=_report, should_stop=stopped.is_set
    )
    if result["status"] == "stopped":
        _report(f"stopped at step {result['steps']}; the same command goes on from there")
        sys.exit(EXIT_STOPPED)
    _report(f"look at the run with: {command_line('tensorboard', '--logdir', options.workdir)}")


def _sweep(options: argparse.Namespace, overrides: list[str]) -> None:
    _check_population(options)
    from s2s_jax.lab.sweep import plan_sweep, plan_table
    from s2s_jax.lab.sweep_groups import MAX_LANES, groups_table, make_groups

    plan = plan_sweep(options.config, overrides, options.workdir, options.seeds)
    max_lanes = MAX_LANES if options.max_lanes is None else options.max_lanes
    groups = make_groups(plan, max_lanes if options.population else 1)
    if options.launcher == "print":
        for one in plan:
            print(one.command_line)
        return
    if options.dry_run:
        print(plan_table(plan))
        if options.population:
            print(f"\n{groups_table(groups)}")
        return
    from s2s_jax.lab.sweep_display import make_display
    from s2s_jax.lab.sweep_pool import run_sweep

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The terminal has gone; `nohup` has it ignored.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    display = make_display(sys.stdout, _report)
    try:
        failed = run_sweep(plan, options.jobs, display=display, groups=groups)
    except KeyboardInterrupt:
        _report("stopped; the same command goes on from the checkpoints")
        sys.exit(EXIT_STOPPED)
    if failed:
        sys.exit(EXIT_FAILED)
    _report(f"compare them with: {command_line('s2s', 'compare', options.workdir)}")


def _check_population(options: argparse.Namespace) -> None:
    """Refuses flags that exclude each other."""
    if not options.population:
        if options.max_lanes is not None:
            raise LabError("--max-lanes is of a population; add --population")
        return
    if options.jobs > 1:
        raise LabError(
            f"--population trains its runs in one process; --jobs={options.jobs} has no part in it"
        )
    if options.launcher == "print":
        raise LabError(
            "--population trains its runs in one process, and --launcher=print shows a command"
            " for each; leave one of them out"
        )


def _evaluate(options: argparse.Namespace, overrides: list[str]) -> None:
    prepare_jax()
    from s2s_jax.lab.experiment import evaluate_run, load_run
    from s2s_jax.lab.files import write_json

    run = load_run(options.workdir, options.checkpoint)
    metrics = evaluate_run(run, options.split)
    width = max(map(len, metrics))
    for name, value in metrics.items():
        print(f"{name:{width}}  {value:.6g}")
    path = Path(options.workdir) / f"evaluation_{options.split}.json"
    write_json(path, {"step": run.step, "checkpoint": options.checkpoint, "metrics": metrics})


def _decode(options: argparse.Namespace, overrides: list[str]) -> None:
    prepare_jax()
    from s2s_jax.lab.translate import translate_file

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as the source is
    unknown, lines = translate_file(
        options.workdir,
        options.input,
        options.output,
        checkpoint=options.checkpoint,
        beam_size=options.beam_size,
        length_penalty=options.length_penalty,
        max_length=options.max_length,
        batch_size=options.batch_size,
    )
    if unknown:
        print(
            f"s2s: {unknown} unknown symbols in {lines} lines were read as <unk>",
            file=sys.stderr,
        )


def _exposure(options: argparse.Namespace, overrides: list[str]) -> None:
    prepare_jax()
    from s2s_jax.lab.exposure import measure_runs
    from s2s_jax.lab.exposure_runs import Settings
    from s2s_jax.lab.exposure_tables import to_text

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


def _compare(options: argparse.Namespace, overrides: list[str]) -> None:
    from s2s_jax.lab.comparison import report
    from s2s_jax.lab.tensorboard_layouts import address

    metrics = [one.strip() for one in options.metrics.split(",") if one.strip()] or None
    print(report(options.sweep_dir, metrics, options.baseline))
    print(f"Look at it in a browser, at {address()}, with:")
    print(command_line("tensorboard", "--logdir", options.sweep_dir))


def _verify(options: argparse.Namespace, overrides: list[str]) -> None:
    from s2s_jax.lab.verification_report import run_verification

    prepare_jax()
    table, lands = run_verification(
        model=options.model,
        length=options.length,
        initial=options.initial,
        transition=options.transition,
        seed=options.seed,
        output=options.output,
        dependence=options.dependence,
        picture=options.picture,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(table)
    if not lands:
        sys.exit(EXIT_FAILED)


def _report(line: str) -> None:
    print(line, flush=True)


_COMMANDS = {
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
