"""The files that a run writes to its folder, and which runs the folder accepts."""

# TensorBoard's message classes are created at import, so a type checker does not see them.
# pyright: reportAttributeAccessIssue=false

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from s2s_jax.data.batching import Sequences, TokenPairs, TrainingBatches
from s2s_jax.data.vocabularies import load_vocabulary
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.metric_catalog import CATALOG
from s2s_jax.lab.base.versions import versions
from s2s_jax.lab.experiment import load_run, train_and_evaluate
from s2s_jax.lab.runs.run_folder import RunFolder
from s2s_jax.lab.training import programs
from s2s_jax.lab.training.build import make_experiment
from s2s_jax.lab.training.lane import target_tokens
from s2s_jax.lab.training.programs import ProgramCache
from s2s_jax.lab.training.workbench import RunSpec, Workbench, _Group
from s2s_jax.schedules import inverse_sigmoid

LOGGED = {
    "train/loss",
    "train/nll",
    "train/token_accuracy",
    "train/teacher_prob",
    "train/gold_share",
    "train/fed_error_rate",
    "train/gradient_norm",
    "train/tokens_per_second",
    "train/target_tokens",
    "train/seconds",
}
EVALUATED = {
    "gold/nll",
    "gold/token_accuracy",
    "own/token_accuracy",
    "own/exact_match",
    "own/wer",
    "own/per",
    "own/hazard",
    "own/post_error_rate",
    "gap",
}


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_files_of_a_run(finished):
    names = {path.name for path in finished.iterdir()}
    events = {name for name in names if name.startswith("events.out.tfevents.")}
    assert len(events) == 1
    assert names - events == {
        "config.json",
        "provenance.json",
        "metrics.jsonl",
        "result.json",
        "source_vocabulary.json",
        "target_vocabulary.json",
        "predictions_test.jsonl",
        "checkpoints",
        "checkpoints.lock",
    }
    best = json.loads((finished / "result.json").read_text())["best_step"]
    kept = {path.name for path in (finished / "checkpoints").iterdir()}
    assert kept == {"12", str(best)}


def test_the_result(finished, make_config):
    result = json.loads((finished / "result.json").read_text())
    config = json.loads((finished / "config.json").read_text())
    needed = {"status", "config", "overrides", "steps", "metrics", "versions", "wall_seconds"}
    assert set(result) == needed | {
        "best_step",
        "scores",
        "score_metrics",
        "provenance",
        "data",
    }
    assert result["provenance"] == json.loads((finished / "provenance.json").read_text())
    assert (result["status"], result["steps"]) == ("finished", 12)
    assert result["config"] == config == make_config().to_dict()
    assert result["versions"] == versions()
    assert result["wall_seconds"] > 0
    assert set(result["metrics"]) == {
        f"{split}/{name}" for split in ("eval", "test") for name in EVALUATED
    }


def test_the_final_metrics_are_those_of_the_best_checkpoint(finished):
    result = json.loads((finished / "result.json").read_text())
    evaluations = {one["step"]: one for one in lines_of(finished) if "eval/gap" in one}
    lowest = min(one["eval/own/wer"] for one in evaluations.values())
    best = max(step for step, one in evaluations.items() if one["eval/own/wer"] == lowest)
    assert result["best_step"] == best
    for name in EVALUATED:
        assert result["metrics"][f"eval/{name}"] == evaluations[best][f"eval/{name}"]


def test_what_is_logged_and_when(finished):
    lines = lines_of(finished)
    assert [one["step"] for one in lines] == [0, 5, 6, 6, 10, 12, 12, 12]
    assert set(lines[0]) == {"step", "train/compile_seconds"}
    assert lines[0]["train/compile_seconds"] > 0
    for one in lines:
        if "train/loss" in one:
            assert set(one) == LOGGED | {"step"}
            assert all(math.isfinite(value) for value in one.values())
            assert 0 <= one["train/gold_share"] <= 1
            assert 0 <= one["train/fed_error_rate"] <= 1
            assert one["train/tokens_per_second"] > 0
    evaluations = [one for one in lines if "eval/gap" in one]
    assert [one["step"] for one in evaluations] == [6, 12]
    for one in evaluations:
        assert set(one) == {"step"} | {f"eval/{name}" for name in EVALUATED}
        assert one["eval/gap"] == pytest.approx(
            one["eval/gold/token_accuracy"] - one["eval/own/token_accuracy"]
        )
    assert set(lines[-1]) == {"step"} | {f"test/{name}" for name in EVALUATED}


def test_target_tokens_are_those_of_all_batches_so_far(finished, make_config):
    config = make_config()
    task = make_experiment(config).load_task(RunFolder(finished).vocabularies())
    batches = task.training_batches(config.data.num_buckets, config.train.batch_size, config.seed)
    logged = {
        one["step"]: one["train/target_tokens"]
        for one in lines_of(finished)
        if "train/target_tokens" in one
    }
    assert list(logged) == [5, 6, 10, 12]
    for step, count in logged.items():
        assert count == sum(batches[one].target_mask.sum() for one in range(step))


def test_a_resumed_run_counts_the_target_tokens_of_all_its_epochs():
    target = Sequences.of([[5] * length for length in range(1, 8)])
    batches = TrainingBatches(TokenPairs(target, target), [(4, 4), (8, 8)], 2, 0)
    assert batches.num_batches == 4
    for num_steps in range(11):
        wanted = sum(int(batches[step].target_mask.sum()) for step in range(num_steps))
        assert target_tokens(batches, num_steps) == wanted


def test_teacher_prob_is_logged_as_the_schedule_has_it(finished, make_config):
    schedule = cast("partial[Any]", make_experiment(make_config()).schedule)
    wanted = inverse_sigmoid(reach_teacher_prob=0.05, reach_step=12)
    assert (schedule.func, schedule.keywords) == (wanted.func, wanted.keywords)
    logged = {one["step"]: one for one in lines_of(finished) if "train/loss" in one}
    begin = 0
    for end, one in logged.items():
        wanted = np.mean([float(schedule(step)) for step in range(begin, end)])
        assert one["train/teacher_prob"] == pytest.approx(wanted, abs=1e-6)
        begin = end
    assert begin == 12


def test_tensorboard_has_scalars_texts_pictures_and_hyperparameters(finished):
    accumulator = EventAccumulator(str(finished), size_guidance={"tensors": 0})
    accumulator.Reload()
    shown = {
        tag: {event.step: event.tensor_proto for event in accumulator.Tensors(tag)}
        for tag in accumulator.Tags()["tensors"]
    }
    for one in lines_of(finished):
        for name, value in one.items():
            if name != "step":
                point = shown[name][one["step"]].float_val[0]
                scale = CATALOG.describe(name).scale
                assert point == pytest.approx(scale * value, rel=1e-6), name
    (table,) = shown["eval/examples"][12].string_val
    assert table.decode().count("\n") == 4  # two header lines and num_examples rows
    width, height, png = shown["eval/attention"][12].string_val
    assert png.startswith(b"\x89PNG")
    assert int(width) > 100
    assert int(height) > 100
    content = accumulator.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert started.group_name == "inverse_sigmoid"
    assert started.hparams["schedule"].string_value == "inverse_sigmoid"
    assert started.hparams["hidden_size"].number_value == 8
    assert "seed" not in started.hparams


def test_the_vocabularies_are_those_of_the_training_split(finished, trained):
    assert load_vocabulary(finished / "source_vocabulary.json").encode("fbx")[2] == 3
    source, target = trained.vocabularies.source, trained.vocabularies.target
    assert (len(source), len(target)) == (4 + 6, 4 + 6)
    assert target.decode(target.encode("A F B")) == "A F B"


def test_a_folder_accepts_only_its_own_config(copied, make_config, snapshot):
    before = snapshot(copied)
    RunFolder(copied).check(make_config())
    with pytest.raises(LabError) as refused:
        RunFolder(copied).check(make_config("linear", **{"model.hidden_size": 16, "seed": 1}))
    message = str(refused.value)
    assert "model.hidden_size is 8 there and 16 here" in message
    assert "(and 1 more)" in message
    assert str(copied) in message
    with pytest.raises(LabError, match="seed is 0 there and 3 here"):
        train_and_evaluate(make_config(seed=3), copied, report=print)
    assert snapshot(copied) == before


def test_of_two_simultaneous_starts_the_later_sees_the_config_of_the_first(
    trained, make_config, tmp_path
):
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.check(make_config())
    second.check(make_config(seed=3))
    first.start(make_config(), trained.vocabularies, trained.provenance)
    first.start(make_config(), trained.vocabularies, trained.provenance)
    with pytest.raises(LabError, match="seed is 0 there and 3 here"):
        second.start(make_config(seed=3), trained.vocabularies, trained.provenance)


def test_a_folder_that_cannot_be_a_run(tmp_path, make_config):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(LabError, match="is a file; name a folder"):
        RunFolder(file).check(make_config())
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(LabError, match=r"a result without its config\.json"):
        RunFolder(tmp_path).check(make_config())
    assert file.read_text() == "mine"


def test_files_left_by_a_killed_writer_are_removed_by_the_next_training(
    make_config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Group, "_train", lambda *_: None)
    left = tmp_path / f".result.json.{2**31 - 1}.tmp"
    left.write_text("half")
    Workbench().train([RunSpec(make_config(), tmp_path)])
    assert (tmp_path / "config.json").exists()
    assert not left.exists()


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(LabError, match=r"holds no run: there is no config\.json"):
        load_run(tmp_path)
    assert RunFolder(tmp_path).result() is None
    assert RunFolder(tmp_path).vocabularies() is None
    assert RunFolder(tmp_path).seconds(None) == 0


def test_a_truncated_config_is_named(copied, make_config):
    (copied / "config.json").write_text('{"seed": 0')
    with pytest.raises(LabError, match=r"config\.json is not complete JSON"):
        RunFolder(copied).check(make_config())


def test_a_run_without_its_vocabularies_is_no_trained_run(copied):
    (copied / "target_vocabulary.json").unlink()
    with pytest.raises(LabError, match="vocabularies are missing"):
        load_run(copied)


def test_the_best_and_the_latest_checkpoint_open(finished):
    best, latest = (load_run(finished, which) for which in ("best", "latest"))
    assert latest.step == 12
    assert best.step == json.loads((finished / "result.json").read_text())["best_step"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(latest.params))


@pytest.mark.slow
def test_waiting_for_a_later_program_is_logged_where_it_happened(
    make_config, monkeypatch, tmp_path
):
    asked = []

    class Slow(ProgramCache):
        """Pretends that the compiler takes 1,000 seconds for the second shape."""

        def __getitem__(self, case):
            program = super().__getitem__(case)
            if case not in asked:
                asked.append(case)
                self.seconds_waited += 1000.0 * (len(asked) == 2)
            return program

    monkeypatch.setattr(programs, "ProgramCache", Slow)
    config = make_config(**{"data.num_buckets": 2})
    train_and_evaluate(config, tmp_path / "run", report=lambda line: None)
    assert len(asked) == 2
    waited = {
        one["step"]: one["train/compile_seconds"]
        for one in lines_of(tmp_path / "run")
        if "train/compile_seconds" in one
    }
    (first, before), (second, after) = waited.items()
    assert first == 0
    assert second == 5
    assert 0 < before < 1000 < after
