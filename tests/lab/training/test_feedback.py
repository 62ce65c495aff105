"""Runs whose schedule follows training: its state is part of the run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.keys import base_config
from s2s_jax.lab.config.overrides import apply_overrides
from s2s_jax.lab.config.user_code import put_on_path
from s2s_jax.lab.experiment import load_run, train_and_evaluate
from s2s_jax.lab.training.build import make_experiment
from s2s_jax.lab.training.workbench import RunSpec, Workbench
from tests.lab.run_content import newest, records, state

OWN = """
import jax.numpy as jnp
from s2s_jax.schedules import FeedbackSchedule

def slow(*, start=1.0):
    return FeedbackSchedule(
        lambda: jnp.zeros((), jnp.int32),
        lambda state, sums: state + (sums["gradient_norm"].total > 0),
        lambda step, state: start - 0.01 * state,
    )

def grows():
    return FeedbackSchedule(lambda: jnp.zeros(2), lambda state, sums: jnp.ones(3),
                            lambda step, state: state[0])

def two_numbers():
    return FeedbackSchedule(lambda: jnp.zeros(2), lambda state, sums: state,
                            lambda step, state: state)

def asks():
    return FeedbackSchedule(lambda: jnp.zeros(()), lambda state, sums: sums["reward"].total,
                            lambda step, state: state)
"""


@pytest.fixture(scope="module")
def make(make_config) -> Callable[..., Any]:
    """Makes the config of a short run; its schedule falls within a few updates."""

    def of(schedule: str = "accuracy", **changes: Any) -> Any:
        config = make_config(schedule)
        short = {"train.log_every": 1, "eval.every": 6, "eval.num_examples": 0}
        return apply_overrides(config, short | changes)

    return of


def train(folder: Path, config: Any, stop_after: int = 10**6) -> dict[str, Any]:
    asked = iter(range(1, 1000))
    return train_and_evaluate(
        config, folder, report=lambda line: None, should_stop=lambda: next(asked) >= stop_after
    )


def probs(folder: Path) -> list[float]:
    return [one["train/teacher_prob"] for one in records(folder) if "train/teacher_prob" in one]


@pytest.fixture(scope="module")
def alone(make, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert train(folder, make())["status"] == "finished"
    return folder


def test_teacher_prob_is_1_minus_the_accuracy_of_earlier_updates(alone):
    found = [one for one in records(alone) if "train/loss" in one]
    assert probs(alone)[0] == 1.0
    assert len(set(probs(alone))) > 6
    total = weight = 0.0
    tokens = np.diff([0.0, *(one["train/target_tokens"] for one in found)])
    for one, count in zip(found, tokens, strict=True):
        moving = total / weight if weight else 0.0
        assert one["train/teacher_prob"] == pytest.approx(1 - moving, abs=1e-5)
        total = 0.99 * total + one["train/token_accuracy"] * count
        weight = 0.99 * weight + count


def test_a_resumed_run_is_bit_identical(alone, make, tmp_path):
    folder = tmp_path / "run"
    assert train(folder, make(), stop_after=4)["status"] == "stopped"
    assert newest(folder)[1].keys() >= {"state.schedule_state.total", "state.schedule_state.weight"}
    assert train(folder, make())["status"] == "finished"
    assert state(folder) == state(alone)
    assert records(folder) == records(alone)


def test_lanes_follow_their_own_accuracy(alone, make, tmp_path):
    configs = [make(), make(**{"seed": 1, "train.learning_rate": 0.01})]
    assert len({make_experiment(one).group_key for one in configs}) == 1
    Workbench().train(
        [RunSpec(one, tmp_path / str(one.seed), {}, lambda line: None) for one in configs]
    )
    np.testing.assert_allclose(probs(tmp_path / "0"), probs(alone), atol=1e-5)
    assert abs(probs(tmp_path / "1")[-1] - probs(tmp_path / "0")[-1]) > 1e-3


def test_the_values_of_a_schedule_with_a_state_are_part_of_the_program(make):
    keys = {
        make_experiment(make(**{"schedule.scale": scale, "schedule.floor": floor})).group_key
        for scale in (1.0, 0.5)
        for floor in (0.0, 0.5)
    }
    assert len(keys) == 4
    assert make_experiment(make("linear")).group_key not in keys


def test_a_run_with_an_optimiser_that_averages_can_be_opened(make, tmp_path):
    train(tmp_path, make(**{"train.optimizer.name": "schedule_free_adamw", "train.num_steps": 2}))
    assert load_run(tmp_path).step == 2


def test_theory_predicts_nothing_for_a_moving_teacher_prob(tmp_path):
    values = {"data.num_train": 64, "data.num_dev": 8, "data.num_test": 8}
    for schedule, is_predicted in (("accuracy", False), ("free_running", True)):
        experiment = make_experiment(apply_overrides(base_config("markov", schedule), values))
        task = experiment.load_task()
        divergence = experiment.make_divergence(experiment.make_model(task.vocabularies), task)
        assert divergence is not None
        assert (divergence._predicted is not None) == is_predicted


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "accuracy",
            {"objective.name": "mixer"},
            "schedule.name=accuracy: accuracy follows the metric sum 'token_accuracy', which this"
            " objective does not have; it has 'cost', 'distinct', 'loss'",
        ),
        ("feedback_parts:grows", {}, "the state after update: float32[3]; it must be float32[2]"),
        ("feedback_parts:two_numbers", {}, "teacher_prob returns float32[2]; it must return one"),
        ("feedback_parts:asks", {}, "update fails: feedback_parts.py, line 21: KeyError: reward"),
        ("feedback_parts:slow", {"schedule.start": 1.5}, "gives teacher_prob 1.5 at step 0"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    make, tmp_path, name, changes, message
):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "feedback_parts.py").write_text(OWN)
    put_on_path(tmp_path / "parts")
    config = make(**{"schedule.name": name}, **changes)
    with pytest.raises(LabError) as error:
        train(tmp_path / "run", config)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_an_own_schedule_with_a_state_trains(make, tmp_path):
    (tmp_path / "feedback_parts.py").write_text(OWN)
    put_on_path(tmp_path)
    train(tmp_path / "run", make(**{"schedule.name": "feedback_parts:slow"}))
    assert probs(tmp_path / "run") == pytest.approx([1 - 0.01 * step for step in range(12)])


@pytest.mark.parametrize("objective", ["minimum_risk", "reinforce", "self_critical"])
def test_a_schedule_beside_an_objective_that_ignores_it_is_refused(
    s2s, experiment_file, tmp_path, objective
):
    where = [f"--config={experiment_file}", f"--workdir={tmp_path}/new"]
    flags = [f"--config.objective.name={objective}", "--config.objective.gold_weight=0.5"]
    code, out, err = s2s("train", *where, *flags, "--config.schedule.name=linear")
    assert (code, out) == (2, "")
    assert err == (
        f"s2s: schedule.name=linear has no effect on {objective}, which ignores teacher_prob;"
        " set it to teacher_forcing\n"
    )
    assert not list(tmp_path.iterdir())


def test_objectives_that_use_teacher_prob_take_any_schedule(make):
    for objective in ("mixer", "r_drop", "cross_entropy"):
        make_experiment(make("linear", **{"objective.name": objective}))
    make_experiment(make("teacher_forcing", **{"objective.name": "reinforce"}))


def test_r_drop_without_dropout_is_refused(make):
    with pytest.raises(LabError, match=r"r_drop has no effect without dropout; set model\.dropout"):
        make_experiment(make(**{"objective.name": "r_drop", "model.dropout": 0.0}))
    with pytest.raises(LabError, match=r"without dropout; model\.name=tabular has none"):
        make_experiment(make(**{"objective.name": "r_drop", "model.name": "tabular"}))
