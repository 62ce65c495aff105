"""Runs that train as lanes of one program leave the same files as runs that train alone."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.processes import EXIT_BAD_INPUT, EXIT_OUT_OF_MEMORY
from s2s_jax.lab.experiment import load_run, train_and_evaluate
from s2s_jax.lab.runs.checkpoints import Checkpoints
from s2s_jax.lab.sweeps import worker
from s2s_jax.lab.sweeps.assignment import Assignment
from s2s_jax.lab.sweeps.groups import groups_table, make_groups
from s2s_jax.lab.sweeps.plan import PlannedRun
from s2s_jax.lab.training import workbench
from s2s_jax.lab.training.build import make_experiment
from s2s_jax.lab.training.device_lanes import DeviceLanes
from s2s_jax.lab.training.lane import NonFiniteLossError, schedule_values
from s2s_jax.lab.training.workbench import RunSpec, Workbench
from tests.lab.run_content import newest, records

pytestmark = pytest.mark.xdist_group("population")

NAMES = [
    "teacher_forcing/seed_0",
    "linear/seed_0",
    "exponential/seed_1",
    "inverse_sigmoid/seed_1",
]
BAD, AHEAD = "linear/seed_0", "exponential/seed_1"

ALONE = [NAMES[0], AHEAD]
"""The runs that are also trained alone: two seeds, with and without own tokens."""


def losses(folder: Path) -> np.ndarray:
    return np.array([one["train/loss"] for one in records(folder) if "train/loss" in one])


def stop_after(num_steps: int) -> Callable[[], bool]:
    asked = iter(range(1, 1000))
    return lambda: next(asked) >= num_steps


@pytest.fixture(scope="module")
def configs(make_config):
    """Four runs of 50 steps in two buckets; the optimiser's values also differ by seed."""

    def make(name: str) -> Any:
        schedule, seed = name.split("/seed_")
        return make_config(
            schedule,
            **{
                "seed": int(seed),
                "data.num_buckets": 2,
                "model.attention": "none",
                "train.num_steps": 50,
                "train.log_every": 2,
                "train.learning_rate": (2e-3, 5e-3)[int(seed)],
                "train.optimizer.weight_decay": (0.0, 0.1)[int(seed)],
                "train.clip_norm": (1.0, 0.7)[int(seed)],
                "eval.every": 50,
                "eval.num_examples": 0,
            },
        )

    return {name: make(name) for name in NAMES}


def group(folder: Path, configs: dict[str, Any], lines: list[str] | None = None) -> list[RunSpec]:
    report = (lambda line: None) if lines is None else lines.append
    return [
        RunSpec(config, folder / name, {"seed": config.seed}, report)
        for name, config in configs.items()
    ]


@pytest.fixture(scope="module")
def population(configs, tmp_path_factory):
    """The four runs, trained as one program."""
    folder = tmp_path_factory.mktemp("population")
    results = Workbench().train(group(folder, configs))
    assert [one["status"] for one in results] == ["finished"] * 4  # type: ignore  # a None fails here, too
    return folder


@pytest.fixture(scope="module")
def solo(configs, tmp_path_factory):
    """Two of the runs, trained one after the other."""
    folder = tmp_path_factory.mktemp("solo")
    for name in ALONE:
        options = {"seed": configs[name].seed}
        train_and_evaluate(configs[name], folder / name, options, report=lambda line: None)
    return folder


@pytest.mark.parametrize("name", ALONE)
def test_the_losses_of_a_lane_equal_those_of_the_run_alone(population, solo, name):
    here, there = records(population / name), records(solo / name)
    assert [one["step"] for one in here] == [one["step"] for one in there]
    assert len(losses(population / name)) == 25  # each covers two steps
    np.testing.assert_allclose(losses(population / name), losses(solo / name), rtol=0, atol=5e-6)
    for one, other in zip(here, there, strict=True):
        assert one.keys() == other.keys()
        for key in ("train/target_tokens", "train/teacher_prob", "train/gold_share"):
            assert one.get(key) == other.get(key)


def test_lanes_differ(population):
    found = np.array([losses(population / name) for name in NAMES])
    # Runs with the same seed see the same batches; what they are fed makes them differ.
    assert len(np.unique(found[:, -1])) == 4


def test_a_lane_leaves_the_same_files_as_the_run_alone(population, solo):
    name = ALONE[1]

    def files(folder: Path) -> list[str]:
        return sorted(path.name.partition(".out.")[0] for path in (folder / name).iterdir())

    assert files(population) == files(solo)
    here, there = (
        json.loads((one / name / "result.json").read_text()) for one in (population, solo)
    )
    assert list(here) == list(there)
    assert here["metrics"].keys() == there["metrics"].keys()
    for key in ("status", "config", "overrides", "steps", "versions", "scores", "best_step"):
        assert here[key] == there[key]
    for file in ("config.json", "source_vocabulary.json", "target_vocabulary.json"):
        assert (population / name / file).read_bytes() == (solo / name / file).read_bytes()
    (step, leaves), (other_step, others) = newest(population / name), newest(solo / name)
    assert step == other_step == 50
    assert leaves.keys() == others.keys()
    assert any("opt_state" in leaf for leaf in leaves)
    for leaf, value in leaves.items():
        np.testing.assert_allclose(value, others[leaf], atol=1e-4, err_msg=leaf)
    assert load_run(population / name).step == here["best_step"]
    assert (population / name / "checkpoints" / "50").is_dir()


def test_finished_runs_are_left_alone(population, configs, snapshot):
    before, lines = snapshot(population), []
    results = Workbench().train(group(population, configs, lines))
    assert [one["steps"] for one in results] == [50] * 4  # type: ignore  # a None fails here, too
    assert lines[0] == f"{population / NAMES[0]} is finished already; nothing to do"
    assert snapshot(population) == before


@pytest.fixture(scope="module")
def stopped(configs, tmp_path_factory):
    """The four runs, stopped after step 21; one of them had an absurdly high learning rate."""
    folder = tmp_path_factory.mktemp("stopped")
    changed = dict(configs)
    bad = changed[BAD] = configs[BAD].copy_and_resolve_references()
    bad.train.learning_rate = bad.train.optimizer.weight_decay = 1e6
    results = Workbench().train(group(folder, changed), should_stop=stop_after(21))
    return folder, changed, dict(zip(NAMES, results, strict=True))


def test_only_the_lane_with_a_non_finite_loss_fails(population, stopped):
    folder, _, results = stopped
    error = results.pop(BAD)
    assert isinstance(error, NonFiniteLossError)
    assert f"the loss of step {error.step} is not finite; there is no checkpoint;" in str(error)
    result = json.loads((folder / BAD / "result.json").read_text())
    assert (result["status"], result["error"]) == ("failed", str(error))
    assert 0 < result["steps"] == error.step < 21
    assert not any((folder / BAD / "checkpoints").iterdir())
    # It does not affect the others: their numbers are the same, bit for bit.
    for name, one in results.items():
        assert (one["status"], one["steps"]) == ("stopped", 21)
        assert records(folder / name) == [
            line for line in records(population / name) if line["step"] <= 20
        ]


def test_lanes_resumed_at_unequal_steps_end_like_uninterrupted_ones(population, stopped):
    """One of them continues alone for a while, as any run of a sweep may."""
    folder, configs, _ = stopped
    ahead = train_and_evaluate(
        configs[AHEAD],
        folder / AHEAD,
        {"seed": 1},
        report=lambda line: None,
        should_stop=stop_after(9),
    )
    assert (ahead["status"], ahead["steps"]) == ("stopped", 30)
    lines: list[str] = []
    results = Workbench().train(group(folder, configs, lines))
    assert f"resuming {folder / NAMES[0]} at step 21" in lines
    assert f"resuming {folder / AHEAD} at step 30" in lines
    for name, result in zip(NAMES, results, strict=True):
        if name == BAD:
            assert isinstance(result, NonFiniteLossError)
            continue
        assert isinstance(result, dict)
        assert result["status"] == "finished"
        there = population / name
        assert [one["step"] for one in records(folder / name)] == [
            one["step"] for one in records(there)
        ]
        np.testing.assert_allclose(losses(folder / name), losses(there), rtol=0, atol=5e-6)


def test_only_the_run_in_use_fails(configs, tmp_path, monkeypatch):
    trained: list[Any] = []
    monkeypatch.setattr(workbench, "train_lanes", lambda lanes, *_: trained.extend(lanes))
    two = {name: configs[name] for name in NAMES[:2]}
    (tmp_path / NAMES[0]).mkdir(parents=True)
    with Checkpoints(tmp_path / NAMES[0] / "checkpoints"):
        results = Workbench().train(group(tmp_path, two))
    assert "is in use by process" in str(results[0])
    (lane,) = trained
    schedule = make_experiment(two[NAMES[1]]).schedule
    np.testing.assert_array_equal(lane.teacher_probs, schedule_values(schedule, 50))


def test_a_group_contains_all_runs_that_one_program_can_train(make_config, tmp_path):
    config = make_config("linear")
    same = make_config(
        "exponential",
        **{
            "seed": 3,
            "train.learning_rate": 0.1,
            "train.optimizer.weight_decay": 0.1,
            "train.clip_norm": 2.0,
            "schedule.floor": 0.2,
        },
    )
    assert make_experiment(config).group_key == make_experiment(same).group_key
    for key, value in {
        "train.num_steps": 13,
        "train.clip_norm": 0.0,
        "train.batch_size": 9,
        "train.warmup_steps": 3,
        "rollout.coin": "sequence",
        "model.dropout": 0.5,
        "data.num_buckets": 2,
        "eval.every": 5,
    }.items():
        other = make_experiment(make_config("linear", **{key: value}))
        assert other.group_key != make_experiment(config).group_key, key
    other = make_config("linear", **{"train.batch_size": 9})
    runs = [RunSpec(one, tmp_path / "run", {}, print) for one in (config, other)]
    with pytest.raises(ValueError, match="must not differ"):
        Workbench().train(runs)
    assert not list(tmp_path.iterdir())


def planned(count: int, *, num_schedules: int = 1, status: str = "waiting", group: str = "a"):
    return [
        PlannedRun(
            f"{schedule}/seed_{seed}",
            Assignment("", Path(f"{group}{schedule}/seed_{seed}")),
            status,
            str(schedule),
            seed,
            group=group,
        )
        for schedule in range(num_schedules)
        for seed in range(count)
    ]


def sizes(plan: list[PlannedRun], max_lanes: int) -> list[int]:
    return [len(one) for one in make_groups(plan, max_lanes)]


def test_groups_are_capped_and_split_between_seeds():
    assert sizes(planned(12), 16) == [12]
    assert sizes(planned(17), 16) == [9, 8]
    assert sizes(planned(5), 1) == [1] * 5
    assert sizes(planned(3, group="a") + planned(2, group="b"), 16) == [3, 2]
    assert sizes(planned(3, status="finished"), 16) == []
    assert sizes(planned(2, num_schedules=6), 4) == [3, 3, 3, 3]
    groups = make_groups(planned(10, num_schedules=4), 16)
    assert [len(one) for one in groups] == [16, 16, 8]
    seeds = [{run.seed for run in one} for one in groups]
    assert not seeds[0] & seeds[1]
    assert not seeds[1] & seeds[2]
    assert sorted(run.name for one in groups for run in one) == sorted(
        run.name for run in planned(10, num_schedules=4)
    )
    with pytest.raises(LabError, match="--max-lanes is 0; it must be at least 1"):
        make_groups(planned(2), 0)
    assert groups_table(make_groups(planned(3), 2)).splitlines() == [
        "program 1, 2 lanes: 0/seed_0, 0/seed_1",
        "program 2, alone: 0/seed_2",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--population", "--jobs=2"], "leave out --jobs=2"),
        (["--population", "--launcher=print"], "leave one of them out"),
        (["--population", "--max-lanes=0"], "--max-lanes is 0; it must be in [1, 4096]"),
        (["--max-lanes=4"], "add --population"),
    ],
)
def test_mutually_exclusive_flags_are_rejected(s2s, experiment_file, tmp_path, flags, message):
    code, out, err = s2s("sweep", f"--config={experiment_file}", f"--workdir={tmp_path}/a", *flags)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_dry_run_shows_the_programs(s2s, experiment_file, tmp_path):
    code, out, err = s2s(
        "sweep",
        f"--config={experiment_file}",
        f"--workdir={tmp_path}/a",
        "--population",
        "--max-lanes=2",
        "--dry-run",
    )
    assert (code, err) == (0, "")
    assert out.splitlines()[-3:] == [
        "",
        "program 1, 2 lanes: teacher_forcing/seed_0, linear/seed_0",
        "program 2, 2 lanes: teacher_forcing/seed_1, linear/seed_1",
    ]
    assert not list(tmp_path.iterdir())


def test_a_group_that_is_too_large_says_so(experiment_file, tmp_path, monkeypatch):
    def fail(self: DeviceLanes) -> float:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")

    monkeypatch.setattr(DeviceLanes, "compile", fail)
    runs = [
        Assignment(f"{experiment_file}:linear", tmp_path / f"seed_{seed}", (), (("seed", seed),))
        for seed in range(2)
    ]
    assert worker.work(Workbench(), runs, lambda: False) == EXIT_OUT_OF_MEMORY
    last = (tmp_path / "seed_1.log").read_text().splitlines()[-1]
    assert last.startswith("out of memory: RESOURCE_EXHAUSTED")
    assert not (tmp_path / "seed_1" / "result.json").exists()


def test_only_the_run_that_cannot_start_fails(experiment_file, tmp_path, monkeypatch):
    """Its config, or its folder and the files in it, may have changed since planning."""
    good, bad_value, bad_folder, damaged = (
        Assignment(f"{experiment_file}:linear", tmp_path / f"seed_{seed}", (), (("seed", seed),))
        for seed in range(4)
    )
    bad_value = replace(bad_value, varied=(("seed", -1),))
    bad_folder.workdir.write_text("")
    damaged.workdir.mkdir()
    (damaged.workdir / "config.json").write_text("[")
    trained = []

    def train(self, should_stop):
        trained.extend(one.experiment.seed for one in self._runs)
        return [{"status": "finished"}]

    monkeypatch.setattr(workbench._Group, "train", train)
    monkeypatch.setattr(Workbench, "_shared_by", lambda self, runs: SimpleNamespace(task=None))
    monkeypatch.setattr(workbench, "check_vocabulary_size", lambda task, overrides: None)
    bad_key = replace(good, workdir=tmp_path / "seed_9", varied=(("sed", 1),))
    job = [bad_key, bad_value, bad_folder, damaged, good]
    assert worker.work(Workbench(), job, lambda: False) == EXIT_BAD_INPUT
    assert trained == [0]
    last = {path.stem: path.read_text().splitlines()[-1] for path in tmp_path.glob("*.log")}
    assert last.pop("seed_0").startswith("look at the run with: ")
    assert last.pop("seed_9") == "s2s: config key sed does not exist; did you mean 'seed'?"
    assert last.pop("seed_1") == "s2s: seed is -1; it must be in [0, 4294967295]"
    assert last.pop("seed_2").endswith("seed_2 is a file; name a folder")
    assert "seed_3/config.json is not complete JSON" in last.pop("seed_3")


SWEEP = """
from s2s_jax.lab.config.experiment_file import load_experiment
get_config = load_experiment({path!r}).get_config

def sweep():
    for schedule, seed in (("teacher_forcing", 0), ("teacher_forcing", 1), ("linear", 0)):
        first = {{"schedule.first_step": 5}} if schedule == "linear" else {{}}
        yield {{"schedule.name": schedule, "seed": seed, **first}}
"""


@pytest.mark.slow
def test_three_lanes_on_two_devices(s2s, experiment_file, make_config, monkeypatch, tmp_path):
    """Uses the command line; half of the steps are all gold, and a fourth lane is padding."""
    path, folder = tmp_path / "mine.py", tmp_path / "sweep"
    path.write_text(SWEEP.format(path=str(experiment_file)))
    two_devices = "--xla_force_host_platform_device_count=2"
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ['XLA_FLAGS']} {two_devices}")
    changed = {"model.attention": "none", "train.log_every": 1}
    flags = [f"--workdir={folder}", "--population"]
    flags += [f"--config.{key}={value}" for key, value in changed.items()]
    code, out, err = s2s("sweep", f"--config={path}", *flags)
    logs = "".join(one.read_text() for one in folder.glob("*/*.log"))
    assert (code, err) == (0, ""), (out, err, logs)
    assert out.count("finished (") == 3
    name = "linear,first_step=5/seed_0"
    log = (folder / f"{name}.log").read_text()
    assert "compiling the train step of 3 lanes on 2 devices for 1 batch shapes" in log
    assert "with and without the rollout" in log
    assert f"tensorboard --logdir {folder / name}" in log
    alone = tmp_path / "alone"
    config = make_config("linear", **{"schedule.first_step": 5}, **changed)
    train_and_evaluate(config, alone, report=lambda line: None)
    assert len(losses(alone)) == 12
    np.testing.assert_allclose(losses(folder / name), losses(alone), rtol=0, atol=1e-5)
    shares = [one["train/gold_share"] for one in records(alone) if "train/gold_share" in one]
    assert shares[:6] == [1] * 6
    assert min(shares) < 1
    result = json.loads((folder / name / "result.json").read_text())
    assert result["overrides"] == changed | {
        "schedule.name": "linear",
        "seed": 0,
        "schedule.first_step": 5,
    }
    code, out, err = s2s("sweep", f"--config={path}", *flags)
    assert (code, err) == (0, "")
    assert out.count("finished before") == 3
