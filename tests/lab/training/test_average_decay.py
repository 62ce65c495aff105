"""Runs whose averaged parameters are evaluated: alone, resumed, and as lanes of one program."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2s_jax.lab.experiment import load_run, train_and_evaluate
from s2s_jax.lab.runs.named_arrays import flatten
from s2s_jax.lab.training.workbench import RunSpec, Workbench
from tests.lab.run_content import newest, records, state

pytestmark = pytest.mark.xdist_group("average_decay")

DECAY = 0.8
AVERAGE = "state.opt_state.average"


@pytest.fixture(scope="module")
def averaged(make_config: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared run, with an average."""
    folder = tmp_path_factory.mktemp("averaged") / "run"
    config = make_config(**{"train.average_decay": DECAY})
    result = train_and_evaluate(config, folder, report=lambda line: None)
    assert result["status"] == "finished"
    return folder


def test_it_is_evaluated_and_does_not_change_training(averaged, finished):
    _, leaves = newest(averaged)
    _, plain = newest(finished)
    trained = [name for name in plain if name.startswith("state.params")]
    for name in trained:
        np.testing.assert_array_equal(leaves[name], plain[name])
    evaluated = flatten(load_run(averaged, "latest").params, AVERAGE)
    assert len(evaluated) == len(trained)
    for name, leaf in evaluated.items():
        np.testing.assert_array_equal(leaf, leaves[name])
    assert any(
        not np.array_equal(leaf, leaves[name.replace(AVERAGE, "state.params")])
        for name, leaf in evaluated.items()
    )
    for name in ("train/loss", "eval/gold/nll"):
        here, there = (
            [one[name] for one in records(folder) if name in one] for folder in (averaged, finished)
        )
        assert (here == there) == (name == "train/loss")


def test_a_stopped_run_ends_like_an_uninterrupted_one(averaged, make_config, tmp_path):
    config, asked = make_config(**{"train.average_decay": DECAY}), iter(range(1, 99))
    result = train_and_evaluate(
        config, tmp_path / "run", report=lambda line: None, should_stop=lambda: next(asked) >= 8
    )
    assert (result["status"], result["steps"]) == ("stopped", 8)
    train_and_evaluate(config, tmp_path / "run", report=lambda line: None)
    assert state(tmp_path / "run") == state(averaged)
    assert records(tmp_path / "run") == records(averaged)


def test_a_lane_equals_the_run_alone(averaged, make_config, tmp_path):
    schedules = ("inverse_sigmoid", "teacher_forcing")
    configs = [make_config(one, **{"train.average_decay": DECAY}) for one in schedules]
    results = Workbench().train(
        [
            RunSpec(config, tmp_path / schedule, {}, lambda line: None)
            for config, schedule in zip(configs, schedules, strict=True)
        ]
    )
    assert all(isinstance(one, dict) and one["status"] == "finished" for one in results)
    (_, here), (_, there) = newest(tmp_path / "inverse_sigmoid"), newest(averaged)
    assert here.keys() == there.keys()
    names = [name for name in here if name.startswith(AVERAGE)]
    assert names
    for name in names:
        np.testing.assert_allclose(here[name], there[name], atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["train.average_decay=0.9", "train.optimizer.name=schedule_free_adamw"],
            "train.average_decay is 0.9, and schedule_free_adamw averages its parameters itself;"
            " set it to 0",
        ),
        (["train.average_decay=1.0"], "train.average_decay is 1.0; it must be in [0, 0.999999]"),
    ],
)
def test_what_cannot_be_averaged_is_rejected(s2s, experiment_file, tmp_path, flags, message):
    code, out, err = s2s(
        "train",
        f"--config={experiment_file}",
        f"--workdir={tmp_path}/new",
        *(f"--config.{flag}" for flag in flags),
    )
    assert (code, out, err) == (2, "", f"s2s: {message}\n")
    assert not list(tmp_path.iterdir())
