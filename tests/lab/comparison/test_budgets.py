"""The target tokens of a run: counted, or estimated if its records do not have them."""

import math
from pathlib import Path

import pytest

from s2s_jax.lab.comparison.budgets import budgets, run_tokens, to_text, unequal
from s2s_jax.lab.runs.collect import CollectedRuns, FinishedRun


def run(*records, label="linear", num_steps=20, started_from=None, teacher=None):
    return FinishedRun(
        Path(),
        label,
        0,
        {},
        {},
        list(records),
        num_steps=num_steps,
        wall_seconds=2.0,
        started_from=started_from,
        teacher=teacher,
    )


def test_tokens_are_taken_from_the_count():
    rates = [
        {"step": step, "train/tokens_per_second": 100.0, "train/seconds": step / 5}
        for step in (5, 10, 20)
    ]
    assert run_tokens(run(*rates)) == pytest.approx(400)
    counted = [one | {"train/target_tokens": one["step"] * 21.0} for one in rates]
    assert run_tokens(run(*counted, {"step": 20, "eval/gap": 0.1})) == 420
    # Resumed by a version that counts tokens: the count covers all steps.
    assert run_tokens(run(*rates[:2], counted[2])) == 420
    assert math.isnan(run_tokens(run({"step": 20, "train/target_tokens": None})))


def started_from(updates, tokens, seconds):
    """The record of the run that a run started from."""
    used = {"updates": updates, "target_tokens": tokens, "wall_seconds": seconds}
    return {"workdir": "runs/a", "step": 5, "parameters": "ab"} | used


def budgets_of(*runs):
    return budgets(CollectedRuns(Path(), list(runs), [], []))


def test_the_training_of_the_run_that_a_run_started_from_counts():
    counted = {"step": 20, "train/target_tokens": 400.0}
    [found] = budgets_of(run(counted, started_from=started_from(1000, 600, 8.0)))
    assert (found.updates, found.updates_before, found.tokens) == (1020, 1000, 1000)
    assert (found.seconds, found.seconds_low, found.seconds_high) == (10, 10, 10)
    assert found.updates_text == "1,020 (1,000 of them in the run that it started from)"
    assert to_text([found]) == (
        "Budget per run, including the run that it started from: 1,020 updates (1,000 of them"
        " there), 1e+03 target tokens, 10 s of wall-clock time. Equal for all schedules, as far as"
        " recorded."
    )
    [unknown] = budgets_of(run(counted, started_from=started_from(1000, None, 8.0)))
    assert math.isnan(unknown.tokens)


def test_the_training_of_a_teacher_counts_once():
    counted = {"step": 20, "train/target_tokens": 400.0}
    first = started_from(1000, 600, 8.0)
    [found] = budgets_of(run(counted, teacher=first))
    assert (found.updates, found.tokens, found.seconds) == (1020, 1000, 10)
    assert found.updates_text == "1,020 (1,000 of them in its teacher)"
    assert to_text([found]).startswith("Budget per run, including its teacher: 1,020 updates")
    other = first | {"parameters": "cd", "updates": 50}
    for teacher, updates in ((dict(first), 1020), (other, 1070)):
        [found] = budgets_of(run(counted, started_from=first, teacher=teacher))
        assert found.updates == updates
        assert "of them in the run that it started from and its teacher)" in found.updates_text


def test_a_start_from_scratch_with_as_many_updates_is_equal():
    warm = run({"step": 20, "train/target_tokens": 400.0}, started_from=started_from(10, 200, 1.0))
    cold = run({"step": 30, "train/target_tokens": 600.0}, label="teacher_forcing", num_steps=30)
    found = budgets_of(warm, cold)
    assert not [line for line in unequal(found) if not line.startswith("Wall-clock")]
    assert "30 updates (of them there: linear 10, teacher_forcing 0), 600 tar" in to_text(found)
    short = run({"step": 20, "train/target_tokens": 400.0}, label="teacher_forcing")
    assert unequal(budgets_of(warm, short))[0] == (
        "Updates differ: linear 30 (10 of them in the run that it started from),"
        " teacher_forcing 20."
    )
