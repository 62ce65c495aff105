"""The arguments of every command and their help texts."""

from __future__ import annotations

import argparse
import textwrap
from typing import NoReturn

from s2s_jax.data.paths import expand, user_path
from s2s_jax.lab.base.processes import EXIT_BAD_INPUT

_OVERRIDE_HELP = (
    "Any key of the config can be set: --config.train.num_steps=500 --config.model.hidden_size=128"
)


def make_parser() -> Parser:
    """The parser for all commands; it does not handle `--config.KEY=VALUE`."""
    parser = Parser(
        prog="s2s",
        description="Train, compare and inspect sequence-to-sequence experiments.",
        epilog="See `s2s COMMAND --help` for details. Exit codes: 0 success, 1 a run of a sweep"
        " failed or a row of verify missed, 2 bad input, 75 train or sweep stopped by a signal (the"
        " same command continues from its checkpoint; a second signal stops it without waiting for"
        " one), 130 another command was interrupted.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = _command(commands, "train", "train one config, or resume its training")
    train.add_argument(
        "--config",
        required=True,
        metavar="FILE[:SCHEDULE]",
        help="an experiment and the schedule to train it with, such as experiments/g2p.py:linear",
    )
    train.add_argument("--workdir", required=True, help="the run's folder")

    sweep = _command(commands, "sweep", "train the runs of an experiment's sweep()")
    sweep.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="an experiment, such as experiments/g2p.py; its sweep() says how the runs differ",
    )
    sweep.add_argument(
        "--workdir", required=True, help="the sweep's folder, with one subfolder per run"
    )
    sweep.add_argument(
        "--jobs", type=int, default=1, help="how many runs to train at a time (default 1)"
    )
    sweep.add_argument(
        "--population",
        action="store_true",
        help="train runs that differ only in schedule, seed and scalars as one vmapped program",
    )
    sweep.add_argument(
        "--max-lanes",
        type=int,
        default=None,
        help="the maximum number of runs in one program of a population (default 16)",
    )
    sweep.add_argument(
        "--seeds", type=int, default=None, help="train only the seeds below this number"
    )
    sweep.add_argument(
        "--dry-run", action="store_true", help="show the grid of runs without training"
    )
    sweep.add_argument(
        "--launcher",
        choices=("local", "print"),
        default="local",
        help="print shows the command of each run, to start on a cluster",
    )

    evaluate = _command(commands, "evaluate", "evaluate a trained run on a split")
    evaluate.add_argument("workdir", help="the run's folder")
    evaluate.add_argument("--split", default="dev", help="dev, test, ... (default dev)")
    _add_checkpoint(evaluate)

    decode = _command(commands, "decode", "translate source lines with a trained run")
    decode.add_argument("workdir", help="the run's folder")
    decode.add_argument("--input", default="-", help="source lines; - reads standard input")
    decode.add_argument("--output", default="-", help="hypotheses; - writes standard output")
    decode.add_argument("--beam-size", type=int, default=1, help="1 is greedy (default)")
    decode.add_argument(
        "--length-penalty",
        type=float,
        default=1.0,
        help="a in log p / length**a, by which beam search ranks hypotheses (default 1)",
    )
    decode.add_argument(
        "--max-length", type=int, default=0, help="maximum number of tokens in a hypothesis"
    )
    decode.add_argument("--batch-size", type=int, default=256)
    _add_checkpoint(decode)

    exposure = _command(commands, "exposure", "measure the exposure bias of trained runs")
    exposure.add_argument(
        "workdirs",
        nargs="+",
        metavar="WORKDIR",
        help="the folder of a run, or of a sweep for all of its runs",
    )
    exposure.add_argument("--split", default="dev", help="dev, test, ... (default dev)")
    exposure.add_argument(
        "--measures",
        default="",
        help="the measures to compute, separated by commas: positions, outputs, recovery,"
        " edit_oracle, states, truth (for tasks whose distribution is known); default all",
    )
    exposure.add_argument(
        "--max-examples",
        type=int,
        default=0,
        help="how many to use, spread over the split; 0 for all",
    )
    exposure.add_argument(
        "--min-count",
        type=int,
        default=30,
        help="minimum number of sequences in a bin (default 30)",
    )
    exposure.add_argument(
        "--num-resamples",
        type=int,
        default=1000,
        help="number of bootstrap resamples (default 1000)",
    )
    exposure.add_argument("--seed", type=int, default=0, help="seed of everything that is sampled")
    exposure.add_argument(
        "--output",
        default=None,
        help="folder for the table and figure; default WORKDIR if there is only one",
    )
    _add_checkpoint(exposure)

    compare = _command(commands, "compare", "compare the schedules of a sweep")
    compare.add_argument("sweep_dir", help="the sweep's folder")
    compare.add_argument(
        "--metrics",
        default="",
        help="names separated by commas; the conclusions are about the first",
    )
    compare.add_argument(
        "--baseline",
        default=None,
        metavar="SCHEDULE",
        help="the row to compare the others with (default teacher_forcing, or the first row"
        " if there is none)",
    )

    verify = _command(commands, "verify", "check the train step against exact theory")
    verify.add_argument("--model", choices=("tabular", "lstm", "transformer", "all"), default=None)
    verify.add_argument(
        "--methods",
        default=None,
        metavar="NAMES",
        help="names separated by commas: sampling (scheduled sampling), noise, positions, raml,"
        " ocd, distillation, risk (default all)",
    )
    verify.add_argument(
        "--length", type=int, default=None, help="number of symbols in a sequence (default 3)"
    )
    verify.add_argument(
        "--initial", default=None, help='probabilities of the first symbol (default ".7,.3")'
    )
    verify.add_argument(
        "--transition",
        default=None,
        help='transition probabilities, one row per symbol (default ".9,.1;.2,.8")',
    )
    verify.add_argument("--seed", type=int, default=0)
    verify.add_argument("--output", default=None, metavar="FILE.json", help="the table as JSON")
    verify.add_argument(
        "--dependence",
        default=None,
        help="instead, train an LSTM on the hidden Markov chain of the dataset hmm (default"
        " length 4), with sources that hide these shares of the target's symbols, such as"
        ' "0,.25,.5,.75,1"',
    )
    verify.add_argument(
        "--picture", default=None, metavar="FILE.png", help="the figure for --dependence"
    )
    return parser


def expand_paths(options: argparse.Namespace) -> None:
    """Expands `~` in every path of a command; leaves "-" and missing options alone.

    Raises:
      DataError: a path cannot be used.
    """
    for name in ("workdir", "workdirs", "sweep_dir", "config", "input", "output", "picture"):
        value = getattr(options, name, None)
        if value is None or value == "-":
            continue
        flag = (
            name.upper().removesuffix("S") if name in _POSITIONAL[options.command] else f"--{name}"
        )
        # The name of a file that only we read or write may consist of any bytes.
        convert = (
            expand if name in ("input", "output") and options.command == "decode" else user_path
        )
        if isinstance(value, list):
            setattr(options, name, [str(convert(one, flag)) for one in value])
        else:
            setattr(options, name, str(convert(value, flag)))


_POSITIONAL = {
    "train": (),
    "sweep": (),
    "evaluate": ("workdir",),
    "decode": ("workdir",),
    "exposure": ("workdirs",),
    "compare": ("sweep_dir",),
    "verify": (),
}


class Parser(argparse.ArgumentParser):
    """Prints one line on an error instead of the usage, and may list components in its help.

    Attributes:
      lists_components: whether the help ends with a list of what a config can name.
    """

    lists_components = False

    def format_help(self) -> str:
        """What `--help` prints."""
        return super().format_help() + (_components() if self.lists_components else "")

    def error(self, message: str, command: str = "") -> NoReturn:
        """Prints the message for this parser, or for one of its commands, and exits."""
        program = f"{self.prog} {command}".strip()
        self.exit(EXIT_BAD_INPUT, f"{program}: {message} ({program} --help lists the rest)\n")


def _command(commands, name: str, about: str) -> argparse.ArgumentParser:
    takes_config = name in ("train", "sweep")
    epilog = _OVERRIDE_HELP if takes_config else None
    command = commands.add_parser(name, help=about, description=about, epilog=epilog)
    command.lists_components = takes_config
    return command


def _components() -> str:
    """What a config can name, with the options of each: the end of the help."""
    from s2s_jax.lab.config.components import KINDS, built_in_options
    from s2s_jax.lab.evaluation.scores import SCORER_NAMES

    lines = [
        "",
        "A config chooses by name; name your own as module:function (docs/extending.md):",
    ]
    for section in KINDS:
        lines += ["", f"  {section}.name, with its options as {section}.OPTION"]
        for name, options in built_in_options(section).items():
            text = f"{name}: {options}" if options else name
            lines += textwrap.wrap(text, 92, initial_indent=4 * " ", subsequent_indent=8 * " ")
    lines += ["", "  eval.scores", f"    {', '.join(SCORER_NAMES)}"]
    return "\n".join(lines) + "\n"


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        choices=("best", "latest"),
        default="best",
        help="best on the dev split (default), or latest",
    )
