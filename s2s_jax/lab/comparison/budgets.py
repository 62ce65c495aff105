"""The training budget of each schedule of a sweep: updates, target tokens, seconds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s2s_jax.lab.runs.provenance import distinct_records

if TYPE_CHECKING:
    from s2s_jax.lab.runs.collect import CollectedRuns, FinishedRun

_RATE = ("train/tokens_per_second", "train/seconds")

_TOKENS_ALIKE = 0.03
"""Relative; the last, partial epoch ends at different batches for different seeds."""

_SECONDS_ALIKE = 0.25
"""Relative; timings on a shared machine are no more precise than this."""


@dataclass(frozen=True)
class Budget:
    """What the runs of one row used, as means over seeds.

    All of it includes the training of the run that a run started from, and that of its teacher.

    Attributes:
      schedule: the row's label.
      updates: optimiser steps.
      tokens: target tokens trained on; NaN if not known.
      seconds: wall-clock time of a run, including evaluations; NaN if not known.
      seconds_low: the same for the fastest run.
      seconds_high: the same for the slowest run.
      updates_before: how many of the updates were made in these other runs.
      others: what the other runs are, in words.
    """

    schedule: str
    updates: float
    tokens: float
    seconds: float
    seconds_low: float
    seconds_high: float
    updates_before: float = 0.0
    others: tuple[str, ...] = ()

    @property
    def updates_text(self) -> str:
        """The updates, and how many of them were made before."""
        text = f"{self.updates:,.0f}"
        if self.updates_before:
            text += f" ({self.updates_before:,.0f} of them in {' and '.join(self.others)})"
        return text


_START, _TEACHER = "the run that it started from", "its teacher"


def budgets(runs: CollectedRuns) -> list[Budget]:
    """The budget of each row, in the order of the rows."""
    found = []
    for label, members in runs.by_schedule.items():
        seconds = [run.wall_seconds + _before(run, "wall_seconds") for run in members]
        seconds = [one for one in seconds if math.isfinite(one)]
        tokens = [run_tokens(run) + _before(run, "target_tokens") for run in members]
        before = [_before(run, "updates") for run in members]
        found.append(
            Budget(
                label,
                _mean([run.num_steps for run in members]) + _mean(before),
                _mean([one for one in tokens if math.isfinite(one)]),
                _mean(seconds),
                min(seconds, default=math.nan),
                max(seconds, default=math.nan),
                _mean(before),
                _others(members),
            )
        )
    return found


def _before(run: FinishedRun, quantity: str) -> float:
    """What was used in the run that a run started from and by its teacher; NaN if not known."""
    used = [one[quantity] for one in distinct_records(run.started_from, run.teacher)]
    return math.nan if None in used else math.fsum(used)


def _others(runs: Sequence[FinishedRun]) -> tuple[str, ...]:
    """What the other runs are that these runs needed, in words."""
    named = {
        _START: any(one.started_from for one in runs),
        _TEACHER: any(one.teacher for one in runs),
    }
    return tuple(name for name, is_there in named.items() if is_there)


def run_tokens(run: FinishedRun) -> float:
    """The number of target tokens that a run itself was trained on, from its records.

    This is the last "train/target_tokens". Without any, it is estimated from the rates:

        tokens = num_steps * median_k rate_k * seconds_k / steps_k

    Each k is an interval between two training records without an evaluation in between; the rate is
    that of the second record. The median is used because an interval in which a run was resumed
    took longer than its rate says.

    Returns:
      The number; NaN if the records have neither.
    """
    counted = [one for record in run.records if (one := record.get("train/target_tokens"))]
    if counted:
        return float(counted[-1])
    a_step: list[float] = []
    last: tuple[float, float] | None = None
    for record in run.records:
        values = [record.get(name) for name in ("step", *_RATE)]
        numbers = [float(one) for one in values if isinstance(one, int | float)]
        if len(numbers) < len(values):
            if any(name.startswith(("eval/", "test/")) for name in record):
                last = None
            continue
        step, rate, seconds = numbers
        if last is not None and step > last[0]:
            a_step.append(rate * (seconds - last[1]) / (step - last[0]))
        last = (step, seconds)
    return run.num_steps * statistics.median(a_step) if a_step else math.nan


def unequal(found: Sequence[Budget]) -> list[str]:
    """One line for each quantity that differs between rows; empty if the budgets are equal."""
    lines = []
    updates = [one.updates for one in found]
    if len(set(updates)) > 1:
        listed = ", ".join(f"{one.schedule} {one.updates_text}" for one in found)
        lines.append(f"Updates differ: {listed}.")
    tokens = [one.tokens for one in found]
    if _differ(tokens, _TOKENS_ALIKE):
        lines.append(f"Target tokens differ: about {_listed(found, tokens, '{:,.3g}')}.")
    seconds = [one.seconds for one in found]
    if _differ(seconds, _SECONDS_ALIKE):
        lines.append(
            f"Wall-clock time differs: {_listed(found, seconds, '{:,.0f} s')}."
            " It includes compilation, which the first runs do for the others, and time lost to"
            " other work on the machine."
        )
    return lines


def to_text(found: Sequence[Budget]) -> str:
    """One line: the common budget or its ranges, then what differs."""
    parts = []
    for values, form, unit in (
        ([one.updates for one in found], "{:,.0f}", "updates"),
        ([one.tokens for one in found], "{:,.3g}", "target tokens"),
    ):
        known = [value for value in values if math.isfinite(value) and value]
        if known:
            parts.append(f"{_range(known, form)} {unit}")
            if unit == "updates":
                parts[-1] += _of_them_before(found)
    known = [one for one in found if math.isfinite(one.seconds)]
    if known:
        low, high = (min(one.seconds_low for one in known), max(one.seconds_high for one in known))
        parts.append(f"{_range([low, high], '{:,.0f}')} s of wall-clock time")
    if not parts:
        return ""
    differing = unequal(found)
    verdict = "" if differing else " Equal for all schedules, as far as recorded."
    others = dict.fromkeys(name for one in found if one.updates_before for name in one.others)
    including = f", including {' and '.join(others)}" if others else ""
    return " ".join([f"Budget per run{including}: {', '.join(parts)}.{verdict}", *differing])


def _of_them_before(found: Sequence[Budget]) -> str:
    """How many of the updates were made in the runs that others needed, in brackets."""
    before = [one.updates_before for one in found]
    if not any(before):
        return ""
    if len(set(before)) > 1:
        return f" (of them there: {_listed(found, before, '{:,.0f}')})"
    return f" ({before[0]:,.0f} of them there)"


def _range(values: Sequence[float], form: str) -> str:
    low, high = (form.format(end) for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _differ(values: Sequence[float], tolerance: float) -> bool:
    known = [value for value in values if math.isfinite(value)]
    return bool(known) and max(known) > (1 + tolerance) * min(known)


def _listed(found: Sequence[Budget], values: Sequence[float], form: str) -> str:
    return ", ".join(
        f"{one.schedule} {form.format(value)}" for one, value in zip(found, values, strict=True)
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
