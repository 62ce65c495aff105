"""Consecutive runs on one workbench, and the process that trains them for a sweep."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from s2s_jax.data.token_cache import TokenCache
from s2s_jax.data.vocabularies import TokenVocabulary
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.processes import EXIT_FAILED
from s2s_jax.lab.experiment import load_run, train_and_evaluate
from s2s_jax.lab.runs.checkpoints import Checkpoints
from s2s_jax.lab.sweeps.assignment import Assignment
from s2s_jax.lab.sweeps.sent_jobs import NO_MORE_JOBS
from s2s_jax.lab.sweeps.worker import work
from s2s_jax.lab.training.workbench import RunSpec, Workbench
from tests.lab.run_content import records, state

LATER = {
    "seed": 1,
    "train.learning_rate": 7e-3,
    "train.optimizer.weight_decay": 0.1,
    "train.clip_norm": 0.5,
}


def train(bench: Workbench, config, folder: Path) -> tuple[dict, list[str]]:
    """Trains one run; returns its result and the lines that it reported."""
    lines: list[str] = []
    [result] = bench.train([RunSpec(config, folder, {}, lines.append)])
    assert isinstance(result, dict), result
    return result, lines


def compiles(lines: list[str]) -> bool:
    return any(line.startswith("compiling") for line in lines)


@pytest.fixture(scope="module")
def later(make_config, tmp_path_factory):
    """The second run of a bench: its folder, its reported lines, its config, and the bench."""
    folder, bench = tmp_path_factory.mktemp("bench"), Workbench()
    _, lines = train(bench, make_config("linear"), folder / "first")
    assert compiles(lines)
    config = make_config("exponential", **LATER)
    _, lines = train(bench, config, folder / "later")
    return folder / "later", lines, config, bench


def test_a_later_run_compiles_nothing(later):
    assert not compiles(later[1])
    assert any(line.startswith("step 12/12") for line in later[1])
    logged = (json.loads(line) for line in (later[0] / "metrics.jsonl").read_text().splitlines())
    assert [one["train/compile_seconds"] for one in logged if "train/compile_seconds" in one] == [0]


def test_a_later_run_equals_one_on_a_new_bench(later, tmp_path):
    folder, _, config, _ = later
    train_and_evaluate(config, tmp_path / "alone", report=lambda line: None)
    assert records(folder) == records(tmp_path / "alone")
    assert state(folder) == state(tmp_path / "alone")
    predictions = "predictions_test.jsonl"
    assert (folder / predictions).read_bytes() == (tmp_path / "alone" / predictions).read_bytes()


def test_a_later_run_uses_its_own_optimiser_values(later, make_config, tmp_path):
    folder, _, _, bench = later
    ends = [state(folder)]
    for key in ("train.learning_rate", "train.optimizer.weight_decay", "train.clip_norm"):
        same = {name: value for name, value in LATER.items() if name != key}
        _, lines = train(bench, make_config("exponential", **same), tmp_path / key)
        assert not compiles(lines)
        ends.append(state(tmp_path / key))
    assert all(one != other for one, other in itertools.combinations(ends, 2))


@pytest.mark.slow
def test_a_run_that_needs_another_program_gets_it(later, make_config, tmp_path):
    bench = Workbench()
    train(bench, make_config("linear"), tmp_path / "first")
    result, lines = train(bench, make_config("linear", **{"model.hidden_size": 4}), tmp_path / "b")
    assert compiles(lines)
    assert result["config"]["model"]["hidden_size"] == 4


@pytest.mark.slow
def test_a_run_keeps_its_own_vocabularies(make_config, monkeypatch, tmp_path):
    """Another version of the vocabulary trainer may give other vocabularies for the same data."""
    config, bench = make_config("linear"), Workbench()
    train(bench, config, tmp_path / "first")
    folder = tmp_path / "other"
    vocabulary = TokenCache.vocabulary

    def turned_vocabulary(self, side, *rest):
        own = vocabulary(self, side, *rest)
        assert isinstance(own, TokenVocabulary)
        return TokenVocabulary(own.kind, own.tokens[::-1])

    with monkeypatch.context() as patch:
        patch.setattr(TokenCache, "vocabulary", turned_vocabulary)
        train_and_evaluate(config, folder, report=lambda line: None, should_stop=lambda: True)
    turned = load_run(folder, "latest").vocabularies.target
    assert turned != load_run(tmp_path / "first").vocabularies.target
    _, lines = train(bench, config, folder)
    assert compiles(lines)
    assert load_run(folder).vocabularies.target == turned
    hypotheses = (folder / "predictions_test.jsonl").read_text()
    assert hypotheses != (tmp_path / "first" / "predictions_test.jsonl").read_text()


def test_the_bench_stays_usable_after_a_run_fails(later, make_config, tmp_path):
    bench = later[3]
    config = make_config("linear")
    with Checkpoints(tmp_path / "used" / "checkpoints"):
        [result] = bench.train([RunSpec(config, tmp_path / "used", {}, print)])
    assert isinstance(result, LabError)
    assert "is in use by process" in str(result)
    _, lines = train(bench, config, tmp_path / "free")
    assert not compiles(lines)


@pytest.fixture
def worker(experiment_file, tmp_path):
    """Starts the process, sends it one-run jobs; returns its exit code, answers and logs."""

    def call(*jobs: tuple[str, ...], script: str = "") -> tuple[int, list[str], list[str], str]:
        sent, logs = "", []
        for number, flags in enumerate(jobs):
            folder = tmp_path / f"run_{number}"
            run = Assignment(str(experiment_file), folder, flags)
            sent += f"{json.dumps([run.to_json()])}\n"
            logs.append(Path(f"{folder}.log"))
        done = subprocess.run(
            [sys.executable, *(["-c", script] if script else ["-m", "s2s_jax.lab.sweeps.worker"])],
            input=f"{sent}{NO_MORE_JOBS}\n",
            capture_output=True,
            text=True,
            check=False,
            env=dict(os.environ),
            timeout=300,
        )
        said = [log.read_text() if log.is_file() else "" for log in logs]
        return done.returncode, done.stdout.split(), said, done.stderr

    return call


@pytest.mark.slow
def test_a_worker_answers_each_job_and_continues(worker, tmp_path):
    schedule = "--config.schedule.name=linear"
    code, answers, logs, err = worker(
        (schedule,),
        ("--config.schedule.name=lineer",),
        (schedule, "--config.seed=1"),
    )
    assert (code, answers, err) == (0, ["0", "2", "0"], "")
    assert "compiling" in logs[0]
    assert "tensorboard --logdir" in logs[0]
    assert logs[1].startswith("s2s: ")
    assert "did you mean 'linear'" in logs[1]
    assert "compiling" not in logs[2]
    result = json.loads((tmp_path / "run_2" / "result.json").read_text())
    assert result["overrides"] == {"schedule.name": "linear", "seed": 1}


BREAKS = """
import sys
from s2s_jax.lab.sweeps import worker
train, prepare_jax = worker._train, worker.prepare_jax
jobs = []

def prepare():
    print("noise", flush=True)
    prepare_jax()

def break_at_the_second(bench, job, *rest):
    jobs.append(job)
    if len(jobs) == 2:
        print("on the way", flush=True)
        raise ZeroDivisionError("a bug")
    return train(bench, job, *rest)

worker._train, worker.prepare_jax = break_at_the_second, prepare
sys.exit(worker.main())
"""


@pytest.mark.slow
def test_an_unexpected_error_ends_a_worker(worker):
    schedule = "--config.schedule.name=linear"
    code, answers, logs, err = worker((schedule,), (schedule,), (schedule,), script=BREAKS)
    assert (code, answers, err) == (1, ["0"], "noise\n")
    assert logs[1].startswith("on the way\nTraceback")
    assert logs[1].endswith("ZeroDivisionError: a bug\n")
    assert logs[2] == ""


def test_a_job_that_calls_exit_has_failed_whatever_its_code(
    experiment_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workbench, "train", lambda *_, **__: sys.exit(0))
    run = Assignment(str(experiment_file), tmp_path / "run")
    assert work(Workbench(), [run], lambda: False) == EXIT_FAILED
    assert "SystemExit: 0" in (tmp_path / "run.log").read_text()


@pytest.mark.slow
def test_a_log_that_cannot_be_written_does_not_end_a_worker(worker, tmp_path):
    for number in range(2):
        (tmp_path / f"run_{number}.log").symlink_to("/dev/full")
    good = "--config.schedule.name=linear"
    code, answers, _, err = worker(("--config.schedule.name=linaer",), (good,))
    assert (code, answers, err) == (0, ["2", "0"], "")
    assert json.loads((tmp_path / "run_1" / "result.json").read_text())["status"] == "finished"
