"""The measures of exposure bias as tables for the terminal: runs side by side, and curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby, zip_longest
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from s2s_jax.lab.base.metric_catalog import ACCURACIES, CATALOG, GAP, NO_INTERVAL
from s2s_jax.lab.base.seed_statistics import estimate
from s2s_jax.lab.base.text_tables import align

if TYPE_CHECKING:
    from s2s_jax.exposure import Measure
    from s2s_jax.lab.exposure.settings import RunExposure, Settings

_ROWS = (
    ("token accuracy", ACCURACIES),
    ("  its gap", (GAP,)),
    ("  mean of sequences", ("gold/token_accuracy_macro", "own/token_accuracy_macro")),
    ("    its gap", ("gap_macro",)),
    ("NLL", ("gold/nll",)),
    ("exact match", ("gold/exact_match", "own/exact_match")),
    ("first-error hazard", ("own/hazard",)),
    ("post-error rate", ("own/post_error_rate",)),
    ("  over the hazard", ("own/amplification",)),
    ("edit-oracle cost", ("edit_oracle/gold_cost", "edit_oracle/own_cost")),
    ("  its regret", ("edit_oracle/regret",)),
    ("half-life, uniform", ("recovery/uniform/half_life",)),
    ("half-life, plausible", ("recovery/plausible/half_life",)),
    ("length ratio", ("own/length_ratio",)),
    ("no EOS", ("own/no_eos_rate",)),
    ("KL to the truth", ("truth/kl",)),
)
"""The label of a row, without its unit, and its measures; of two, the first uses gold prefixes."""

_CURVES = {
    "position": (
        ("gold acc", "gold/accuracy_by_position"),
        ("own acc", "own/accuracy_by_position"),
        ("gap", "gap_by_position"),
        ("gold NLL", "gold/nll_by_position"),
        ("hazard", "own/hazard_by_position"),
        ("state MMD\N{SUPERSCRIPT TWO}", "states/mmd_by_position"),
        ("p", "states/p_value_by_position"),
        ("EB-C (TV)", "truth/eb_c_total_variation_by_position"),
        ("EB-C (JS)", "truth/eb_c_jensen_shannon_by_position"),
    ),
    "distance": (
        ("post-error", "own/post_error_rate_by_distance"),
        ("NLL +, uniform", "recovery/uniform/nll_increase_by_distance"),
        ("NLL +, plausible", "recovery/plausible/nll_increase_by_distance"),
    ),
    "length": (
        ("edit-oracle AccErr", "edit_oracle/accumulated_by_length"),
        ("ExAccErr", "edit_oracle/excess_percent_by_length"),
        ("true AccErr", "truth/accumulated_by_length"),
        ("true ExAccErr", "truth/excess_percent_by_length"),
    ),
    "n-gram": (
        ("gold rep", "gold/repetition"),
        ("own rep", "own/repetition"),
    ),
}
"""The columns of the table for each axis: label without the unit, and measure."""

_TINY = ("states/mmd_by_position",)


def to_text(runs: Sequence[RunExposure], settings: Settings) -> str:
    """The tables: single values of all runs side by side; for a single run also its curves.

    Args:
      runs: from `measure_runs`.
      settings: the settings with which they were measured.
    """
    parts = [_values_table(runs), _remark(runs, settings)]
    if len(runs) == 1:
        parts += [_curve_table(axis, runs[0].measures) for axis in _CURVES]
    return "\n".join(part for part in parts if part)


def _values_table(runs: Sequence[RunExposure]) -> str:
    labels = {label: list(members) for label, members in groupby(runs, lambda run: run.label)}
    # Labels can be long: they are wrapped to about the width of the cells.
    heads = [wrap(f"{label} (n={len(members)})", 24) for label, members in labels.items()]
    rows = [["", "", *head] for head in zip_longest(*heads, fillvalue="")]
    rows[0][1] = "prefixes"
    for title, names in _ROWS:
        unit = CATALOG.describe(names[0]).unit
        for number, name in enumerate(names):
            if not any(name in run.measures for run in runs):
                continue
            label = f"{title} ({unit})" if unit and number == 0 else ("" if number else title)
            cells = [_cell(members, name) for members in labels.values()]
            rows.append([label, _prefixes(name), *cells])
    return "\n".join(align(rows, left={0, 1}))


def _prefixes(name: str) -> str:
    if name.startswith("gold/") or name.endswith("/gold_cost"):
        return "gold"
    return "own" if name.startswith("own/") or name.endswith("/own_cost") else ""


def _cell(members: Sequence[RunExposure], name: str) -> str:
    """For one run the value and its bootstrap interval; for several the mean and its t-interval."""
    scale = CATALOG.describe(name).scale
    there = [run.measures[name] for run in members if name in run.measures]
    if not there:
        return NO_INTERVAL
    if len(members) == 1:
        value, low, high = (
            _number(scale * float(part)) for part in (there[0].value, there[0].low, there[0].high)
        )
        return f"{value} [{low}, {high}]" if math.isfinite(there[0].low) else value
    found = estimate(float(one.value) for one in there)
    half = _number(scale * found.half_width)
    count = "" if found.num_values == len(members) else f" (n={found.num_values})"
    return f"{_number(scale * found.mean)} ± {half}{count}"


def _curve_table(axis: str, measures: dict[str, Measure]) -> str:
    columns = [column for column in _CURVES[axis] if column[1] in measures]
    if not columns:
        return ""
    places = np.unique(np.concatenate([np.asarray(measures[name].at) for *_, name in columns]))
    shown = [CATALOG.describe(name) for _, name in columns]
    units = [" %" if metric.unit == "%" else "" for metric in shown]
    labels = [label + unit for (label, _), unit in zip(columns, units, strict=True)]
    rows = [[axis, "n", *labels]]
    for place in places.tolist():
        cells, count = [], 0
        for (_, name), metric in zip(columns, shown, strict=True):
            one = measures[name]
            index = np.flatnonzero(one.at == place)
            if index.size:
                count = max(count, int(one.n[index[0]]))
                value = metric.scale * float(one.value[index[0]])
                cells.append(f"{value:.0e}" if name in _TINY and value else _number(value))
            else:
                cells.append("")
        rows.append([str(place), f"{count:,}", *cells])
    left_out = {place for *_, name in columns for place in measures[name].left_out}
    left_out = sorted(left_out - set(places.tolist()))
    lines = ["", *align(rows, left=())]
    if left_out:
        lines.append(f"Left out because of too few sequences: {axis} {_ranges(left_out)}.")
    return "\n".join(lines)


def _remark(runs: Sequence[RunExposure], settings: Settings) -> str:
    confidence = f"{100 * settings.confidence:g} %"
    over = f"[ ]: {confidence} bootstrap interval over {runs[0].num_sequences:,} sequences"
    if len({run.label for run in runs}) < len(runs):
        over = f"±: half the 95 % t-interval over seeds; {over}"
    return f"{over} of the {settings.split} split."


def _number(value: float) -> str:
    if math.isnan(value):
        return NO_INTERVAL
    if math.isinf(value):
        return "never" if value > 0 else "-inf"
    size = abs(value)
    if size < 5e-4:
        return "0.000"  # and never -0.000
    return f"{value:.{1 if size >= 100 else 2 if size >= 10 else 3}f}"


def _ranges(numbers: Sequence[int]) -> str:
    """Such as "12-15, 18".

    Example:
      >>> _ranges([12, 13, 14, 18])
      '12-14, 18'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
