"""Batches by number of tokens: runs alone, resumed, and as lanes of one program."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2s_jax.data.batching import BatchShape, Sequences, TokenPairs
from s2s_jax.lab.experiment import train_and_evaluate
from s2s_jax.lab.training.build import make_experiment
from s2s_jax.lab.training.device_lanes import stack_batches
from s2s_jax.lab.training.workbench import RunSpec, Workbench
from tests.lab.run_content import records, state

pytestmark = pytest.mark.xdist_group("tokens_per_batch")

STEPS, TOKENS = 16, 40
SCHEDULES = ("teacher_forcing", "linear")


@pytest.fixture(scope="module")
def configs(make_config: Callable[..., Any]) -> list[Any]:
    """Two runs of unlike seeds and schedules, whose batches have 10 or 8 rows."""
    return [
        make_config(
            schedule,
            **{
                "seed": seed,
                "data.num_buckets": 2,
                "model.attention": "none",
                "train.num_steps": STEPS,
                "train.tokens_per_batch": TOKENS,
                "train.log_every": 1,
                "eval.every": STEPS,
                "eval.num_examples": 0,
            },
        )
        for seed, schedule in enumerate(SCHEDULES)
    ]


def losses(folder: Path) -> np.ndarray:
    return np.array([one["train/loss"] for one in records(folder) if "train/loss" in one])


def tokens(folder: Path) -> list[int]:
    return [one["train/target_tokens"] for one in records(folder) if "train/target_tokens" in one]


def train(
    configs: Sequence[Any], folder: Path, stop_after: int = 10**9
) -> tuple[list[Any], list[str]]:
    asked, lines = iter(range(1, 10**9)), []
    runs = [RunSpec(one, folder / str(one.seed), {}, lines.append) for one in configs]
    return Workbench().train(runs, should_stop=lambda: next(asked) >= stop_after), lines


@pytest.fixture(scope="module")
def alone(configs: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs, trained one after the other."""
    folder = tmp_path_factory.mktemp("alone")
    for config in configs:
        result = train_and_evaluate(config, folder / str(config.seed), report=lambda line: None)
        assert result["status"] == "finished"
    return folder


def test_the_tokens_are_those_of_the_batches(alone, configs):
    for config in configs:
        experiment = make_experiment(config)
        batches = experiment.training_batches(experiment.load_task())
        assert [shape.num_rows for shape in batches.shapes] == [13, 10]
        counts = [int(batches[step].target_mask.sum()) for step in range(STEPS)]
        assert tokens(alone / str(config.seed)) == np.cumsum(counts).tolist()
        assert {batches[step].source.shape for step in range(STEPS)} == {(13, 3), (10, 4)}


def test_a_stopped_run_ends_like_an_uninterrupted_one(alone, configs, tmp_path):
    [result], _ = train(configs[1:], tmp_path, stop_after=5)
    assert (result["status"], result["steps"]) == ("stopped", 5)
    [result], _ = train(configs[1:], tmp_path)
    assert result["status"] == "finished"
    assert state(tmp_path / "1") == state(alone / "1")
    assert records(tmp_path / "1") == records(alone / "1")


def test_a_lane_equals_the_run_alone(alone, configs, tmp_path):
    _, lines = train(configs, tmp_path)
    assert sum("for 2 batch shapes" in line for line in lines) == 2  # once for each of the lanes
    for seed in map(str, range(2)):
        assert tokens(tmp_path / seed) == tokens(alone / seed)
        np.testing.assert_allclose(losses(tmp_path / seed), losses(alone / seed), rtol=0, atol=5e-6)
        result = json.loads((tmp_path / seed / "result.json").read_text())
        assert result["status"] == "finished"


def test_lanes_at_unequal_steps_end_like_runs_alone(alone, configs, tmp_path):
    """Their batches have unlike numbers of rows, and fit together into no bucket."""
    train(configs, tmp_path, stop_after=3)
    train(configs[1:], tmp_path, stop_after=2)
    results, lines = train(configs, tmp_path)
    assert [line for line in lines if "resuming" in line] == [
        f"resuming {tmp_path / seed} at step {step}" for seed, step in (("0", 3), ("1", 5))
    ]
    assert [one["status"] for one in results] == ["finished"] * 2
    for seed in map(str, range(2)):
        assert tokens(tmp_path / seed) == tokens(alone / seed)
        np.testing.assert_allclose(losses(tmp_path / seed), losses(alone / seed), rtol=0, atol=5e-6)


def test_rows_that_fill_a_lane_up_are_those_of_a_batch():
    pairs = TokenPairs(Sequences.of([[5], [6, 7, 8]]), Sequences.of([[9, 9], [9]]))
    few, many = pairs.batch(np.array([1]), (4, 2)), pairs.batch(np.array([0, -1, 0]), (2, 3))
    stacked = stack_batches([few, many], [BatchShape(3, 2, 3), BatchShape(1, 4, 3)])
    wanted = [pairs.batch(np.array(rows), (4, 3)) for rows in ([1, -1, -1], [0, -1, 0])]
    for found, *lanes in zip(stacked, *wanted, strict=True):
        np.testing.assert_array_equal(found, np.stack(lanes))
        assert found.dtype == lanes[0].dtype
    # A bucket that holds them is preferred, since its program is compiled already.
    wide = BatchShape(3, 5, 6)
    assert stack_batches([few, many], [BatchShape(1, 4, 3), wide]).source.shape == (2, 3, 5)


def test_a_pair_that_is_longer_than_a_batch_is_rejected(s2s, experiment_file, tmp_path):
    code, out, err = s2s(
        "train",
        f"--config={experiment_file}",
        f"--workdir={tmp_path}/new",
        "--config.train.tokens_per_batch=3",
    )
    assert (code, out) == (2, "")
    assert err == (
        "s2s: train.tokens_per_batch is 3, and the longest training pair has 4 tokens;"
        " set it to 4 or more, or data.max_tokens to 3 or less\n"
    )
    assert not list(tmp_path.iterdir())
