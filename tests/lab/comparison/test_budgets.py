"""The target tokens of a run: counted, or estimated if its records do not have them."""

import math
from pathlib import Path

import pytest

from s2s_jax.lab.comparison.budgets import run_tokens
from s2s_jax.lab.runs.collect import FinishedRun


def run(*records):
    return FinishedRun(Path(), "linear", 0, {}, {}, list(records), num_steps=20)


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
