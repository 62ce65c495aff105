"""What a result depends on besides its config, and what is rejected if that has changed."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.experiment import load_run, train_and_evaluate
from s2s_jax.lab.runs.run_folder import RunFolder
from s2s_jax.lab.sweeps.assignment import Assignment
from s2s_jax.lab.sweeps.groups import make_groups
from s2s_jax.lab.sweeps.plan import PlannedRun, plan_sweep
from s2s_jax.lab.training.workbench import RunSpec, Workbench


@pytest.fixture
def moved(copied, make_config, tmp_path):
    """A copy of the finished run whose data have moved unchanged: folder, config, data."""
    config = make_config()
    pairs = Path(shutil.copytree(config.data.folder, tmp_path / "pairs"))
    config.data.folder = str(pairs)
    (copied / "config.json").write_text(json.dumps(config.to_dict()))
    return copied, config, pairs


def change(pairs: Path, split: str) -> None:
    path = pairs / f"{split}.tsv"
    path.write_text(path.read_text() + "abc\tA B B\n")


def train(folder, config, **options):
    lines: list[str] = []
    result = train_and_evaluate(config, folder, report=lines.append, **options)
    return result, lines


def test_a_finished_run_whose_data_have_changed_is_rejected(moved, snapshot):
    folder, config, pairs = moved
    _, lines = train(folder, config)
    assert lines == [f"{folder} is finished already; nothing to do"]
    change(pairs, "test")
    before = snapshot(folder)
    with pytest.raises(LabError, match=r"holds a run of other data \(test\)"):
        train(folder, config)
    (pairs / "test.tsv").write_text("not two columns\n")  # and is not taken for missing data
    with pytest.raises(LabError, match=r"holds a run of other data \(test\)"):
        train(folder, config)
    assert snapshot(folder) == before


def test_a_finished_run_whose_data_are_gone_is_still_finished(moved):
    folder, config, pairs = moved
    shutil.rmtree(pairs)
    result, lines = train(folder, config)
    assert result["status"] == "finished"
    assert lines[0].startswith(f"cannot tell whether the data of {folder} have changed: ")
    assert lines[1:] == [f"{folder} is finished already; nothing to do"]


def test_a_run_does_not_continue_with_other_data(moved, snapshot):
    folder, config, pairs = moved
    (folder / "result.json").unlink()
    change(pairs, "dev")
    before = snapshot(folder)
    with pytest.raises(LabError, match=r"holds a run of other data \(dev\)"):
        train(folder, config)
    assert snapshot(folder) == before


def test_a_sweep_rejects_a_finished_run_of_other_data(moved, experiment_file, tmp_path):
    folder, _, pairs = moved
    own = tmp_path / "one.py"
    own.write_text(
        f"from s2s_jax.lab.config.experiment_file import load_experiment\n"
        f"def get_config(schedule='inverse_sigmoid'):\n"
        f"    config = load_experiment({str(experiment_file)!r}).get_config(schedule)\n"
        f"    config.data.folder = {str(pairs)!r}\n"
        f"    return config\n"
        f"def sweep():\n"
        f"    yield {{'schedule.name': 'inverse_sigmoid', 'seed': 0}}\n"
    )
    shutil.copytree(folder, tmp_path / "sweep/inverse_sigmoid/seed_0")
    said: list[str] = []
    (one,) = plan_sweep(str(own), [], tmp_path / "sweep", report=said.append)
    assert (one.status, said) == ("finished", [])
    change(pairs, "train")
    with pytest.raises(LabError, match=r"holds a run of other data \(train\)"):
        plan_sweep(str(own), [], tmp_path / "sweep")
    shutil.rmtree(pairs)
    (one,) = plan_sweep(str(own), [], tmp_path / "sweep", report=said.append)
    assert (one.status, len(said)) == ("finished", 1)


def test_evaluate_says_that_the_data_have_changed_and_records_them(moved, s2s):
    folder, _, pairs = moved
    trained_on = RunFolder(folder).provenance()
    assert trained_on is not None
    for changed in (False, True):
        if changed:
            change(pairs, "test")
        code, _, err = s2s("evaluate", folder, "--split=test")
        said = "s2s: the run was trained with other data (test): the content has changed since\n"
        origin = f"best checkpoint: {load_run(folder).origin}\n"
        assert (code, err) == (0, (said if changed else "") + origin)
        record = json.loads((folder / "evaluation_test.json").read_text())["provenance"]
        assert (record["data"] == trained_on.data) != changed
        assert record["vocabularies"] == trained_on.vocabularies


def swap_two_tokens(path: Path) -> None:
    content = json.loads(path.read_text())
    content["tokens"][:2] = content["tokens"][1::-1]
    path.write_text(json.dumps(content))


def test_a_checkpoint_by_itself_detects_an_altered_vocabulary(copied, make_config):
    swap_two_tokens(copied / "target_vocabulary.json")
    for name in ("provenance.json", "result.json"):
        (copied / name).unlink()
    for use in (lambda: train(copied, make_config()), lambda: load_run(copied)):
        with pytest.raises(LabError, match="was saved with another target vocabulary"):
            use()
    assert not (copied / "provenance.json").exists()


def test_a_checkpoint_by_itself_detects_other_data(moved):
    folder, config, pairs = moved
    path = folder / "provenance.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"data": record["data"] | {"dev": 16 * "0"}}))
    with pytest.raises(LabError, match="was saved with other data than the run's folder has"):
        load_run(folder)
    change(pairs, "dev")
    for name in ("provenance.json", "result.json"):
        (folder / name).unlink()
    with pytest.raises(LabError, match="was saved with other data than the run's folder has"):
        train(folder, config)


@pytest.mark.parametrize("side", ["source", "target"])
def test_an_altered_vocabulary_is_rejected_by_every_command(copied, make_config, s2s, side):
    swap_two_tokens(copied / f"{side}_vocabulary.json")
    (copied / "in").write_text("ab\n")
    with pytest.raises(LabError, match=f"{side}_vocabulary.json is not the vocabulary"):
        train(copied, make_config())
    for command in ("evaluate", "exposure", "decode"):
        more = [f"--input={copied / 'in'}"] if command == "decode" else []
        code, out, err = s2s(command, copied, *more)
        assert (code, out) == (2, "")
        assert "vocabulary" in err
        assert len(err.splitlines()) == 1


def test_a_checkpoint_detects_an_altered_config(copied):
    config = json.loads((copied / "config.json").read_text())
    config["data"]["folder"] = "elsewhere"  # the location of the data is not their content
    (copied / "config.json").write_text(json.dumps(config))
    assert load_run(copied).step
    config["model"]["dropout"] = 0.5
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(LabError, match="was saved with another config than the run's folder has"):
        load_run(copied)


def test_a_run_is_finished_only_after_its_last_update(copied, make_config):
    run, config, path = RunFolder(copied), make_config(), copied / "result.json"
    result = json.loads(path.read_text())
    assert run.finished(config) == result
    path.write_text(json.dumps(result | {"steps": 6}))
    assert run.finished(config) is None
    path.write_text(json.dumps(result))
    (copied / "checkpoints" / "12").rename(copied / "checkpoints" / "7")
    assert run.finished(config) is None
    shutil.rmtree(copied / "checkpoints")  # to save space
    assert run.finished(config) == result


def test_lost_records_are_reported_when_a_run_continues(copied, make_config):
    path = copied / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"steps": 6}))
    path = copied / "provenance.json"
    provenance = json.loads(path.read_text())
    provenance["versions"]["jax"] = "0.1"
    path.write_text(json.dumps(provenance))
    log = copied / "metrics.jsonl"
    kept = [one for one in log.read_text().splitlines(keepends=True) if '"step": 6' not in one]
    log.write_text("".join(kept[:-1]))
    result, lines = train(copied, make_config())
    assert result["status"] == "finished"
    assert lines[0].startswith(f"{copied} says that it is finished, but not after its 12 updates")
    assert f"{log} lacks what was logged at step 6" in lines
    assert (
        f"{copied} was started with jax 0.1, now {jax.__version__}: the result is of both" in lines
    )
    assert result["provenance"]["versions"]["jax"] == "0.1"
    assert result["versions"]["jax"] == jax.__version__


def test_a_run_of_an_earlier_version_continues_and_says_that_its_data_are_unknown(
    copied, make_config
):
    for name in ("provenance.json", "result.json"):
        (copied / name).unlink()
    result, lines = train(copied, make_config())
    assert (result["status"], result["provenance"]) == ("finished", None)
    assert f"{copied} did not record its data and JAX's switches; they are not compared" in lines


def test_a_killed_start_does_not_affect_the_next(trained, make_config, tmp_path):
    """The vocabularies may be of data that have changed since."""
    assert trained.provenance is not None
    (tmp_path / "target_vocabulary.json").write_text("of another time")
    assert RunFolder(tmp_path).vocabularies() is None
    RunFolder(tmp_path).start(make_config(), trained.vocabularies, trained.provenance)
    assert RunFolder(tmp_path).vocabularies() == trained.vocabularies


@pytest.fixture(params=["jax_enable_x64", "jax_default_prng_impl"])
def switched(request):
    values = {"jax_enable_x64": True, "jax_default_prng_impl": "rbg"}
    name, old = request.param, getattr(jax.config, request.param)
    jax.config.update(name, values[name])
    yield name
    jax.config.update(name, old)


def test_with_other_switches_a_run_opens_but_does_not_continue(
    finished, trained, make_config, switched
):
    with pytest.raises(LabError, match=f"other JAX switches: {switched} is "):
        train(finished, make_config())
    opened = load_run(finished)
    for one, other in zip(
        jax.tree.leaves(opened.params), jax.tree.leaves(trained.params), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(one, np.float32), np.asarray(other))


def test_lanes_with_other_random_numbers_are_rejected(make_config, tmp_path):
    plan = [PlannedRun(f"{n}", Assignment("a.py", Path()), "waiting", seed=n) for n in range(2)]
    runs = [RunSpec(make_config(seed=n), tmp_path / str(n)) for n in range(2)]
    assert make_groups(plan, 2)
    with jax.default_prng_impl("rbg"):
        assert make_groups(plan, 1)
        for refuse in (lambda: make_groups(plan, 2), lambda: Workbench().train(runs)):
            with pytest.raises(LabError, match=r"jax_default_prng_impl is 'rbg'.*--population"):
                refuse()
    assert list(tmp_path.iterdir()) == []
