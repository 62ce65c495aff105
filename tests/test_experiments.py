"""Every config of experiments/ builds, with every schedule and in every sweep."""

import re
from pathlib import Path
from typing import cast

import pytest

from s2s_jax.data.catalog import LOADERS
from s2s_jax.lab.config.experiment_file import load_experiment, sweep_of
from s2s_jax.lab.config.grids import COMPARED_SCHEDULES
from s2s_jax.lab.config.keys import flat_keys
from s2s_jax.lab.config.overrides import apply_overrides, parse_config
from s2s_jax.lab.sweeps.plan import plan_sweep
from s2s_jax.lab.training.build import make_experiment
from s2s_jax.schedules import Schedule

FOLDER = Path(__file__).parents[1] / "experiments"
FILES = sorted(FOLDER.glob("*.py"))
REMEDIES = FOLDER / "remedies.py"  # its argument names a task, and not a schedule
NEEDED = {
    "constant": {"schedule.teacher_prob": 0.5},
}
SCHEDULES = (*COMPARED_SCHEDULES, "constant", "free_running")


def named(path: Path) -> str:
    return path.stem


def test_the_experiments_of_the_table_are_there():
    assert {"addition", "demo", "g2p", "parallel_text", "path_star", "remedies", "wmt14"} <= set(
        map(named, FILES)
    )


@pytest.mark.parametrize("path", [one for one in FILES if one != REMEDIES], ids=named)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_config_builds_with_every_schedule(path, schedule):
    config, overrides, _ = parse_config([f"--config={path}:{schedule}"])
    assert not overrides
    config = apply_overrides(config, NEEDED.get(schedule, {}))
    make_schedule = cast("Schedule", make_experiment(config).schedule)
    assert config.schedule.name == schedule
    assert config.data.name in LOADERS
    assert 0 <= float(make_schedule(config.train.num_steps - 1)) <= 1


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_config_without_an_argument_is_teacher_forcing(path):
    assert parse_config([f"--config={path}"])[0].schedule.name == "teacher_forcing"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_run_of_a_sweep_builds(path, tmp_path):
    runs = list(sweep_of(str(path)))
    schedules = {one["schedule.name"] for one in runs}
    expected = {"markov": {"constant"}, "remedies": set(SCHEDULES)}
    assert schedules == expected.get(path.stem, set(COMPARED_SCHEDULES))
    plan = plan_sweep(str(path), [], tmp_path / "sweep")  # checks each config
    assert len(plan) == len(runs) >= 4
    assert all(one.status == "waiting" for one in plan)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("task", load_experiment(str(REMEDIES)).TASKS)
def test_every_remedy_is_a_row_of_every_task(task, tmp_path):
    methods = load_experiment(str(REMEDIES)).METHODS
    assert len(methods) >= 11
    plan = plan_sweep(f"{REMEDIES}:{task}", [], tmp_path, num_seeds=1)
    assert [one.name for one in plan] == [f"{name}/seed_0" for name in methods]


@pytest.mark.parametrize("path", FILES, ids=named)
def test_the_docstring_gives_a_command_that_names_this_file_and_known_keys(path):
    module = load_experiment(str(path))
    assert module.__doc__ is not None
    assert f"--config=experiments/{path.name}" in module.__doc__
    assert "--workdir=" in module.__doc__
    named_by_command = re.search(rf"{path.name}:(\w+)", module.__doc__)
    known = flat_keys(module.get_config(*(named_by_command.groups() if named_by_command else ())))
    for key in re.findall(r"--config\.([\w.]+)", module.__doc__):
        assert key in known


def test_training_drops_none_of_the_generated_pairs():
    """The length of the longest string must not limit the tokens of a training pair."""
    for name in ("addition", "path_star", "reverse"):
        config = load_experiment(str(FOLDER / f"{name}.py")).get_config()
        assert config.data.max_tokens == 0
