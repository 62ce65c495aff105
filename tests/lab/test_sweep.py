"""A sweep: planned whole, run in processes, taken up again."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from s2s_jax.lab import sweep as sweep_module
from s2s_jax.lab.errors import LabError
from s2s_jax.lab.sweep import PlannedRun, plan_sweep, run_name, run_sweep

NAMES = [
    "teacher_forcing/seed_0",
    "linear/seed_0",
    "teacher_forcing/seed_1",
    "linear/seed_1",
]


def test_the_plan_names_folders_and_commands(experiment_file, tmp_path):
    flags = ["--config.train.num_steps=3"]
    plan = plan_sweep(str(experiment_file), flags, tmp_path / "sweep")
    assert [one.name for one in plan] == NAMES
    assert plan[1].workdir == tmp_path / "sweep" / "linear" / "seed_0"
    assert list(plan[1].arguments) == [
        "train",
        f"--config={experiment_file}",
        f"--workdir={tmp_path}/sweep/linear/seed_0",
        "--config.train.num_steps=3",
        "--config.schedule.name=linear",
        "--config.seed=0",
    ]
    assert {one.status for one in plan} == {"waiting"}
    assert len(set(plan)) == 4  # the pool keeps its processes by run
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_seeds(experiment_file, tmp_path):
    plan = plan_sweep(str(experiment_file), [], tmp_path, 1)
    assert [one.name for one in plan] == NAMES[:2]
    with pytest.raises(LabError, match="--seeds is 0; it must be at least 1"):
        plan_sweep(str(experiment_file), [], tmp_path, 0)


@pytest.fixture
def write(tmp_path, experiment_file):
    def make(sweep):
        path = tmp_path / "mine.py"
        path.write_text(
            f"from s2s_jax.lab.experiment_file import load_experiment\n"
            f"get_config = load_experiment({str(experiment_file)!r}).get_config\n{sweep}"
        )
        return str(path)

    return make


@pytest.mark.parametrize(
    ("sweep", "flags", "message"),
    [
        (
            "def sweep():\n    yield {'seed': 0}\n    yield {'seed': 0}\n",
            [],
            "two runs of the sweep",
        ),
        ("def sweep():\n    return iter(())\n", [], "has no runs"),
        ("def sweep():\n    yield {'sed': 0}\n", [], "did you mean 'seed'"),
        ("def sweep():\n    yield {'seed': 'x'}\n", [], "seed='x'"),
        ("def sweep():\n    yield {'schedule.name': 'lineer'}\n", [], "did you mean 'linear'"),
        (
            "def sweep():\n    yield {'seed': 0}\n",
            ["--config.seed=1"],
            "seed is what this sweep var",
        ),
        ("", [], r"has no function sweep\(\)"),
        ("def sweep():\n    yield 1 / 0\n", [], "line 4: ZeroDivisionError"),
        ("def sweep():\n    yield 'seed'\n", [], "sweep"),
    ],
)
def test_a_sweep_that_cannot_run_is_refused_before_it_starts(
    write, tmp_path, sweep, flags, message
):
    path = write(sweep)
    with pytest.raises(LabError, match=message):
        plan_sweep(path, flags, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_names_no_schedule_and_has_a_job(experiment_file, tmp_path):
    with pytest.raises(LabError, match=f"write --config={experiment_file}"):
        plan_sweep(f"{experiment_file}:linear", [], tmp_path)
    with pytest.raises(LabError, match="--jobs is 0; it must be at least 1"):
        run_sweep([], 0)


def test_the_name_of_a_run_says_what_varies():
    assert run_name("linear", 2, {"schedule.name": "linear", "seed": 2}) == "linear/seed_2"
    varied = {"seed": 0, "train.learning_rate": 1e-3, "model.cell": "g/r u"}
    assert run_name("linear", 0, varied) == "linear,cell=g_r_u,learning_rate=0.001/seed_0"


def test_a_folder_of_another_config_is_refused(experiment_file, finished, tmp_path):
    import shutil

    shutil.copytree(finished, tmp_path / "linear" / "seed_0")
    with pytest.raises(LabError, match=r"schedule\.name is 'inverse_sigmoid' there and 'linear'"):
        plan_sweep(str(experiment_file), [], tmp_path)


@pytest.fixture
def fake_runs(monkeypatch, tmp_path):
    """A plan of runs that are small scripts; and the names of those that were started."""
    started = []
    start = subprocess.Popen

    def popen(command, **options):
        (script,) = command[3:]
        started.append(script)
        return start([sys.executable, "-c", script], **options)

    monkeypatch.setattr(sweep_module.subprocess, "Popen", popen)
    monkeypatch.setattr(sweep_module, "_POLL_SECONDS", 0.02)

    def plan(*scripts):
        return [
            PlannedRun(f"run_{number}", tmp_path / "sweep" / f"run_{number}", (script,), status)
            for number, (script, status) in enumerate(scripts)
        ]

    return plan, started


def test_a_run_that_fails_does_not_stop_the_others(fake_runs, tmp_path):
    make_plan, started = fake_runs
    fails = "import sys; print('a word'); print('the loss is gone', file=sys.stderr); sys.exit(2)"
    plan = make_plan((fails, "waiting"), ("print('fine')", "failed"), ("1 / 0", "finished"))
    lines = []
    assert run_sweep(plan, 1, report=lines.append) == ["run_0"]
    assert started == [fails, "print('fine')"]
    assert "run_2: finished before" in lines
    assert "run_0: FAILED, exit code 2: the loss is gone" in lines
    assert "run_1: finished (3 of 3 done)" in lines
    assert lines[-1] == "1 of 3 runs failed: run_0"
    assert (tmp_path / "sweep" / "run_0.log").read_text() == "a word\nthe loss is gone\n"


def test_jobs_run_side_by_side(fake_runs, tmp_path):
    make_plan, _ = fake_runs
    # Each waits until the other is there.
    script = (
        "import pathlib, time; here = pathlib.Path({mine!r}); here.touch()\n"
        "end = time.time() + 60\n"
        "while not pathlib.Path({other!r}).exists():\n"
        "    assert time.time() < end; time.sleep(0.02)"
    )
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    plan = make_plan(
        (script.format(mine=one, other=other), "waiting"),
        (script.format(mine=other, other=one), "waiting"),
    )
    assert run_sweep(plan, 2, report=lambda line: None) == []


def test_an_interrupt_is_passed_on(fake_runs, tmp_path, monkeypatch):
    make_plan, _ = fake_runs
    script = (
        "import pathlib, signal, sys, time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "signal.signal(signal.SIGTERM, lambda *_: ((folder / 'saved').touch(), sys.exit(75)))\n"
        "(folder / 'ready').touch()\n"
        "time.sleep(60)"
    )
    sleep = sweep_module.time.sleep

    def interrupt(seconds):
        if (tmp_path / "ready").exists():
            raise KeyboardInterrupt
        sleep(seconds)

    plan = make_plan((script, "waiting"))
    monkeypatch.setattr(sweep_module.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(plan, 1, report=lambda line: None)
    assert (tmp_path / "saved").exists()


def test_nothing_to_do(fake_runs):
    make_plan, started = fake_runs
    lines = []
    assert run_sweep(make_plan(("1 / 0", "finished")), 2, report=lines.append) == []
    assert (started, lines) == ([], ["run_0: finished before"])


def test_a_folder_that_cannot_be_written_is_refused(experiment_file, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=r"cannot write to workdir .*: Not a directory"):
        plan_sweep(str(experiment_file), [], tmp_path / "file" / "sweep", 1)
    plan = plan_sweep(str(experiment_file), [], tmp_path / "sweep", 1)
    (tmp_path / "sweep").write_text("")  # taken in between
    with pytest.raises(LabError, match=r"cannot write to .*sweep/teacher_forcing: "):
        run_sweep(plan, 1, report=lambda line: None)


def test_print_and_dry_run_show_and_write_nothing(s2s, experiment_file, tmp_path):
    front = ["sweep", f"--config={experiment_file}", f"--workdir={tmp_path}/my sweep", "--seeds=1"]
    code, out, err = s2s(*front, "--launcher=print", "--config.train.num_steps", "2")
    assert (code, err) == (0, "")
    commands = [shlex.split(line) for line in out.splitlines()]
    assert [one[:2] for one in commands] == [["s2s", "train"]] * 2
    assert commands[1][3:] == [
        f"--workdir={tmp_path}/my sweep/linear/seed_0",
        "--config.train.num_steps=2",
        "--config.schedule.name=linear",
        "--config.seed=0",
    ]
    code, out, err = s2s(*front, "--dry-run")
    assert out.splitlines() == [
        f"{tmp_path}/my sweep/{name}/seed_0  waiting" for name in ("teacher_forcing", "linear")
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_runs_goes_on_and_is_compared(s2s, experiment_file, tmp_path):
    folder = tmp_path / "sweep"
    command = ["sweep", f"--config={experiment_file}", f"--workdir={folder}", "--seeds=1"]
    code, out, err = s2s(*command, "--jobs=2")
    assert (code, err) == (0, ""), (out, err)
    assert f"compare them with: s2s compare {folder}" in out
    results = {name: json.loads((folder / name / "result.json").read_text()) for name in NAMES[:2]}
    for name, result in results.items():
        assert result["status"] == "finished"
        assert result["config"]["schedule"]["name"] == name.split("/")[0]
        assert result["overrides"] == {"schedule.name": name.split("/")[0], "seed": 0}
        assert f"tensorboard --logdir {folder}/{name}" in Path(f"{folder}/{name}.log").read_text()
    code, out, err = s2s(*command, "--jobs=2")
    assert (code, err) == (0, "")
    assert "started" not in out
    assert out.count("finished before") == 2
    code, out, err = s2s("compare", folder)
    assert (code, err) == (0, "")
    for schedule in ("teacher_forcing", "linear"):
        assert schedule in out
    assert "nan" not in out.lower()


@pytest.mark.skipif(os.name != "posix", reason="shell")
def test_a_sweep_of_which_a_run_failed_ends_with_1(s2s, monkeypatch, experiment_file, tmp_path):
    monkeypatch.setattr(sweep_module, "run_sweep", lambda *_, **__: ["linear/seed_0"])
    assert s2s("sweep", f"--config={experiment_file}", f"--workdir={tmp_path}")[0] == 1
