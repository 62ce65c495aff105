"""`s2s exposure`: what it writes to a run's folder, prints and rejects."""

import io
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from s2s_jax.exposure import Measure
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.figures import to_png
from s2s_jax.lab.config.keys import base_config
from s2s_jax.lab.exposure.exposure import find_runs, measure_runs
from s2s_jax.lab.exposure.plots import exposure_figure
from s2s_jax.lab.exposure.settings import RunExposure, Settings
from s2s_jax.lab.exposure.tables import to_text
from tests.lab.run_content import disown

# Its fixtures train once, not once per worker.
pytestmark = pytest.mark.xdist_group("exposure")

SETTINGS = Settings(min_count=2, num_resamples=20)


def scalar(value: float, unit: str = "share", n: int = 50) -> Measure:
    parts = (np.array(value), np.array(value - 0.01), np.array(value + 0.01), np.array(n))
    return Measure(*parts, axis="", at=None, unit=unit)


def curve(values: list[float], axis: str = "position", left_out: tuple[int, ...] = ()) -> Measure:
    value = np.array(values)
    at = np.arange(1, len(values) + 1)
    n = 100 - at
    return Measure(value, value - 0.01, value + 0.01, n, axis, at, "share", left_out)


def made_run(folder, label: str, seed: int, accuracy: float) -> RunExposure:
    measures = {
        "gold/token_accuracy": scalar(0.9),
        "own/token_accuracy": scalar(accuracy),
        "gap": scalar(0.9 - accuracy),
        "gold/accuracy_by_position": curve([0.95, 0.9, 0.85]),
        "own/accuracy_by_position": curve([0.95, accuracy, accuracy - 0.1], left_out=(4, 5, 7)),
        "recovery/uniform/half_life": scalar(math.inf, "tokens"),
    }
    return RunExposure(folder, label, seed, 100, 50, measures)


@pytest.fixture(scope="module")
def measured(finished, tmp_path_factory):
    """A measured copy of the finished run, with the reported lines."""
    folder = tmp_path_factory.mktemp("measured") / "run"
    shutil.copytree(finished, folder)
    lines: list[str] = []
    runs = measure_runs([folder], SETTINGS, output=folder, report=lines.append)
    return folder, runs[0], lines


def test_the_file_holds_every_measure_with_its_interval_and_count(measured, finished):
    folder, run, lines = measured
    record = json.loads((folder / "exposure.json").read_text())
    assert record["num_sequences"] == 16
    assert record["settings"]["min_count"] == 2
    assert record["step"] == run.step
    assert record["measures"].keys() == run.measures.keys()
    for name, one in record["measures"].items():
        assert set(one) == {"value", "low", "high", "n", "axis", "at", "unit", "left_out"}, name
        assert (one["at"] is None) == (one["axis"] == "")
    # The values from the evaluation during training, for the same checkpoint and split.
    result = json.loads((finished / "result.json").read_text())["metrics"]
    for name in ("gold/token_accuracy", "own/token_accuracy", "gap", "own/exact_match", "gold/nll"):
        assert record["measures"][name]["value"] == pytest.approx(result[f"eval/{name}"], abs=1e-6)
    assert len(lines) == 1


def test_tensorboard_shows_curves_over_positions_and_a_picture(measured):
    folder, run, _ = measured
    events = EventAccumulator(str(folder / "exposure"), size_guidance={"tensors": 0}).Reload()
    tag = "exposure/gold/accuracy_by_position"
    points = events.Tensors(tag)
    curve = run.measures["gold/accuracy_by_position"]
    assert [point.step for point in points] == curve.at.tolist()
    values = [point.tensor_proto.float_val[0] for point in points]
    assert values == pytest.approx((100 * curve.value).tolist(), abs=1e-4)  # in percent
    (picture,) = events.Tensors("exposure/curves")
    assert picture.tensor_proto.string_val[2].startswith(b"\x89PNG")
    (value,) = events.Tensors("exposure/gap")
    assert value.step == run.step


@pytest.mark.slow
def test_measuring_again_changes_nothing_and_duplicates_nothing(measured, snapshot):
    folder, _, _ = measured
    before = snapshot(folder)
    measure_runs([folder], SETTINGS, output=folder, report=lambda line: None)
    after = snapshot(folder)
    same = [name for name in before if "events.out" not in name]
    assert same == [name for name in after if "events.out" not in name]
    assert all(before[name] == after[name] for name in same)
    assert sum("exposure/events.out" in name for name in after) == 1


def test_the_table_and_the_picture_of_one_run(measured):
    folder, run, _ = measured
    text = (folder / "exposure.txt").read_text()
    assert text == to_text([run], SETTINGS) + "\n"
    first = text.splitlines()[0].split()
    assert first == ["prefixes", "inverse_sigmoid", "(n=1)"]
    gold, own = text.splitlines()[1:3]
    assert gold.startswith("token accuracy (%)")
    assert " gold " in gold
    assert own.split()[0] == "own"
    assert "over 16 sequences of the dev split" in text
    pixels = np.asarray(Image.open(folder / "exposure.png").convert("L"))
    assert pixels.std() > 5


def test_seeds_are_aggregated_and_schedules_are_side_by_side(tmp_path):
    runs = [
        made_run(tmp_path, "teacher_forcing", 0, 0.70),
        made_run(tmp_path, "teacher_forcing", 1, 0.74),
        made_run(tmp_path, "linear", 0, 0.8),
    ]
    text = to_text(runs, Settings()).splitlines()
    assert text[0].split() == ["prefixes", "teacher_forcing", "(n=2)", "linear", "(n=1)"]
    own = next(line for line in text if line.split()[:1] == ["own"])
    # t(0.975, 1) = 12.706; s = 0.02828 -> 12.706 * 0.02828 / sqrt(2) = 0.2541
    assert own.split() == ["own", "72.00", "±", "25.41", "80.00", "[79.00,", "81.00]"]
    assert "half the 95 % t-interval over seeds" in text[-1]
    half_life = next(line for line in text if line.startswith("half-life"))
    assert "never" in half_life
    figure = exposure_figure(runs)
    assert figure is not None
    assert Image.open(io.BytesIO(to_png(figure))).width > 300
    (schedules,), kinds = figure.legends, figure.axes[0].get_legend()
    assert [text.get_text() for text in schedules.get_texts()] == ["teacher_forcing", "linear"]
    assert kinds is not None
    assert [text.get_text() for text in kinds.get_texts()] == ["gold prefixes", "own prefixes"]


@pytest.mark.parametrize("count", [2, 5])
def test_long_labels_are_never_cut_off(tmp_path, count):
    keys = "dropout=0.1, coin=sequence, feed=argmax, hidden_size=384, num_steps=34000"
    labels = [f"inverse_sigmoid, {keys}, batch_size={number}" for number in range(count)]
    runs = [made_run(tmp_path, label, 0, 0.8) for label in labels]
    lines = to_text(runs, Settings()).splitlines()
    assert max(map(len, lines)) < 40 + 26 * count
    assert all(" ".join(lines).count(part) == count for part in keys.split(", "))
    figure = exposure_figure(runs)
    assert figure is not None
    (legend,) = figure.legends
    assert len(legend.get_texts()) == count
    box = legend.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def test_bins_without_enough_sequences_are_named(tmp_path):
    text = to_text([made_run(tmp_path, "linear", 0, 0.8)], Settings())
    assert "Left out because of too few sequences: position 4-5, 7." in text


def test_a_sweep_stands_for_its_finished_runs_and_others_are_reported(tmp_path, monkeypatch):
    for name, status in (
        ("exponential/seed_0", None),
        ("linear/seed_0", "stopped"),
        ("linear/seed_1", "finished"),
        ("linear/seed_2", "failed"),
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").touch()
        if status:
            error = {"error": "the loss is NaN"} if status == "failed" else {}
            config = {"seed": 0, "data": {"name": "tsv"}, "schedule": {"name": "linear"}}
            rest = {"config": config, "steps": 3, "metrics": {}, "wall_seconds": 1.0}
            result = json.dumps({"status": status} | error | rest)
            (tmp_path / name / "result.json").write_text(result)
    lines: list[str] = []
    finished, stopped = tmp_path / "linear/seed_1", tmp_path / "linear/seed_0"
    assert find_runs([tmp_path], lines.append) == [finished]
    unfinished = f"  {tmp_path}/exponential/seed_0: has not finished: there is no result.json"
    failed = f"  {tmp_path}/linear/seed_2: its status is failed: the loss is NaN"
    assert lines == [
        "Left out (3):", unfinished, f"  {stopped}: its status is stopped", failed
    ]  # fmt: skip
    # A named run stands for itself, and a folder counts once, however its path is written.
    lines.clear()
    monkeypatch.chdir(tmp_path)
    found = find_runs([stopped, tmp_path, "linear/seed_0", "."], lines.append)
    assert found == [stopped, finished]
    assert lines == ["Left out (2):", unfinished, failed]
    shutil.rmtree(finished)
    with pytest.raises(LabError, match=r"no finished runs .*; .*seed_0: has not finished: .*;"):
        find_runs([tmp_path], lines.append)


@pytest.fixture
def copy_run(finished, tmp_path):
    """Copies the finished run with another config; `changes` is by dotted key."""

    def copy(name, **changes):
        folder = Path(shutil.copytree(finished, tmp_path / "runs" / name))
        config = json.loads((folder / "config.json").read_text())
        for key, value in changes.items():
            *sections, last = key.split(".")
            section = config
            for one in sections:
                section = section[one]
            section[last] = value
        (folder / "config.json").write_text(json.dumps(config))
        disown(folder)
        return folder

    return copy


FEW = ("--measures=outputs", "--min-count=2", "--num-resamples=10")


def test_experiments_that_differ_are_never_averaged_as_seeds(s2s, copy_run):
    token = copy_run("token")
    sequence = [copy_run(f"{n}", seed=n, **{"rollout.coin": "sequence"}) for n in (1, 2)]
    code, out, err = s2s("exposure", token, *sequence, *FEW)
    assert (code, err) == (0, "")
    first, second = (line.split() for line in out.splitlines()[3:5])
    assert first == ["prefixes", "inverse_sigmoid,", "inverse_sigmoid,"]
    assert second == ["coin=sequence", "(n=2)", "coin=token", "(n=1)"]
    record = json.loads((token / "exposure.json").read_text())
    assert record["schedule"] == "inverse_sigmoid, coin=token"


def test_runs_of_other_data_or_switches_are_never_averaged_as_seeds(s2s, copy_run):
    runs = [copy_run("a"), copy_run("b", seed=1), copy_run("c", seed=2)]
    path = runs[2] / "provenance.json"
    provenance = json.loads(path.read_text())
    provenance["data"]["train"] = "0123456789abcdef"
    provenance["switches"]["jax_enable_x64"] = True
    path.write_text(json.dumps(provenance))
    (runs[1] / "provenance.json").unlink()  # as before it was recorded
    code, out, err = s2s("exposure", *runs, *FEW)
    assert (code, err) == (0, "")
    assert "(n=2)" not in out
    assert "jax_enable_x64=true" in out
    assert out.count("other data (train): the content has changed since") == 1
    record = json.loads((runs[2] / "exposure.json").read_text())
    assert record["provenance"]["switches"]["jax_enable_x64"] is False


def test_seeds_of_one_experiment_are_averaged_however_they_were_logged(s2s, copy_run):
    changes = {"seed": 1, "train.log_every": 7, "eval.num_examples": 0}
    code, out, err = s2s("exposure", copy_run("a"), copy_run("b", **changes), *FEW)
    assert (code, err) == (0, "")
    assert re.search(r"prefixes +inverse_sigmoid \(n=2\)\n", out)
    assert "half the 95 % t-interval over seeds" in out


def test_runs_that_cannot_be_shown_together_are_rejected_in_one_line(s2s, copy_run, snapshot):
    one, again = copy_run("one"), copy_run("again", **{"train.log_every": 7})
    other = copy_run("other", data=base_config("reverse").data.to_dict())
    for second, message in (
        (again, f"{again} and {one} are the same experiment: inverse_sigmoid with seed 0"),
        (other, f"the runs are of different tasks: reverse ({other}), tsv ({one})"),
    ):
        before = snapshot(one.parent)
        code, out, err = s2s("exposure", one, second, *FEW)
        assert (code, out) == (2, "")
        assert message in err
        assert len(err.splitlines()) == 1
        assert snapshot(one.parent) == before


def test_only_some_measures(copied, s2s):
    code, out, err = s2s(
        "exposure", copied, "--measures=outputs", "--min-count=2", "--num-resamples=10"
    )
    assert (code, err) == (0, "")
    measures = json.loads((copied / "exposure.json").read_text())["measures"]
    assert set(measures) == {
        "gold/exact_match", "own/exact_match", "own/length_ratio", "own/no_eos_rate",
        "gold/repetition", "own/repetition",
    }  # fmt: skip
    assert "hazard" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--measures=truth"], "need a task whose distribution is known"),
        (["--measures=trooth"], "no measures 'trooth'"),
        (["--split=tset"], "no split 'tset'"),
        (["--min-count=1000"], "min_count is 1000, but decoder states are compared for only 512"),
        (["--min-count=1000", "--measures=states"], "leave states out (--measures=positions,"),
        (["--min-count=1000", "--measures=positions,recovery"], "no position has min_count = 1000"),
        (["--min-count=0"], "--min-count is 0; it must be in"),
        (["--num-resamples=1"], "--num-resamples is 1; it must be in"),
        (["--max-examples=-1"], "--max-examples is -1; it must be in"),
        (["--checkpoint=newest"], "invalid choice"),
    ],
)
def test_what_cannot_be_measured_is_rejected_in_one_line(copied, s2s, snapshot, arguments, message):
    before = snapshot(copied)
    code, _, err = s2s("exposure", copied, *arguments)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert snapshot(copied) == before


def test_an_invalid_output_folder_is_rejected_before_anything_is_measured(
    copied, s2s, snapshot, tmp_path, monkeypatch
):
    target = "s2s_jax.lab.exposure.exposure._measure"
    monkeypatch.setattr(target, lambda *_: pytest.fail("it measures"))
    (tmp_path / "file").write_text("")
    before = snapshot(tmp_path)
    for output, message in (
        (tmp_path / "no" / "x", "No such file or directory"),
        (tmp_path / "file", "Not a directory"),
        (tmp_path / "file" / "x", "Not a directory"),
    ):
        code, _, err = s2s("exposure", copied, f"--output={output}")
        assert code == 2
        assert err.startswith(f"s2s: cannot write {output}")
        assert err.endswith(f": {message}\n")
        assert len(err.splitlines()) == 1
    assert snapshot(tmp_path) == before


def test_a_run_that_cannot_be_opened_stops_the_others(copied, s2s, snapshot, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for other, message in ((empty, "holds no run"), (tmp_path / "nowhere", "holds no run")):
        before = snapshot(copied)
        code, out, err = s2s("exposure", copied, other)
        assert (code, out) == (2, "")
        assert message in err
        assert snapshot(copied) == before
    shutil.rmtree(copied / "checkpoints")
    code, out, err = s2s("exposure", copied)
    assert (code, out) == (2, "")
    assert "checkpoint" in err
