"""Runs that start from the parameters of another run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.keys import rename_component
from s2s_jax.lab.experiment import load_run, train_and_evaluate
from s2s_jax.lab.runs.checkpoints import Checkpoints
from s2s_jax.lab.runs.named_arrays import flatten
from s2s_jax.lab.runs.run_folder import RunFolder
from s2s_jax.lab.training import workbench
from s2s_jax.lab.training.build import make_experiment
from s2s_jax.lab.training.device_lanes import DeviceLanes
from s2s_jax.lab.training.warm_start import KEY, WarmStarts
from s2s_jax.lab.training.workbench import RunSpec, Workbench
from s2s_jax.models.interface import Params
from s2s_jax.training import TrainState
from tests.lab.run_content import newest, records, state

STEPS = 4


@pytest.fixture(scope="module")
def warm(make_config) -> Callable[..., Any]:
    """Makes the config of a short run that starts from another one."""

    def make(init_from: Path | str, seed: int = 0, **changes: Any) -> Any:
        return make_config(
            "linear",
            **{
                "seed": seed,
                KEY: str(init_from),
                "train.num_steps": STEPS,
                "train.log_every": 1,
                "eval.every": STEPS,
                "eval.num_examples": 0,
            },
            **changes,
        )

    return make


def logged(folder: Path, name: str) -> list[float]:
    return [one[name] for one in records(folder) if name in one]


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return Workbench()


def train(bench: Workbench, config: Any, folder: Path, **options: Any) -> tuple[Any, list[str]]:
    lines: list[str] = []
    [result] = bench.train([RunSpec(config, folder, {}, lines.append)], **options)
    if isinstance(result, LabError):
        raise result
    return result, lines


@pytest.fixture(scope="module")
def firsts(finished, warm, bench, tmp_path_factory) -> Path:
    """A folder of two runs: seed_0 is the shared one, seed_1 started from it in turn."""
    folder = tmp_path_factory.mktemp("firsts")
    (folder / "seed_0").symlink_to(finished)
    train(bench, warm(finished), folder / "seed_1")
    return folder


def begun(monkeypatch: pytest.MonkeyPatch, *runs: tuple[Any, Path]) -> list[TrainState]:
    """The states with which runs would begin as lanes of one program, or one of them alone."""
    found: list[TrainState] = []

    def take(lanes: list[Any], device: DeviceLanes, *_: Any) -> None:
        found.extend(device.progress(number).state for number in range(len(lanes)))

    with monkeypatch.context() as patch:
        patch.setattr(workbench, "train_lanes", take)
        Workbench().train([RunSpec(*one, {}, lambda line: None) for one in runs])
    return found


def assert_same(params: Params, others: Params) -> None:
    jax.tree.map(np.testing.assert_array_equal, params, others)


def test_a_run_begins_with_the_best_parameters_and_a_new_optimiser(
    finished, warm, monkeypatch, tmp_path
):
    [start] = begun(monkeypatch, (warm(finished / "checkpoints", 3), tmp_path / "run"))
    assert_same(start.params, load_run(finished).params)
    assert int(start.step) == 0
    assert start.key == jax.random.key(3)
    assert not any(leaf.any() for leaf in jax.tree.leaves(start.opt_state))


def test_lanes_begin_with_the_parameters_of_their_own_runs(firsts, warm, monkeypatch, tmp_path):
    runs = [(warm(firsts / "seed_{seed}", seed), tmp_path / str(seed)) for seed in range(2)]
    assert len({make_experiment(config).group_key for config, _ in runs}) == 1
    for seed, start in enumerate(begun(monkeypatch, *runs)):
        assert_same(start.params, load_run(firsts / f"seed_{seed}").params)
        provenance = json.loads((tmp_path / str(seed) / "provenance.json").read_text())
        assert provenance["started_from"]["workdir"] == str(firsts / f"seed_{seed}")


@pytest.mark.slow
def test_a_lane_equals_the_run_alone(firsts, warm, bench, tmp_path):
    configs = [warm(firsts / "seed_{seed}", seed) for seed in range(2)]
    lanes = Workbench().train(
        [RunSpec(one, tmp_path / f"lane_{one.seed}", {}, lambda line: None) for one in configs]
    )
    for config, result in zip(configs, lanes, strict=True):
        folder = tmp_path / f"alone_{config.seed}"
        alone, _ = train(bench, config, folder)
        assert isinstance(result, dict), result
        assert result["started_from"] == alone["started_from"]
        np.testing.assert_allclose(
            logged(tmp_path / f"lane_{config.seed}", "train/loss"),
            logged(folder, "train/loss"),
            rtol=0,
            atol=1e-5,
        )


@pytest.mark.slow
def test_averaged_parameters_are_those_that_were_evaluated(
    finished, warm, bench, monkeypatch, tmp_path
):
    """The state of an optimiser that averages also begins with the parameters of the start."""
    config = warm(finished)
    rename_component(config, "train.optimizer", "schedule_free_adamw")
    train(bench, config, tmp_path / "averaged")
    [start] = begun(monkeypatch, (warm(tmp_path / "averaged"), tmp_path / "run"))
    assert_same(start.params, load_run(tmp_path / "averaged").params)
    trained = newest(tmp_path / "averaged")[1]
    assert any(
        not np.array_equal(leaf, trained[name])
        for name, leaf in flatten(start.params, "state.params").items()
    )


def test_training_goes_on_where_the_first_run_ended(firsts, finished):
    """Four updates of a new model would not do, since the first run made twelve."""
    first, second = (
        result_of(one)["metrics"]["eval/gold/nll"] for one in (finished, firsts / "seed_1")
    )
    assert second < first


def test_the_result_says_what_the_run_started_from(firsts, finished):
    first, second = result_of(finished), result_of(firsts / "seed_1")
    started_from = dict(second["started_from"])
    assert len(started_from.pop("parameters")) == 16
    assert started_from == {
        "workdir": str(finished),
        "step": first["best_step"],
        "updates": 12,
        "target_tokens": logged(finished, "train/target_tokens")[-1],
        "wall_seconds": first["wall_seconds"],
    }
    assert second["provenance"]["started_from"] == second["started_from"]
    assert "started_from" not in first
    assert "started_from" not in first["provenance"]


def test_a_chain_of_starts_counts_all_of_them(firsts, finished, warm):
    first, second = result_of(finished), result_of(firsts / "seed_1")
    start = WarmStarts().load(make_experiment(warm(firsts / "seed_1")))
    assert start.record["workdir"] == str(firsts / "seed_1")
    assert start.record["step"] == second["best_step"] == STEPS
    assert start.record["updates"] == 12 + STEPS
    assert start.record["target_tokens"] == sum(
        logged(one, "train/target_tokens")[-1] for one in (finished, firsts / "seed_1")
    )
    total = first["wall_seconds"] + second["wall_seconds"]
    assert start.record["wall_seconds"] == pytest.approx(total, abs=0.11)


def test_a_resumed_run_needs_no_first_run(firsts, copied, warm, tmp_path):
    bench, config, folder = Workbench(), warm(copied), tmp_path / "stopped"
    asked = iter(range(1, 9))
    first, lines = train(bench, config, folder, should_stop=lambda: next(asked) >= 2)
    assert (first["status"], first["steps"]) == ("stopped", 2)
    assert any(line.startswith(f"starts from {copied}, step 12, trained on tsv") for line in lines)
    shutil.rmtree(copied)
    second, lines = train(bench, config, folder)
    assert f"resuming {folder} at step 2" in lines
    assert not any("starts from" in line for line in lines)
    assert state(folder) == state(firsts / "seed_1")
    assert records(folder) == records(firsts / "seed_1")
    assert second["started_from"] == first["started_from"]
    _, lines = train(bench, config, folder)
    assert lines == [f"{folder} is finished already; nothing to do"]


def test_a_run_without_a_checkpoint_begins_again_from_the_same_parameters(
    copied, warm, firsts, monkeypatch, tmp_path
):
    config, folder = warm(copied), tmp_path / "killed"
    begun(monkeypatch, (config, folder))
    WarmStarts().load(make_experiment(config)).check(RunFolder(folder))
    shutil.rmtree(copied)
    shutil.copytree(firsts / "seed_1", copied)
    with pytest.raises(LabError, match=r"was begun from step 12 of .*; the parameters there"):
        train_and_evaluate(config, folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.hidden_size": 4},
            "attention.key_kernel is [8, 8] there and [4, 4] here, bridge.layer_0 is [1, 8, 8]"
            " there and [1, 4, 4] here (and 10 more); set the keys of model as that run did",
        ),
        ({"model.num_encoder_layers": 2}, "is missing there and ["),
        ({"model.attention": "none"}, "] there and missing here"),
        ({"data.source_vocabulary": "whitespace"}, "the source vocabulary is of characters there"),
    ],
)
def test_another_model_is_rejected_before_anything_is_written(
    s2s, experiment_file, finished, tmp_path, changes, message
):
    flags = [f"--config.{key}={value}" for key, value in ({KEY: finished} | changes).items()]
    where = [f"--config={experiment_file}", f"--workdir={tmp_path}/new"]
    for command in (["train"], ["sweep", "--dry-run"]):
        code, out, err = s2s(*command, *where, *flags)
        assert (code, out) == (2, "")
        assert err.startswith(f"s2s: train.init_from={finished}: ")
        assert message in err
        assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_model_with_equal_shapes_that_reads_parameters_otherwise_is_rejected(
    s2s, experiment_file, make_config, bench, tmp_path
):
    small = {"hidden_size": 8, "mlp_size": 8, "num_encoder_layers": 1, "num_decoder_layers": 1}
    config = make_config("linear", **{"train.num_steps": 1, "eval.every": 1})
    rename_component(config, "model", "transformer")
    for name, value in small.items():
        config.model[name] = value
    config.model.num_heads = 2
    train(bench, config, tmp_path / "first")
    sizes = [f"--config.model.{name}={value}" for name, value in small.items()]
    where = [f"--config={experiment_file}", f"--workdir={tmp_path}/new"]
    same = ["--config.model.name=transformer", *sizes, "--config.model.num_heads=2"]
    start = f"--config.{KEY}={tmp_path}/first"
    for key, there, here in (
        ("num_heads", 2, 4),
        ("positions", "sinusoidal", "rotary"),
        ("activation", "relu", "gelu"),
    ):
        code, out, err = s2s("train", *where, *same, start, f"--config.model.{key}={here}")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"first: model.{key} is {there!r} there and {here!r} here" in err
        assert not (tmp_path / "new").exists()


def test_a_folder_without_a_trained_run_is_rejected(
    s2s, experiment_file, copied, monkeypatch, tmp_path
):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.rmtree(copied / "checkpoints")
    for name, message in {
        "~/nowhere": f"{tmp_path}/nowhere holds no run: there is no config.json",
        "~": f"{tmp_path} holds no run: there is no config.json",
        "~nobody-here/run": "~nobody-here has no home folder",
        str(copied): f"there is no checkpoint in {copied}/checkpoints; train first",
    }.items():
        for command in (["train"], ["sweep", "--dry-run"]):
            code, out, err = s2s(
                *command,
                f"--config={experiment_file}",
                f"--workdir={tmp_path}/new",
                f"--config.{KEY}={name}",
            )
            assert (code, out, err.count("\n")) == (2, "", 1)
            assert err.startswith("s2s: train.init_from")
            assert message in err
    (copied / "checkpoints").mkdir()
    code, _, err = s2s(
        "train",
        f"--config={experiment_file}",
        f"--workdir={tmp_path}/new",
        f"--config.{KEY}={copied}",
    )
    assert code == 2
    assert "train.init_from: there is no checkpoint in" in err
    assert not (tmp_path / "new").exists()


@pytest.fixture
def other_data(tmp_path) -> Callable[[str, str], Path]:
    """Writes pairs with other letters."""

    def write(source: str, target: str) -> Path:
        folder = tmp_path / "pairs"
        folder.mkdir(exist_ok=True)
        for split, count in (("train", 40), ("dev", 8), ("test", 8)):
            lines = [
                f"{source[: 2 + n % 2]}\t{' '.join(target[: 2 + n % 3])}\n" for n in range(count)
            ]
            (folder / f"{split}.tsv").write_text("".join(lines))
        return folder

    return write


def test_vocabularies_are_taken_along(finished, warm, monkeypatch, other_data, tmp_path):
    config = warm(finished, **{"data.folder": str(other_data("abcd", "ABCX"))})
    begun(monkeypatch, (config, tmp_path / "run"))
    first = load_run(finished).vocabularies
    assert RunFolder(tmp_path / "run").vocabularies() == first
    assert make_experiment(config).load_task().vocabularies != first


def test_vocabularies_that_do_not_match_the_data_are_rejected(finished, warm, other_data, tmp_path):
    config = warm(finished, **{"data.folder": str(other_data("abc", "XYZ"))})
    with pytest.raises(
        LabError, match=r"do not match the data: 100 % of the target tokens of training are unknown"
    ):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_starts_are_read_once_for_runs_that_share_them(finished, warm, monkeypatch):
    opened: list[str] = []
    look = Checkpoints.shapes
    monkeypatch.setattr(
        Checkpoints, "shapes", lambda self, *rest: opened.append("") or look(self, *rest)
    )
    starts = WarmStarts()
    for seed in range(3):
        starts.check(make_experiment(warm(finished, seed)))
    assert len(opened) == 1


def test_a_sweep_whose_runs_have_begun_goes_on_without_the_first_run(s2s, copied, warm, tmp_path):
    folder = tmp_path / "sweep" / "linear" / "seed_0"
    (folder / "checkpoints" / "2").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(warm(copied).to_dict()))
    shutil.rmtree(copied)
    path = tmp_path / "mine.py"
    path.write_text(
        "from s2s_jax.lab.runs.run_folder import RunFolder\n"
        "def get_config(schedule='linear'):\n"
        f"    return RunFolder({str(folder)!r}).config()\n"
        "def sweep():\n    yield {'schedule.name': 'linear', 'seed': 0}\n"
    )
    where = [f"--config={path}", f"--workdir={tmp_path}/sweep", "--dry-run"]
    code, out, err = s2s("sweep", *where)
    assert (code, err) == (0, "")
    assert "1 run, 1 row" in out
    (folder / "checkpoints" / "2").rmdir()
    code, _, err = s2s("sweep", *where)
    assert code == 2
    assert f"train.init_from: {copied} holds no run" in err
