import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from google.protobuf.json_format import MessageToDict
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata

from s2s_jax.lab.comparison.tensorboard_layouts import address, event_files, remove_others
from s2s_jax.lab.runs.collect import CollectedRuns, FinishedRun
from s2s_jax.lab.runs.names import run_name, trial_of
from s2s_jax.lab.training.session import _hparams


@pytest.fixture
def runs(tmp_path) -> CollectedRuns:
    members = []
    for schedule in ("teacher_forcing", "linear (k=0.5)"):
        for seed in range(2):
            records = [
                {"step": step, "eval/gold/token_accuracy": 0.9, "eval/own/wer": 30.0 + seed + step}
                for step in (10, 20)
            ]
            config = {"schedule": {"name": schedule.split(" ")[0]}, "rollout": {"coin": "token"}}
            members.append(FinishedRun(tmp_path / schedule, schedule, seed, config, {}, records))
    return CollectedRuns(tmp_path, members, [], [])


def written(folder: Path, files: dict[str, bytes]) -> dict[str, EventAccumulator]:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(data)
    return {name: EventAccumulator(str((folder / name).parent)).Reload() for name in files}


def test_curves_over_seeds_and_one_layout(runs, tmp_path):
    events = written(tmp_path, event_files(runs, ["test/own/wer", "test/gap"]))
    assert [Path(name).parent.as_posix() for name in events] == [
        "over_seeds/teacher_forcing",
        "over_seeds/linear_k=0.5",
    ]
    first, second = events.values()
    for part, value in (("mean", 40.5), ("low", 40.0), ("high", 41.0)):
        points = first.Tensors(f"over_seeds/own/wer/{part}")
        assert [(point.step, point.tensor_proto.float_val[0]) for point in points] == [
            (10, value),
            (20, value + 10),
        ]
    tag = "custom_scalars__config__"
    assert tag not in second.Tags()["tensors"]
    layout = layout_pb2.Layout.FromString(  # type: ignore[attr-defined]  # a generated module
        first.Tensors(tag)[0].tensor_proto.string_val[0]
    )
    margins, against = layout.category
    series = [chart.margin.series[0] for chart in margins.chart]
    assert "over_seeds/own/wer/high" in [one.upper for one in series]
    assert any(re.match(against.chart[0].multiline.tag[0], "train/teacher_prob") for _ in "x")
    experiment = hparams_metadata.parse_experiment_plugin_data(
        first.summary_metadata["_hparams_/experiment"].plugin_data.content
    )
    assert [info.name.tag for info in experiment.metric_infos] == ["test/own/wer", "test/gap"]
    shown = [info.display_name for info in experiment.metric_infos]
    assert shown == ["WER (%), test", "gap (%), test"]
    for part in ("mean", "low", "high"):  # in percent, like WER
        (point, _) = first.Tensors(f"over_seeds/gold/token_accuracy/{part}")
        assert point.tensor_proto.float_val[0] == pytest.approx(90)
    assert [chart.title for chart in margins.chart] == [
        "token accuracy (%), gold prefixes: mean, lowest and highest seed",
        "token accuracy (%), own prefixes: mean, lowest and highest seed",
        "accuracy gap (%): mean, lowest and highest seed",
        "word error rate (%), own prefixes: mean, lowest and highest seed",
    ]
    assert against.chart[2].title == "word error rate (%), own prefixes"
    infos = {info.name: info for info in experiment.hparam_infos}
    values = [one.string_value for one in infos["schedule"].domain_discrete.values]
    assert values == ["linear", "teacher_forcing"]


def hparam_columns(files: dict[str, bytes], folder: Path) -> dict[str, tuple[str, list]]:
    """Column -> (type, values) of the only table in the files."""
    first = next(iter(written(folder, files).values()))
    content = first.summary_metadata["_hparams_/experiment"].plugin_data.content
    experiment = hparams_metadata.parse_experiment_plugin_data(content)
    return {
        info.name: (MessageToDict(info)["type"], MessageToDict(info)["domainDiscrete"])
        for info in experiment.hparam_infos
    }


def test_what_a_sweep_varies_has_a_column_with_the_values_of_its_rows(make_config, tmp_path):
    """The values are written as in the runs' own entries, so that the table finds them."""
    members, entered = [], []
    for schedule, size, rate, tie in (
        ("linear", 8, 0.01, True),
        ("linear", 4, 0.02, False),
        ("exponential", 4, 0.01, True),
    ):
        varied = {
            "model.hidden_size": size, "train.learning_rate": rate, "model.tie_embeddings": tie,
            "model.cell": "gru", "schedule.floor": 0.25,
        }  # fmt: skip
        overrides = {"schedule.name": schedule, "seed": 0, "train.num_steps": 12, **varied}
        folder = tmp_path / run_name(schedule, 0, varied)
        config = make_config(schedule, **varied)
        records = [{"step": 1, "eval/gap": 0.1}]
        # Through JSON, as when it is read.
        restored = json.loads(json.dumps(config.to_dict()))
        members.append(
            FinishedRun(folder, folder.parent.name, 0, restored, {}, records, (), overrides)
        )
        entered.append(_hparams(config, trial_of(folder, schedule, overrides)[1]))
    columns = hparam_columns(event_files(CollectedRuns(tmp_path, members, [], []), []), tmp_path)
    assert columns == {
        "schedule": ("DATA_TYPE_STRING", ["exponential", "linear"]),
        "coin": ("DATA_TYPE_STRING", ["token"]),
        "feed": ("DATA_TYPE_STRING", ["sample"]),
        "hidden_size": ("DATA_TYPE_FLOAT64", [4.0, 8.0]),
        "learning_rate": ("DATA_TYPE_FLOAT64", [0.01, 0.02]),
        "model.tie_embeddings": ("DATA_TYPE_BOOL", [False, True]),
        "model.cell": ("DATA_TYPE_STRING", ["gru"]),
        "schedule.floor": ("DATA_TYPE_FLOAT64", [0.25]),
    }
    for name, (_, values) in columns.items():
        assert {one[name] for one in entered} == set(values), name


def test_a_column_may_hold_numbers_and_none_and_tuples(tmp_path):
    members = [
        FinishedRun(
            tmp_path / f"linear,k={k},initial=x" / "seed_0", f"linear, k={k}", 0,
            {"schedule": {"name": "linear", "k": k}, "data": {"initial": [0.5, k]}}, {},
            [{"step": 1, "eval/gap": 0.1}], (),
            {"schedule.k": k, "data.initial": (0.5, k), "seed": 0},
        )
        for k in (0.9, None)
    ]  # fmt: skip
    columns = hparam_columns(event_files(CollectedRuns(tmp_path, members, [], []), []), tmp_path)
    assert columns["schedule.k"] == ("DATA_TYPE_STRING", [0.9, "None"])
    assert columns["data.initial"] == ("DATA_TYPE_STRING", ["(0.5, 0.9)", "(0.5, None)"])


def test_the_same_runs_give_the_same_bytes(runs):
    assert event_files(runs, ["test/own/wer"]) == event_files(runs, ["test/own/wer"])


def test_runs_without_curves_leave_no_empty_ones(runs):
    bare = CollectedRuns(runs.folder, [FinishedRun(runs.folder, "linear", 0, {}, {}, [])], [], [])
    assert event_files(bare, []) == {}


def test_only_files_from_comparisons_are_removed(tmp_path):
    names = [
        "over_seeds/old/events.out.tfevents.0000000000.compare",
        "linear/events.out.tfevents.1",
    ]
    names += ["over_seeds/new/events.out.tfevents.0000000000.compare", "over_seeds/old2/notes.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
    remove_others(tmp_path, names[2:3])
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert left == set(names[1:])
    assert not (tmp_path / "over_seeds" / "old").exists()


def test_runs_of_one_schedule_have_one_colour():
    (group,) = parse_qs(urlsplit(address(7000)).query)["runColorGroup"]
    kind, _, pattern = group.partition(":")
    assert kind == "regex"
    names = ["linear/seed_0", "linear/seed_1", "over_seeds/linear", "linear/seed_0/exposure"]
    assert {re.search(pattern, name).groups() for name in names} == {("linear",)}  # type: ignore[union-attr]  # a None fails here, too
    assert address(7000).startswith("http://localhost:7000/?")
