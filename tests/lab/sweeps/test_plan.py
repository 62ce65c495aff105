"""A sweep: planned completely, run in processes, resumed."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s2s_jax.lab import cli, experiment
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.locks import FileLock
from s2s_jax.lab.config.experiment_file import load_experiment, sweep_of
from s2s_jax.lab.config.grids import sweep_product, sweep_schedules
from s2s_jax.lab.config.keys import flat_keys
from s2s_jax.lab.config.overrides import apply_overrides, parse_config
from s2s_jax.lab.runs.names import row_name, run_name, trial_of
from s2s_jax.lab.sweeps import pool as sweep_pool
from s2s_jax.lab.sweeps import worker_process
from s2s_jax.lab.sweeps.assignment import Assignment
from s2s_jax.lab.sweeps.display import PlainDisplay
from s2s_jax.lab.sweeps.plan import PlannedRun, plan_sweep, plan_table
from s2s_jax.lab.sweeps.pool import run_sweep

NAMES = [
    "teacher_forcing/seed_0",
    "linear/seed_0",
    "teacher_forcing/seed_1",
    "linear/seed_1",
]


def quiet():
    return PlainDisplay(lambda line: None)


def test_the_plan_names_folders_and_commands(experiment_file, tmp_path):
    flags = ["--config.train.num_steps=3"]
    plan = plan_sweep(str(experiment_file), flags, tmp_path / "sweep")
    assert [one.name for one in plan] == NAMES
    assert plan[1].workdir == tmp_path / "sweep" / "linear" / "seed_0"
    assert plan[1].assignment.arguments == [
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
            f"from s2s_jax.lab.config.experiment_file import load_experiment\n"
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
        ("def sweep():\n    yield {'seed': None}\n", [], "seed cannot be None"),
        ("def sweep():\n    yield {'seed': True}\n", [], "seed=True: it must be of type int"),
        (
            "def sweep():\n    yield {'train.clip_norm': 'x'}\n",
            [],
            "train.clip_norm='x': .* type float",
        ),
        (
            "def sweep():\n    yield {'schedule.k': {1: 2}}\n",
            [],
            r"schedule.k is set to \{1: 2\} of type dict; it must be None, a bool",
        ),
        (
            "def sweep():\n    yield {'train.batch_size': 9}\n    yield {'eval.batch_size': 9}\n",
            [],
            "would share the folder teacher_forcing,batch_size=9/seed_0, which is named after the",
        ),
        ("def sweep():\n    yield {1: 2}\n", [], "must yield dicts such as"),
        ("def sweep():\n    yield {'schedule.name': 'lineer'}\n", [], "did you mean 'linear'"),
        (
            "def sweep():\n    yield {'seed': 0}\n",
            ["--config.seed=1"],
            "seed is varied by this sweep",
        ),
        ("", [], r"has no function sweep\(\)"),
        ("def sweep():\n    yield 1 / 0\n", [], "line 4: ZeroDivisionError"),
        ("import sys\ndef sweep():\n    sys.exit(0)\n", [], r"line 5: it calls sys\.exit\(0\)"),
        ("def sweep():\n    yield 'seed'\n", [], "sweep"),
    ],
)
def test_a_sweep_that_cannot_run_is_rejected_before_it_starts(
    write, tmp_path, sweep, flags, message
):
    path = write(sweep)
    with pytest.raises(LabError, match=message):
        plan_sweep(path, flags, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_rejects_a_schedule_argument_and_no_jobs(experiment_file, tmp_path):
    with pytest.raises(LabError, match=f"write --config={experiment_file}"):
        plan_sweep(f"{experiment_file}:linear", [], tmp_path)
    with pytest.raises(LabError, match="--jobs is 0; it must be at least 1"):
        run_sweep([], 0)


def test_the_name_of_a_run_says_what_varies():
    assert run_name("linear", 2, {"schedule.name": "linear", "seed": 2}) == "linear/seed_2"
    varied = {"seed": 0, "train.learning_rate": 1e-3, "model.input_feeding": True}
    assert run_name("linear", 0, varied) == "linear,input_feeding=True,learning_rate=0.001/seed_0"
    varied = {"schedule.k": None, "rollout.coin": "a_b", "train.clip_norm": 1e-5}
    assert row_name("linear", varied) == "linear,coin=a_b,k=None,clip_norm=1e-05"


def test_no_two_values_share_a_folder():
    values = ["/data/a b", "/data/a_b", "a__b", "a_b", "Adam", "adam", "", "_", "a,b=c", "a b=c"]
    values += ["x" * 300, "x" * 301, ("a", "b c"), ("a b", "c"), None, "None", "é", "ü", "-"]
    names = [row_name("linear", {"data.folder": value}) for value in values]
    assert len({name.lower() for name in names}) == len(values)
    # Folder names are parsed again: "," separates parts, and "=" ends a key.
    assert all(name.count(",") == name.count("=") == 1 for name in names)
    assert max(map(len, names)) < 100
    varied = {f"data.{letter * 9}": letter * 50 for letter in "abcdefg"}
    name = row_name("linear", varied)
    assert len(name) < 250
    assert trial_of(Path(name) / "seed_0", "linear", varied) == (name, varied)


def test_runs_that_differ_only_in_the_seed_are_one_row_of_the_hparams_table(tmp_path):
    varied = {"schedule.name": "linear", "seed": 3, "rollout.coin": "sequence"}
    for_all = {"train.num_steps": 20}
    name = run_name("linear", 3, varied)
    assert trial_of(tmp_path / name, "linear", varied | for_all) == (
        "linear,coin=sequence",
        {"rollout.coin": "sequence"},
    )
    plain = tmp_path / "linear" / "seed_3"
    assert trial_of(plain, "linear", for_all | {"seed": 3}) == ("linear", {})
    # A run outside a sweep, or in a folder of another name, is identified by all its overrides.
    for folder in (tmp_path / "mine", tmp_path / "trials" / "seed_3"):
        row, found = trial_of(folder, "linear", varied | for_all)
        assert row == row_name("linear", varied | for_all) == "linear,coin=sequence,num_steps=20"
        assert found == {"rollout.coin": "sequence", "train.num_steps": 20}


def test_sweeps_compose():
    schedules = sweep_schedules(["teacher_forcing", "linear"], num_seeds=2)
    coins = ({"rollout.coin": coin} for coin in ("token", "sequence"))
    lengths = ({"train.num_steps": count} for count in (5, 10, 20))
    runs = list(sweep_product(schedules, coins, lengths))
    assert len(runs) == len({tuple(sorted(one.items())) for one in runs}) == 4 * 2 * 3
    assert runs[1] == {
        "schedule.name": "teacher_forcing",
        "seed": 0,
        "rollout.coin": "token",
        "train.num_steps": 10,
    }
    assert list(sweep_product([{"seed": 1}])) == [{"seed": 1}]
    assert list(sweep_product([{"seed": 1}], [])) == []
    with pytest.raises(LabError, match="seed is set by two of the sweeps"):
        list(sweep_product([{"seed": 1}], [{"rollout.coin": "token", "seed": 2}]))


METHODS = """
def sweep(feed="sample"):
    yield {"method": "forced", "schedule.name": "teacher_forcing", "seed": 0}
    yield {"method": "own", "schedule.name": "free_running", "rollout.feed": feed, "seed": 0}
"""


def test_a_sweep_of_named_methods(write, tmp_path):
    path = write(METHODS)
    plan = plan_sweep(path, [], tmp_path / "sweep")
    assert [one.name for one in plan] == ["forced/seed_0", "own/seed_0"]
    assert plan_table(plan).splitlines()[:3] == [
        "schedule         method  seed 0",
        "teacher_forcing  forced  waiting",
        "free_running     own     waiting",
    ]
    sets = dict(plan[1].assignment.varied)
    folder = tmp_path / "sweep" / "own" / "seed_0"
    assert trial_of(folder, "free_running", sets) == ("own", {"method": "own"})
    twice = METHODS.replace('"own", "schedule', '"forced", "schedule')
    with pytest.raises(LabError, match=r"folder forced/seed_0, .*after the method; give each"):
        plan_sweep(write(twice), [], tmp_path / "sweep")


def test_a_sweep_may_take_the_argument_of_its_file(write, tmp_path):
    path = write(METHODS.replace("def sweep", "def get_config(feed): return CONFIG\n\ndef sweep"))
    runs = sweep_of(f"{path}:argmax")
    assert [one.get("rollout.feed") for one in runs] == [None, "argmax"]
    assert sweep_of(path)[1]["rollout.feed"] == "sample"


COMPOSED = """
from s2s_jax.lab.config.grids import sweep_product, sweep_schedules

def sweep():
    coins = ({"rollout.coin": coin} for coin in ("token", "sequence"))
    yield from sweep_product(sweep_schedules(["linear"], num_seeds=2), coins)
    yield {"schedule.name": "teacher_forcing", "seed": 1}
"""


def test_the_grid_of_a_composed_sweep(write, tmp_path):
    folder = tmp_path / "sweep"
    plan = plan_sweep(write(COMPOSED), [], folder)
    assert [one.name for one in plan] == [
        "linear,coin=token/seed_0",
        "linear,coin=sequence/seed_0",
        "linear,coin=token/seed_1",
        "linear,coin=sequence/seed_1",
        "teacher_forcing/seed_1",
    ]
    assert plan[0].score == "eval/own/wer"
    for one, status, steps in (
        (plan[0], "finished", 12),
        (plan[1], "stopped", 5),
        (plan[2], "failed", 3),
    ):
        one.workdir.mkdir(parents=True)
        config = {"seed": 0, "data": {"name": "tsv"}, "schedule": {"name": "linear"}}
        rest = {"config": config, "metrics": {}, "wall_seconds": 1.0}
        result = {"status": status, "steps": steps} | rest
        (one.workdir / "result.json").write_text(json.dumps(result))
        config = apply_overrides(
            load_experiment(write(COMPOSED)).get_config(),
            {"schedule.name": one.schedule, "seed": one.seed, **dict(one.varied)},
        )
        (one.workdir / "config.json").write_text(json.dumps(config.to_dict()))
    assert plan_table(plan_sweep(write(COMPOSED), [], folder)).splitlines() == [
        "schedule         coin      seed 0        seed 1",
        "linear           token     finished      failed",
        "linear           sequence  stopped at 5  waiting",
        "teacher_forcing  -         -             waiting",
        "",
        "5 runs, 3 rows of up to 2 seeds: 1 finished, 1 stopped, 1 failed, 2 waiting;"
        " 40 of 60 updates to make",
    ]


VALUES = """
import enum
import numpy as np
from ml_collections.config_dict import placeholder
from s2s_jax.lab.config import experiment_file

class Coin(str, enum.Enum):
    TOKEN = "token"

def get_config(schedule="inverse_sigmoid"):
    config = experiment_file.load_experiment({path!r}).get_config(schedule)
    config.schedule.k = 20.0
    with config.unlocked():
        config.mine = {{"sizes": (1,), "names": ("a",), "pairs": ((1, 2),), "text": "a"}}
        config.mine.word = placeholder(str)
        config.mine.batch_size = config.train.get_ref("batch_size")
    return config

VALUES = {{
    "schedule.k": (None, 30, np.float32(40.5), 1e2),
    "model.input_feeding": (True, np.bool_(False)),
    "train.learning_rate": (1e-5, np.float64(0.1), 1, np.array(0.25)),
    "train.batch_size": (np.int64(4), 3),
    "rollout.coin": (Coin.TOKEN, np.str_("sequence")),
    "mine.text": ("", "a b", "a,b", "it's \\"so\\"", "None", "-x", "a\\nb", "=", "é", "1e-5"),
    "mine.word": (None, "x"),
    "mine.sizes": ((), (1, 2), [3], (np.int64(4),)),
    "mine.names": (("a b", "c,d"), ("it's",), ("",)),
    "mine.pairs": (((3, 4), (5, 6)), [[7, 8]]),
}}

def sweep():
    for number in range(10):
        yield {{key: values[number % len(values)] for key, values in VALUES.items()}}
"""


def test_every_value_of_a_plan_reaches_the_run_unchanged(experiment_file, tmp_path):
    path = tmp_path / "values.py"
    path.write_text(VALUES.format(path=str(experiment_file)))
    flags = ["--config.train.num_steps=3", "--config.schedule.floor=0.1"]
    found = {}
    for one in plan_sweep(str(path), flags, tmp_path / "sweep"):
        # As a process of the sweep receives it, and as a cluster does.
        sent = Assignment.from_json(json.loads(json.dumps(one.assignment.to_json())))
        config, overrides = sent.config()
        command = shlex.split(one.assignment.command_line())
        read, chosen, _ = parse_config([flag for flag in command if flag.startswith("--config")])
        assert repr(flat_keys(read)) == repr(flat_keys(config))
        assert chosen == overrides
        assert (config.train.num_steps, config.schedule.floor) == (3, 0.1)
        # Values that the file derives from a key follow it.
        assert config.mine.batch_size == config.train.batch_size
        for key, value in flat_keys(config).items():
            found.setdefault(key, []).append(value)
    assert repr(found["schedule.k"][:4]) == "[None, 30.0, 40.5, 100.0]"
    assert repr(found["model.input_feeding"][:2]) == "[True, False]"
    assert repr(found["train.learning_rate"][:4]) == "[1e-05, 0.1, 1.0, 0.25]"
    assert repr(found["train.batch_size"][:2]) == "[4, 3]"
    assert repr(found["rollout.coin"][:2]) == "['token', 'sequence']"
    assert repr(found["mine.word"][:2]) == "[None, 'x']"
    assert repr(found["mine.sizes"][:4]) == "[(), (1, 2), (3,), (4,)]"
    assert repr(found["mine.pairs"][:2]) == "[((3, 4), (5, 6)), ((7, 8),)]"
    assert found["mine.text"][5:] == ["-x", "a\nb", "=", "é", "1e-5"]


def test_a_value_that_a_command_line_cannot_express_is_rejected(s2s, experiment_file, tmp_path):
    path = tmp_path / "values.py"
    text = VALUES.format(path=str(experiment_file))
    path.write_text(f"{text}\ndef sweep():\n    yield {{'mine.word': 'None'}}\n")
    front = ["sweep", f"--config={path}", f"--workdir={tmp_path}/sweep"]
    code, out, err = s2s(*front, "--launcher=print")
    assert (code, out) == (2, "")
    assert err.startswith("s2s: mine.word='None' cannot be written on a command line;")
    assert s2s(*front, "--dry-run")[0] == 0


def test_a_folder_with_another_config_is_rejected(experiment_file, finished, tmp_path):
    import shutil

    shutil.copytree(finished, tmp_path / "linear" / "seed_0")
    with pytest.raises(LabError, match=r"schedule\.name is 'inverse_sigmoid' there and 'linear'"):
        plan_sweep(str(experiment_file), [], tmp_path)


FAKE_WORKER = """
import json, os, sys
answers = os.fdopen(os.dup(1), "w", buffering=1)
for line in sys.stdin:
    if line == "null\\n":
        break
    [run] = json.loads(line)
    script, log = run["config_file"], run["workdir"] + ".log"
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        exec(script, {})
        os.makedirs(run["workdir"], exist_ok=True)
        with open(run["workdir"] + "/result.json", "w") as file:
            json.dump({"status": "finished", "steps": 0, "wall_seconds": 0, "metrics": {}}, file)
    except SystemExit as end:
        if end.code != 2:
            raise
    answers.write(f"{2 * ('sys.exit(2)' in script)}\\n")
"""
"""Runs scripts instead of runs; like the real worker it exits after any code but 0 and 2."""


@pytest.fixture
def start_workers(monkeypatch):
    """Makes a sweep start a script as its processes; returns the list of started ones."""
    start = subprocess.Popen

    def make(script):
        started = []

        def popen(command, **options):
            assert command[1:] == ["-m", "s2s_jax.lab.sweeps.worker"]
            started.append(start([sys.executable, "-c", script], **options))
            return started[-1]

        monkeypatch.setattr(worker_process.subprocess, "Popen", popen)
        monkeypatch.setattr(sweep_pool, "_POLL_SECONDS", 0.02)
        return started

    return make


@pytest.fixture
def fake_runs(start_workers, tmp_path):
    """A function that plans runs that are small scripts, and the list of started processes."""

    def plan(*scripts, programs=""):
        folders = [tmp_path / "sweep" / f"run_{number}" for number in range(len(scripts))]
        return [
            PlannedRun(folder.name, Assignment(script, folder), status, group=program)
            for folder, (script, status), program in zip(
                folders, scripts, programs or "a" * len(scripts), strict=True
            )
        ]

    return plan, start_workers(FAKE_WORKER)


def test_a_run_that_fails_does_not_stop_the_others(fake_runs, tmp_path):
    make_plan, started = fake_runs
    fails = (
        "import sys; print('a word', flush=True)\n"
        "print('the loss is gone', file=sys.stderr); sys.exit(2)"
    )
    plan = make_plan((fails, "waiting"), ("print('fine')", "failed"), ("1 / 0", "finished"))
    lines = []
    assert run_sweep(plan, 1, display=PlainDisplay(lines.append)) == ["run_0"]
    log = tmp_path / "sweep" / "run_0.log"
    assert len(started) == 1
    assert lines == [
        "run_2: finished before",
        "run_0: started (1 of 3 done)",
        "run_0: FAILED, exit code 2: the loss is gone (2 of 3 done)",
        "run_1: started (2 of 3 done)",
        "run_1: finished (3 of 3 done)",
        "1 of 3 runs failed:",
        f"  run_0: exit code 2: the loss is gone (full log: {log})",
    ]
    assert log.read_text() == "a word\nthe loss is gone\n"
    assert [one.poll() for one in started] == [0]


def test_the_reason_is_the_last_error_of_this_attempt(fake_runs, tmp_path):
    make_plan, _ = fake_runs
    ours = (
        "import sys; print('s2s: no such data', file=sys.stderr)\n"
        "print('bye', flush=True); sys.exit(2)"
    )
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    plan = make_plan((ours, "waiting"), (killed, "waiting"), ("1 / 0", "waiting"))
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "run_1.log").write_text("s2s: of an earlier try\n")
    lines = []
    run_sweep(plan, 3, display=PlainDisplay(lines.append))
    reasons = [line.partition(" (full")[0] for line in lines[-3:]]
    assert reasons == [
        "  run_0: exit code 2: no such data",
        "  run_1: killed by SIGKILL",
        "  run_2: exit code 1: ZeroDivisionError: division by zero",
    ]


def test_a_run_is_finished_when_its_result_says_so(fake_runs, tmp_path):
    make_plan, _ = fake_runs
    write = (
        "import json, os, pathlib\n"
        "folder = pathlib.Path({folder!r}); folder.mkdir(exist_ok=True)\n"
        "(folder / 'result.json').write_text(json.dumps({result!r}))\n"
        "print('half of it', flush=True)\n"
    )
    ends = "import os; os._exit(0)"
    results = [{"status": status, "steps": 3} for status in ("finished", "stopped", "finished")]
    scripts = ["print('begun', flush=True)\n" + ends]
    for number, result in enumerate(results, 1):
        scripts.append(write.format(folder=str(tmp_path / f"sweep/run_{number}"), result=result))
        scripts[-1] += ends
    plan = make_plan(*[(script, "waiting") for script in scripts])
    plan = [replace(one, num_steps=steps) for one, steps in zip(plan, (3, 3, 3, 4), strict=True)]
    lines = []
    failed = run_sweep(plan, 1, display=PlainDisplay(lines.append))
    assert failed == ["run_0", "run_2", "run_3"]
    reasons = [line.partition(" (full")[0] for line in lines[-3:]]
    assert reasons == [
        "  run_0: it ended early: begun",
        "  run_2: it ended early: half of it",
        "  run_3: it ended early: half of it",
    ]


def test_a_run_that_another_process_trains_is_waited_for(fake_runs, tmp_path):
    make_plan, _started = fake_runs
    plan = make_plan(("print('first')", "waiting"), ("print('second')", "waiting"))
    lock = FileLock(plan[0].workdir / "checkpoints.lock")
    lines = []

    def report(line):
        lines.append(line)
        if line.startswith(("run_1: finished", "run_1: FAILED")):
            lock.release()

    assert run_sweep(plan, 1, display=PlainDisplay(report)) == []
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    assert lines == [
        f"run_0: is being trained by {owner}; waiting for it to end",
        "run_1: started (0 of 2 done)",
        "run_1: finished (1 of 2 done)",
        "run_0: started (1 of 2 done)",
        "run_0: finished (2 of 2 done)",
    ]


def test_a_run_that_another_process_has_just_started_does_not_fail(
    fake_runs, tmp_path, monkeypatch
):
    make_plan, _started = fake_runs
    tried = tmp_path / "tried"
    script = (
        f"import pathlib, sys; tried = pathlib.Path({str(tried)!r})\n"
        "if not tried.exists(): tried.touch(); sys.exit(2)"
    )
    owners = iter([None, "process 7 on a"])
    monkeypatch.setattr(sweep_pool.RunFolder, "trained_by", lambda self: next(owners, None))
    lines = []
    assert run_sweep(make_plan((script, "waiting")), 1, display=PlainDisplay(lines.append)) == []
    assert lines[1:3] == [
        "run_0: is being trained by process 7 on a; waiting for it to end",
        "run_0: started (0 of 1 done)",
    ]


def test_jobs_run_side_by_side(fake_runs, tmp_path):
    make_plan, _ = fake_runs
    # Each waits until the other has started.
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
    assert run_sweep(plan, 2, display=quiet()) == []


@pytest.mark.parametrize(("num_jobs", "threads"), [(1, "unset"), (2, "2"), (3, "1")])
def test_jobs_share_the_cores(fake_runs, tmp_path, monkeypatch, num_jobs, threads):
    make_plan, _ = fake_runs
    monkeypatch.setattr(sweep_pool.os, "cpu_count", lambda: 5)
    monkeypatch.delenv("NPROC", raising=False)
    script = "import os; print(os.environ.get('NPROC', 'unset'), flush=True)"
    run_sweep(make_plan(*[(script, "waiting")] * num_jobs), num_jobs, display=quiet())
    logs = [path.read_text().strip() for path in (tmp_path / "sweep").glob("*.log")]
    assert logs == [threads] * num_jobs


def test_xla_takes_as_many_threads_as_it_is_told():
    program = (
        "import jax, pathlib; jax.numpy.ones(3).block_until_ready()\n"
        "names = [path.read_text() for path in pathlib.Path('/proc/self/task').glob('*/comm')]\n"
        "print(names.count('tf_XLAEigen\\n'))"
    )
    if not Path("/proc/self/task").is_dir():
        pytest.skip("threads are counted where Linux lists them")
    for threads in ("1", "3"):
        environment = os.environ | {"NPROC": threads, "JAX_PLATFORMS": "cpu"}
        out = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
        assert out.strip() == threads


def test_an_interrupt_is_passed_on(fake_runs, tmp_path, monkeypatch):
    make_plan, _ = fake_runs
    script = (
        "import pathlib, signal, sys, time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "signal.signal(signal.SIGTERM, lambda *_: ((folder / 'saved').touch(), sys.exit(75)))\n"
        "(folder / 'ready').touch()\n"
        "time.sleep(60)"
    )
    plan = make_plan((script, "waiting"))
    lines = []
    display = PlainDisplay(lines.append)

    def interrupt():
        if (tmp_path / "ready").exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(display, "tick", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(plan, 1, display=display)
    assert (tmp_path / "saved").exists()
    assert lines[-1] == "stopping: the running processes save their checkpoints"


def test_no_process_outlives_a_sweep_that_fails(fake_runs, tmp_path):
    make_plan, started = fake_runs
    plan = make_plan(("import time; time.sleep(60)", "waiting"), ("", "waiting"))
    other = tmp_path / "file"
    other.write_text("")
    plan[1] = PlannedRun("run_1", Assignment("", other / "run_1"), "waiting")
    with pytest.raises(LabError, match="cannot write to"):
        run_sweep(plan, 2, display=quiet())
    assert [one.poll() for one in started] == [-signal.SIGTERM]


def test_a_process_continues_with_the_next_run_unless_it_broke(fake_runs, tmp_path):
    make_plan, started = fake_runs
    told = "import os; print(os.getpid(), flush=True)"
    plan = make_plan(
        (told, "waiting"), (f"{told}; 1 / 0", "waiting"), (told, "waiting"), (told, "waiting")
    )
    assert run_sweep(plan, 1, display=quiet()) == ["run_1"]
    said = [(tmp_path / "sweep" / f"run_{number}.log").read_text() for number in range(4)]
    processes = [int(text.splitlines()[0]) for text in said]
    assert len(started) == 2
    assert processes == [started[0].pid] * 2 + [started[1].pid] * 2
    assert [one.poll() for one in started] == [1, 0]


def test_a_process_prefers_runs_of_the_program_that_it_has_compiled(fake_runs, tmp_path):
    make_plan, _ = fake_runs
    order = tmp_path / "order"
    scripts = [
        (f"print({number}, file=open({str(order)!r}, 'a'))", "waiting") for number in range(5)
    ]
    assert run_sweep(make_plan(*scripts, programs="abbaa"), 1, display=quiet()) == []
    assert order.read_text().split() == ["0", "3", "4", "1", "2"]


def test_a_process_that_dies_is_replaced(fake_runs, tmp_path):
    make_plan, started = fake_runs
    # It ends after its answer, as if the system had killed it.
    dies = "import os, threading; threading.Timer(0.2, os._exit, [9]).start()"
    waits = "import time; time.sleep(1)"
    plan = make_plan((dies, "waiting"), (waits, "waiting"), ("", "waiting"))
    plan[2] = PlannedRun("run_2", Assignment(waits, plan[2].workdir), "waiting")
    assert run_sweep(plan, 1, display=quiet()) == ["run_1"]
    assert len(started) == 2


GROUP = """
import json, pathlib, sys, time
for line in sys.stdin:
    if line == "null\\n":
        break
    runs = [one["config_file"] for one in json.loads(line)]
    most = int(runs[0].split()[0])
    if len(runs) > most:
        sys.exit(71)  # out of memory
    for number, one in enumerate(runs):
        folder = pathlib.Path(one.split()[1])
        folder.mkdir()
        status = one.split()[2]
        error = {"error": "the loss is gone"} if status == "failed" else {}
        if error:
            folder.with_name(folder.name + ".log").write_text("s2s: the loss is gone\\n")
        result = {"status": status, "steps": 0, "wall_seconds": 0, "metrics": {}} | error
        (folder / "result.json").write_text(json.dumps(result))
        if number == 0:  # the sweep looks at those that have ended while the others train
            time.sleep(0.5)
    print(2 * any("failed" in one for one in runs), flush=True)
"""


@pytest.fixture
def fake_groups(start_workers, monkeypatch, tmp_path):
    """A function that plans for a process that only writes results, and the sizes of its jobs."""
    sizes = []
    send = worker_process.WorkerProcess.send

    def watched(self, job):
        sizes.append(len(job))
        send(self, job)

    monkeypatch.setattr(worker_process.WorkerProcess, "send", watched)
    start_workers(GROUP)

    def plan(most, *statuses):
        folders = [tmp_path / "sweep" / f"run_{number}" for number in range(len(statuses))]
        return [
            PlannedRun(
                folder.name,
                Assignment(f"{most} {folder} {status}", folder),
                "waiting",
                seed=number,
            )
            for number, (folder, status) in enumerate(zip(folders, statuses, strict=True))
        ]

    return plan, sizes


def test_a_failed_lane_is_reported_while_the_others_train(fake_groups):
    make_plan, sizes = fake_groups
    plan = make_plan(9, "failed", "finished", "finished")
    lines = []
    failed = run_sweep(plan, 1, display=PlainDisplay(lines.append), groups=[plan])
    assert (failed, sizes) == (["run_0"], [3])
    assert lines[:4] == [
        "run_0: started (0 of 3 done)",
        "run_1: started (0 of 3 done)",
        "run_2: started (0 of 3 done)",
        "run_0: FAILED, the loss is gone (1 of 3 done)",
    ]
    assert lines[-2] == "1 of 3 runs failed:"


def test_a_group_that_runs_out_of_memory_continues_in_halves(fake_groups):
    make_plan, sizes = fake_groups
    plan = make_plan(1, *["finished"] * 3)
    lines = []
    assert run_sweep(plan, 1, display=PlainDisplay(lines.append), groups=[plan]) == []
    assert sizes == [3, 2, 1, 1, 1]
    assert [line for line in lines if "memory" in line] == [
        "out of memory with 3 lanes; continuing with 2 lanes at a time",
        "out of memory with 2 lanes; continuing with one run after another",
    ]
    assert lines[-1] == "run_2: finished (3 of 3 done)"


def test_nothing_to_do(fake_runs):
    make_plan, started = fake_runs
    lines = []
    plan = make_plan(("1 / 0", "finished"))
    assert run_sweep(plan, 2, display=PlainDisplay(lines.append)) == []
    assert (started, lines) == ([], ["run_0: finished before"])


def test_a_folder_that_cannot_be_written_is_rejected(experiment_file, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=r"cannot write to workdir .*: Not a directory"):
        plan_sweep(str(experiment_file), [], tmp_path / "file" / "sweep", 1)
    plan = plan_sweep(str(experiment_file), [], tmp_path / "sweep", 1)
    (tmp_path / "sweep").write_text("")  # created in the meantime
    with pytest.raises(LabError, match=r"cannot write to .*sweep/teacher_forcing: "):
        run_sweep(plan, 1, display=quiet())


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
        "schedule         seed 0",
        "teacher_forcing  waiting",
        "linear           waiting",
        "",
        "2 runs, 2 rows of up to 1 seed: 2 waiting; 24 of 24 updates to make",
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_runs_continues_and_is_compared(s2s, experiment_file, tmp_path):
    folder = tmp_path / "sweep"
    command = ["sweep", f"--config={experiment_file}", f"--workdir={folder}", "--seeds=1"]
    code, out, err = s2s(*command, "--jobs=2")
    assert (code, err) == (0, ""), (out, err)
    assert f"s2s compare {folder}" in out
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
def test_a_sweep_with_a_failed_run_exits_with_1(s2s, monkeypatch, experiment_file, tmp_path):
    monkeypatch.setattr(sweep_pool, "run_sweep", lambda *_, **__: ["linear/seed_0"])
    assert s2s("sweep", f"--config={experiment_file}", f"--workdir={tmp_path}")[0] == 1


@pytest.mark.parametrize(
    ("command", "order"),
    [
        (["train"], ["decoration", "work"]),
        (["sweep"], ["decoration", "work"]),
        (["sweep", "--dry-run"], []),  # its table is the result
        (["sweep", "--launcher=print"], []),
    ],
)
def test_output_is_decoration_from_the_start_of_the_work(
    s2s: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    experiment_file: Path,
    tmp_path: Path,
    command: list[str],
    order: list[str],
) -> None:
    said: list[str] = []

    def work(*_: Any, **__: Any) -> dict[str, str]:
        said.append("work")
        return {"status": "finished"} if command == ["train"] else {}

    monkeypatch.setattr(cli, "printing_is_decoration", lambda: said.append("decoration"))
    monkeypatch.setattr(experiment, "train_and_evaluate", work)
    monkeypatch.setattr(sweep_pool, "run_sweep", work)
    front = [f"--config={experiment_file}", f"--workdir={tmp_path}/run"]
    assert s2s(*command, *front)[0] == 0
    assert said == order


def test_missing_data_are_reported_before_a_run_starts(experiment_file, tmp_path, s2s):
    workdir = tmp_path / "sweep"
    flags = f"--config={experiment_file}", f"--workdir={workdir}", "--config.data.folder=/no/such"
    code, out, err = s2s("sweep", *flags)
    assert (code, out) == (2, "")
    assert err == "s2s: data.folder /no/such is not a folder\n"
    assert s2s("sweep", *flags, "--dry-run")[0] == 0  # no run would start here
    assert not workdir.exists()
