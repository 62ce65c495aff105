"""A run that was stopped or killed ends like an uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s2s_jax.lab.experiment import train_and_evaluate
from tests.lab.run_content import records, state


def assert_ends_as(folder: Path, finished: Path) -> None:
    step, leaves = state(folder)
    assert step == 12
    assert (step, leaves) == state(finished)
    assert any("opt_state" in name for name in leaves)
    assert records(folder) == records(finished)
    here, there = (json.loads((one / "result.json").read_text()) for one in (folder, finished))
    del here["wall_seconds"], there["wall_seconds"]
    assert here == there
    for name in ("predictions_test.jsonl", "source_vocabulary.json", "target_vocabulary.json"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()


def stop_after(num_steps: int) -> Callable[[], bool]:
    asked = iter(range(1, 1000))
    return lambda: next(asked) >= num_steps


@pytest.mark.slow
def test_a_run_stopped_twice_ends_like_an_uninterrupted_one(finished, make_config, tmp_path):
    lines: list[str] = []
    folder = tmp_path / "run"

    def train(**options: Any) -> dict[str, Any]:
        return train_and_evaluate(make_config(), folder, report=lines.append, **options)

    first = train(should_stop=stop_after(3))
    assert (first["status"], first["steps"], first["metrics"]) == ("stopped", 3, {})
    second = train(should_stop=stop_after(5))
    assert (second["status"], second["steps"]) == ("stopped", 8)
    assert second["wall_seconds"] >= first["wall_seconds"]
    assert json.loads((folder / "result.json").read_text()) == second
    assert state(folder)[0] == 8
    assert state(folder)[1] != state(finished)[1]
    assert train()["status"] == "finished"
    assert [line for line in lines if "resuming" in line] == [
        f"resuming {folder} at step {step}" for step in (3, 8)
    ]
    assert_ends_as(folder, finished)


KILLED = """
import os, signal, sys, time
from pathlib import Path
from s2s_jax.lab.experiment import train_and_evaluate
from s2s_jax.lab.config.experiment_file import load_experiment

steps = 0

def should_stop():
    global steps
    steps += 1
    if steps == 11:  # step 10 is logged; the checkpoint of step 6 is the newest
        while not (Path(sys.argv[2]) / "checkpoints" / "6").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

config = load_experiment(sys.argv[1]).get_config("inverse_sigmoid")
train_and_evaluate(config, sys.argv[2], should_stop=should_stop)
"""


@pytest.mark.slow
def test_a_killed_run_ends_like_an_uninterrupted_one(
    finished, experiment_file, make_config, tmp_path
):
    folder = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(experiment_file), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert records(folder)[-1]["step"] == 10
    assert not (folder / "result.json").exists()
    lines: list[str] = []
    train_and_evaluate(make_config(), folder, report=lines.append)
    assert f"resuming {folder} at step 6" in lines
    assert_ends_as(folder, finished)


def test_a_run_killed_during_the_test_evaluation_logs_it_once(copied, finished, make_config):
    (copied / "result.json").unlink()
    (copied / "predictions_test.jsonl").unlink()
    lines: list[str] = []
    train_and_evaluate(make_config(), copied, report=lines.append)
    assert f"resuming {copied} at step 12" in lines
    assert not any("compiling" in line for line in lines)
    assert_ends_as(copied, finished)


def test_a_finished_run_is_left_alone(copied, make_config, snapshot):
    before, lines = snapshot(copied), []
    result = train_and_evaluate(make_config(), copied, report=lines.append)
    assert result == json.loads((copied / "result.json").read_text())
    assert lines == [f"{copied} is finished already; nothing to do"]
    assert snapshot(copied) == before


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_run_stopped_by_a_signal_says_how_to_resume(s2s, monkeypatch, experiment_file, tmp_path):
    from s2s_jax.lab import experiment

    asked = []

    def interrupted(config, workdir, overrides, *, report, should_stop):
        asked.append(should_stop())
        os.kill(os.getpid(), signal.SIGTERM)
        asked.append(should_stop())
        return {"status": "stopped", "steps": 3}

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(experiment, "train_and_evaluate", interrupted)
    code, out, err = s2s("train", f"--config={experiment_file}", f"--workdir={tmp_path}/run")
    assert signal.getsignal(signal.SIGTERM) is before
    assert asked == [False, True]
    assert code == 75
    assert out == "stopped at step 3; run the same command to continue\n"
    assert not err
