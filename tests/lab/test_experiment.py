"""From a config to a trained run: what schedules share, and what stops a run."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.overrides import apply_overrides
from s2s_jax.lab.experiment import evaluate_run, load_run, train_and_evaluate
from s2s_jax.lab.runs.named_arrays import flatten
from s2s_jax.lab.runs.run_folder import RunFolder
from s2s_jax.lab.training.build import make_experiment
from s2s_jax.lab.training.device_lanes import DeviceLanes
from s2s_jax.lab.training.lane import NonFiniteLossError
from tests.lab.run_content import newest


@pytest.fixture
def started(monkeypatch):
    """Every run's initial parameters and batches, as the training loop received them."""
    seen = []
    init = DeviceLanes.__init__

    def watched(self, programs, starts, scalars, batches, *rest):
        [start] = starts
        params = jax.tree.map(np.array, start.state.params)
        seen.append((params, [batches[step] for step in range(12)]))
        init(self, programs, starts, scalars, batches, *rest)

    monkeypatch.setattr(DeviceLanes, "__init__", watched)
    return seen


@pytest.fixture
def own_cache(finished, session_folder, tmp_path):
    """A cache of compiled programs with those of `finished`."""
    folder = tmp_path / "xla"
    shutil.copytree(session_folder / "xla", folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    compilation_cache.reset_cache()
    yield folder
    jax.config.update("jax_compilation_cache_dir", str(session_folder / "xla"))
    compilation_cache.reset_cache()


def same(left, right):
    return all(
        (np.asarray(one) == np.asarray(other)).all()
        for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    )


def train_steps(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if path.name.startswith("jit_step-")}


def test_every_schedule_uses_the_same_compiled_step_and_the_same_start(
    finished, own_cache, started, make_config, tmp_path
):
    before = train_steps(own_cache)
    assert before
    for schedule in ("teacher_forcing", "inverse_sigmoid"):
        train_and_evaluate(
            make_config(schedule),
            tmp_path / schedule,
            report=lambda line: None,
            should_stop=lambda: True,
        )
    assert train_steps(own_cache) == before
    (forced_params, forced_batches), (sampled_params, sampled_batches) = started
    assert same(forced_params, sampled_params)
    assert len(forced_batches) == 12
    assert same(forced_batches, sampled_batches)
    # They differ in what they were fed.
    lines = [
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
        for name in ("teacher_forcing", "inverse_sigmoid")
    ]
    assert [one["step"] for one in lines] == [0, 0]
    stopped = [
        load_run(tmp_path / name, "latest") for name in ("teacher_forcing", "inverse_sigmoid")
    ]
    assert [one.step for one in stopped] == [1, 1]


def test_another_seed_is_another_start(make_config):
    experiments = [make_experiment(make_config(seed=seed)) for seed in (0, 1)]
    tasks = [one.load_task() for one in experiments]
    batches = [
        task.training_batches(1, 8, one.seed)[0].source
        for task, one in zip(tasks, experiments, strict=True)
    ]
    assert (batches[0] != batches[1]).any()


def test_nothing_is_written_before_the_data_is_available(make_config, tmp_path):
    config = make_config(**{"data.folder": str(tmp_path / "nowhere")})
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        train_and_evaluate(config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


EXPLODING = {
    "train.learning_rate": 1e6,
    "train.optimizer.weight_decay": 1e6,
    "train.clip_norm": 0.0,
    "train.warmup_steps": 0,
    "eval.every": 1,
}


@pytest.fixture(scope="module")
def exploded(make_config, tmp_path_factory):
    """A run whose loss becomes NaN after a few steps, with a checkpoint after each step."""
    folder = tmp_path_factory.mktemp("exploded") / "run"
    with pytest.raises(NonFiniteLossError) as error:
        train_and_evaluate(make_config(**EXPLODING), folder, report=lambda line: None)
    return folder, error.value


def test_a_loss_that_is_not_finite_stops_the_run(exploded):
    folder, error = exploded
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "failed"
    assert result["steps"] == error.step
    assert result["error"] == str(error)
    assert 0 < error.step < 12
    found = re.search(
        r"the loss of step (\d+) is not finite; the checkpoint of step (\d+)", str(error)
    )
    assert found is not None
    assert int(found[1]) == error.step
    kept = {int(path.name) for path in (folder / "checkpoints").iterdir()}
    assert int(found[2]) == max(kept) <= error.step


def test_the_checkpoint_that_is_kept_is_finite(exploded):
    folder, _ = exploded
    run = load_run(folder, "latest")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))


def test_the_command_line_says_so_in_a_line(exploded, experiment_file, s2s, tmp_path):
    folder, error = exploded
    copied = shutil.copytree(folder, tmp_path / "run")
    flags = [f"--config.{key}={value}" for key, value in EXPLODING.items()]
    code, _, err = s2s(
        "train", f"--config={experiment_file}:inverse_sigmoid", f"--workdir={copied}", *flags
    )
    assert code == 2
    assert err == f"s2s: {error}\n"
    assert RunFolder(copied).result()["status"] == "failed"  # type: ignore  # a None fails here, too


def test_every_loss_is_checked_if_each_is_logged(make_config, tmp_path, monkeypatch):
    """With log_every=1 it is found at the next step, not at the next evaluation."""
    config = make_config(**(EXPLODING | {"eval.every": 12, "train.log_every": 1}))
    with pytest.raises(NonFiniteLossError, match="there is no checkpoint") as error:
        train_and_evaluate(config, tmp_path / "run", report=lambda line: None)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] <= error.value.step + 2


def test_an_option_that_the_vocabulary_cannot_satisfy_is_rejected(make_config, tmp_path):
    config = make_config(**{"rollout.top_k": 100})
    with pytest.raises(LabError, match="top_k is 100, and the vocabulary has 10 tokens"):
        train_and_evaluate(config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["schedule_free_adamw", "optax:adan"])
def test_any_optimizer_trains_and_what_was_evaluated_is_what_is_opened(make_config, tmp_path, name):
    config = apply_overrides(make_config("linear"), {"train.optimizer.name": name})
    result = train_and_evaluate(config, tmp_path / "run", report=lambda line: None)
    found = evaluate_run(load_run(tmp_path / "run"), "test")
    assert found == pytest.approx({key: result["metrics"][key] for key in found}, abs=1e-6)
    _, trained = newest(tmp_path / "run")
    opened = flatten(load_run(tmp_path / "run", "latest").params, "state.params")
    is_same = [np.array_equal(leaf, trained[name]) for name, leaf in opened.items()]
    # Of a schedule-free optimiser, the average is evaluated and not what is trained.
    assert all(is_same) == (name != "schedule_free_adamw")
