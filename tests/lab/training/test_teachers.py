"""Runs that learn from another run: its folder, its record, and what happens if it changes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.overrides import apply_overrides
from s2s_jax.lab.experiment import load_run, train_and_evaluate
from s2s_jax.lab.training.build import make_experiment
from tests.lab.run_content import records


@pytest.fixture(scope="module")
def student(make_config) -> Callable[..., Any]:
    """Makes the config of a short run that learns from another one."""

    def make(teacher: Path | str, seed: int = 0, **changes: Any) -> Any:
        values = {
            "seed": seed,
            "objective.target": "teacher",
            "objective.teacher": str(teacher),
            "train.num_steps": 2,
            "train.log_every": 1,
            "eval.every": 1,
            "eval.num_examples": 0,
        }
        return apply_overrides(make_config("free_running"), values | changes)

    return make


def train(folder: Path, config: Any, stop_after: int = 10**6) -> dict[str, Any]:
    asked = iter(range(1, 1000))
    return train_and_evaluate(
        config, folder, report=lambda line: None, should_stop=lambda: next(asked) >= stop_after
    )


def logged_tokens(folder: Path) -> float:
    key = "train/target_tokens"
    return [one[key] for one in records(folder) if key in one][-1]


@pytest.mark.parametrize("name", ["~/seed_{seed}", "~/seed_{seed}/checkpoints"])
def test_the_teacher_is_found_and_recorded(finished, student, monkeypatch, tmp_path, name):
    (tmp_path / "seed_3").symlink_to(finished)
    monkeypatch.setenv("HOME", str(tmp_path))
    result = train(tmp_path / "run", student(name, seed=3))
    assert result["config"]["objective"]["teacher"] == name
    record = dict(result["teacher"])
    assert len(record.pop("parameters")) == 16
    there = json.loads((finished / "result.json").read_text())
    assert record == {
        "workdir": str(tmp_path / "seed_3"),
        "step": there["best_step"],
        "updates": 12,
        "target_tokens": logged_tokens(finished),
        "wall_seconds": there["wall_seconds"],
    }
    assert result["provenance"]["teacher"] == result["teacher"]
    assert "started_from" not in result


def test_seeds_with_other_teachers_are_no_lanes_of_one_program(student):
    keys = [make_experiment(student("runs/seed_{seed}", seed)).group_key for seed in range(2)]
    assert keys[0] != keys[1]
    keys = [make_experiment(student("runs/first", seed)).group_key for seed in range(2)]
    assert keys[0] == keys[1]


def test_a_run_is_not_resumed_with_another_teacher(copied, student, tmp_path):
    first, other, folder = tmp_path / "first", tmp_path / "other", tmp_path / "student"
    shutil.copytree(copied, first)
    config = student(first)
    train(other, student(copied))
    assert train(folder, config, stop_after=1)["status"] == "stopped"
    shutil.rmtree(first)
    with pytest.raises(LabError, match=rf"objective\.teacher: {first} holds no trained run"):
        train(folder, config)
    shutil.copytree(other, first)
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(LabError, match=r"was begun with the teacher of step 12 of .* now others"):
        train(folder, config)
    assert (folder / "metrics.jsonl").read_bytes() == before
    shutil.rmtree(first)
    shutil.copytree(copied, first)
    result = train(folder, config)
    assert result["status"] == "finished"
    shutil.rmtree(first)
    assert load_run(folder).step == result["best_step"]  # needs no teacher any more
    assert train(folder, config)["status"] == "finished"


def test_a_folder_without_a_trained_run_is_no_teacher(s2s, experiment_file, tmp_path):
    where = [f"--config={experiment_file}", f"--workdir={tmp_path}/new"]
    flags = ["--config.objective.target=teacher", f"--config.objective.teacher={tmp_path}/none"]
    for command in (["train"], ["sweep", "--dry-run"]):
        code, out, err = s2s(*command, *where, *flags)
        assert (code, out) == (2, "")
        assert err == f"s2s: objective.teacher: {tmp_path}/none holds no trained run\n"
    assert not list(tmp_path.iterdir())
