"""The command `s2s verify`: checks its options, trains, prints the table and writes files."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from s2s_jax.data.catalog import dataset_options
from s2s_jax.data.chain import make_hmm_truth
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.figures import to_png
from s2s_jax.lab.base.files import write_atomic, write_json
from s2s_jax.lab.base.text_tables import align
from s2s_jax.lab.base.versions import versions
from s2s_jax.lab.verification.chain import make_markov_chain
from s2s_jax.lab.verification.dependence import (
    DependenceCase,
    dependence_figure,
    enumerate_pairs,
    format_dependence,
    verify_dependence,
)
from s2s_jax.lab.verification.methods import METHODS, select_methods
from s2s_jax.lab.verification.recipes import RECIPES
from s2s_jax.lab.verification.verification import VerifiedCase, verify

_INITIAL, _TRANSITION, _LENGTH, _HMM_LENGTH = ".7,.3", ".9,.1;.2,.8", 3, 4


def run_verification(
    *,
    model: str | None = None,
    methods: str | None = None,
    length: int | None = None,
    initial: str | None = None,
    transition: str | None = None,
    seed: int = 0,
    output: str = "",
    dependence: str | None = None,
    picture: str = "",
    report: Callable[[str], None] = lambda line: None,
) -> tuple[str, bool]:
    """Trains, compares with theory, and writes the requested files.

    Args:
      model: "tabular", "lstm", "transformer" or "all", the default; not with dependence.
      methods: see `select_methods`; None for all; not with dependence.
      length: of the sequences; None for 3, or 4 with dependence.
      initial: probabilities such as ".7,.3", the default; not with dependence.
      transition: rows of probabilities such as ".9,.1;.2,.8", the default; not with dependence.
      seed: seed of initial weights, coins and samples.
      output: a file for the table as JSON; "" for none.
      dependence: shares of hidden symbols such as "0,.5,1", to train on hidden Markov chains whose
        sources hide these shares; None for the Markov chain.
      picture: a file for the figure; "" for none; only with dependence.
      report: takes a line of progress.

    Returns:
      The table with its conclusion, and whether every row lands.

    Raises:
      LabError: an option is invalid; nothing has been trained.
    """
    if not 0 <= seed < 2**32:
        raise LabError(f"seed is {seed}; it must be in [0, 2**32)")
    for name in (output, picture):
        if name and not Path(name).absolute().parent.is_dir():
            raise LabError(f"cannot write {name}: its folder does not exist")
    begin = time.perf_counter()
    rows: Sequence[VerifiedCase | DependenceCase]
    if dependence is None:
        if picture:
            raise LabError("--picture has no effect without --dependence")
        chain = make_markov_chain(
            parse_row(_INITIAL if initial is None else initial, "initial"),
            parse_table(_TRANSITION if transition is None else transition, "transition"),
            _LENGTH if length is None else length,
        )
        models = tuple(RECIPES) if model in (None, "all") else (str(model),)
        chosen = METHODS if methods is None else select_methods(methods)
        rows = verify(chain, models, methods=chosen, seed=seed, report=report)
        table = format_rows(rows)
        names = [method.name for method in chosen]
        settings = asdict(chain) | {"models": models, "methods": names}
        meaning = "and no gradient passes through the choice of a token"
    else:
        for name, value in (
            ("model", model),
            ("methods", methods),
            ("initial", initial),
            ("transition", transition),
        ):
            if value is not None:
                raise LabError(f"--{name} has no effect with --dependence")
        chain = dataset_options("hmm")
        length = _HMM_LENGTH if length is None else length
        if length < 1:
            raise LabError(f"length is {length}; it must be at least 1")
        truth = make_hmm_truth(chain["initial"], chain["transition"], chain["emission"], length)
        enumerate_pairs(truth)
        shares = parse_row(dependence, "dependence")
        rows = verify_dependence(truth, shares, seed=seed, report=report)
        table, settings = format_dependence(rows), {"length": length, "dependence": shares}
        meaning = "given what the source leaves open"
        if picture:
            write_atomic(picture, to_png(dependence_figure(truth, rows)))
    landed = [row.lands for row in rows]
    if output:
        result: dict[str, Any] = {
            "settings": settings | {"seed": seed},
            "rows": [asdict(row) for row in rows],
            "all_land": all(landed),
            "wall_seconds": time.perf_counter() - begin,
            "versions": versions(),
        }
        write_json(output, result)
    return f"{table}\n\n{conclusion(landed, meaning)}", all(landed)


def parse_row(text: str, name: str) -> list[float]:
    """Parses numbers separated by commas.

    Raises:
      LabError: the text is something else.

    Example:
      >>> parse_row(".7,.3", "initial")
      [0.7, 0.3]
    """
    try:
        return [float(one) for one in text.split(",")]
    except ValueError:
        raise LabError(f"{name} is {text!r}; it must be numbers separated by commas") from None


def parse_table(text: str, name: str) -> list[list[float]]:
    """Parses rows separated by semicolons.

    Raises:
      LabError: the text is something else.

    Example:
      >>> parse_table(".9,.1;.2,.8", "transition")
      [[0.9, 0.1], [0.2, 0.8]]
    """
    return [parse_row(row, name) for row in text.split(";")]


def format_rows(rows: Sequence[VerifiedCase]) -> str:
    """The table for a terminal."""
    head = ("model", "method", "teacher_prob", "measure", "predicted", "trained", "|q diff|",
            "|Q1 diff|", "verdict")  # fmt: skip
    cells = [
        (
            row.model,
            row.method,
            _number(row.teacher_prob, 2),
            row.measure,
            "not identified" if row.predicted is None else f"{row.predicted:.6f}",
            f"{row.trained:.6f}",
            _number(row.largest_difference, 4),
            _number(row.first_difference, 5),
            row.verdict,
        )
        for row in rows
    ]
    return "\n".join(align([head, *cells], left={0, 1, 3, len(head) - 1}))


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def conclusion(landed: Sequence[bool], meaning: str) -> str:
    """One sentence; it ends with `meaning` if every row lands."""
    missing = len(landed) - sum(landed)
    if missing:
        return f"{missing} of {len(landed)} rows miss: training did not end where theory says."
    return (
        f"All {len(landed)} rows land: the train step converges to what theory predicts, {meaning}."
    )
