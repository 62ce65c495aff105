import csv
import json
import math
import shutil

import numpy as np
import pytest
import scipy.stats

from s2s_jax.lab import tables
from s2s_jax.lab.comparison import collect, compare, metric_names, report
from s2s_jax.lab.errors import LabError
from s2s_jax.lab.statistics import estimate, t_half_width

WER = {"teacher_forcing": [30.0, 30.5, 31.3], "linear": [32.0, 32.2, 32.7]}


def write_run(root, schedule, seed, metrics, folder=None, **changes):
    config = {
        "seed": seed,
        "data": {"name": "cmudict"},
        "schedule": {"name": schedule, "k": None},
        "model": {"hidden_size": 256},
    }
    config |= changes.pop("config", {})
    result = {"status": "finished", "config": config, "overrides": {}, "steps": 20}
    result |= {"metrics": metrics, "versions": {}, "wall_seconds": 1.0} | changes
    path = root / (folder or f"{schedule}/seed_{seed}")
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "result.json").write_text(json.dumps(result))
    records = [
        {"step": 10, "train/teacher_prob": 0.9, "train/gold_share": None},
        {"step": 10, "eval/gold/token_accuracy": 0.5, "eval/own/token_accuracy": 0.4},
        {"step": 20, "train/teacher_prob": 0.1, "train/gold_share": 0.12},
        {"step": 20, "eval/gold/token_accuracy": 0.9, "eval/own/token_accuracy": 0.7},
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


def metrics_of(wer):
    return {
        "test/own/wer": wer,
        "test/gold/nll": 0.2,
        "test/gold/token_accuracy": 0.97,
        "test/own/token_accuracy": 0.9,
        "test/seconds": 3.0,
        "eval/own/wer": 29.0,
    }


@pytest.fixture
def sweep(tmp_path):
    root = tmp_path / "sweep"
    for schedule, values in WER.items():
        for seed, wer in enumerate(values):
            write_run(root, schedule, seed, metrics_of(wer))
    return root


@pytest.mark.parametrize("count", [2, 3, 5, 10])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_is_that_of_scipy(count, confidence):
    values = np.random.default_rng(count).normal(30, 2, count)
    low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert math.isclose(t_half_width(values, confidence), (high - low) / 2, rel_tol=1e-9)


def test_one_value_has_no_interval_and_nan_is_no_value():
    found = estimate([3.0, math.nan])
    assert (found.mean, found.num_values) == (3.0, 1)
    assert math.isnan(found.half_width)
    assert math.isnan(estimate([]).mean)
    with pytest.raises(ValueError, match="outside"):
        t_half_width([1.0, 2.0], 1.0)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(2000, 4))
    covered = [abs(row.mean()) <= t_half_width(row) for row in draws]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_means_and_intervals(sweep):
    frame = compare(collect(sweep))
    assert list(frame.index) == ["teacher_forcing", "linear"]
    assert list(frame.columns[1::3]) == [
        "test/gold/nll/mean",
        "test/gold/token_accuracy/mean",
        "test/own/token_accuracy/mean",
        "test/own/wer/mean",
    ]
    for schedule, values in WER.items():
        row = frame.loc[schedule]
        assert row["n"] == row["test/own/wer/n"] == 3
        assert row["test/own/wer/mean"] == pytest.approx(np.mean(values))
        half = scipy.stats.t.ppf(0.975, 2) * scipy.stats.sem(values)
        assert row["test/own/wer/half_width"] == pytest.approx(half)


def test_metrics_are_chosen_by_either_name_and_unknown_ones_told(sweep):
    runs = collect(sweep)
    frame = compare(runs, ["own/wer", "test/own/wer", "eval/own/wer"])
    assert list(frame.columns[1::3]) == ["test/own/wer/mean", "eval/own/wer/mean"]
    assert metric_names(runs, ["own/wer", "test/own/wer"]) == ["test/own/wer"]
    with pytest.raises(LabError, match=r"metric test/own/were\. Did you mean 'test/own/wer'\?"):
        compare(runs, ["test/own/were"])
    with pytest.raises(LabError, match="There are: eval/own/wer, test/gold/nll"):
        compare(runs, ["bleu"])


def test_a_metric_of_one_seed_alone_has_no_interval(sweep):
    shutil.rmtree(sweep / "linear" / "seed_1")
    path = sweep / "linear" / "seed_2" / "result.json"
    result = json.loads(path.read_text())
    result["metrics"]["test/own/wer"] = None
    path.write_text(json.dumps(result))
    runs = collect(sweep)
    frame = compare(runs, ["own/wer"])
    assert frame.loc["linear", "n"] == 2
    assert frame.loc["linear", "test/own/wer/n"] == 1
    text = tables.to_text(runs, frame)
    assert f"32.00 ±    {tables.NO_INTERVAL} (n=1)" in text
    assert "0.00" not in text


def left_out(sweep):
    return dict(collect(sweep).left_out)


def test_failed_and_unfinished_runs_are_listed_and_not_averaged(sweep):
    write_run(sweep, "linear", 3, metrics_of(99.0), status="failed", error="the loss is NaN")
    (write_run(sweep, "linear", 4, metrics_of(99.0)) / "result.json").unlink()
    (write_run(sweep, "linear", 5, metrics_of(99.0)) / "result.json").write_text('{"status": "fin')
    (write_run(sweep, "linear", 6, metrics_of(99.0)) / "result.json").write_text('{"status": 1}')
    (write_run(sweep, "linear", 7, {}) / "result.json").write_text('{"status": "finished"}')
    reasons = left_out(sweep)
    assert reasons["linear/seed_3"] == "its status is failed: the loss is NaN"
    assert reasons["linear/seed_4"] == "has not finished: there is no result.json."
    assert "is not whole JSON" in reasons["linear/seed_5"]
    assert reasons["linear/seed_6"] == "its status is 1."
    assert "is not that of a run" in reasons["linear/seed_7"]
    frame = compare(collect(sweep))
    assert frame.loc["linear", "n"] == 3
    assert frame.loc["linear", "test/own/wer/mean"] == pytest.approx(32.3)
    assert "linear/seed_3: its status is failed" in report(sweep)
    assert "  - linear/seed_3: its" in (sweep / "compare.md").read_text()


def test_runs_that_differ_in_more_than_schedule_and_seed_are_left_out(sweep):
    write_run(
        sweep, "linear", 3, metrics_of(99.0), config={"model": {"hidden_size": 512, "cell": "gru"}}
    )
    write_run(sweep, "linear", 2, metrics_of(99.0), folder="linear/seed_2_again")
    assert left_out(sweep) == {
        "linear/seed_2_again": "is linear/seed_2 once more: the same schedule and seed.",
        "linear/seed_3": 'differs in more than schedule and seed: model.cell is "gru", most runs '
        "have no such key; model.hidden_size is 512, most runs have 256",
    }
    assert compare(collect(sweep)).loc["linear", "test/own/wer/mean"] == pytest.approx(32.3)


def test_schedules_of_one_name_and_other_parameters_are_rows_of_their_own(sweep):
    for seed in range(2):
        config = {"schedule": {"name": "linear", "k": 0.5}}
        write_run(
            sweep, "linear", seed, metrics_of(35.0), f"linear_half/seed_{seed}", config=config
        )
    frame = compare(collect(sweep))
    assert frame["n"].to_dict() == {"teacher_forcing": 3, "linear": 3, "linear (k=0.5)": 2}


def test_a_cut_record_is_used_as_far_as_it_is_whole_and_told(sweep):
    path = sweep / "linear" / "seed_0" / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    runs = collect(sweep)
    assert runs.notes == ["1 broken line of linear/seed_0/metrics.jsonl left out."]
    assert len(runs.by_schedule["linear"][0].records) == 3


def test_where_nothing_can_be_compared_it_is_said(sweep, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, message in [
        (tmp_path / "none", "There is no folder .*none"),
        (tmp_path / "empty", "There are no runs in .*empty"),
        (sweep / "linear" / "seed_0", "seed_0 is one run"),
    ]:
        with pytest.raises(LabError, match=message):
            collect(folder)
    write_run(tmp_path / "one", "linear", 0, metrics_of(1.0))
    (write_run(tmp_path / "one", "linear", 1, {}) / "result.json").unlink()
    with pytest.raises(LabError, match=r"only one run in .*one .* linear/seed_1: has not finished"):
        collect(tmp_path / "one")
    write_run(sweep, "linear", 3, {}, config={"data": {"name": "addition"}})
    with pytest.raises(LabError, match="different tasks: addition, cmudict"):
        report(sweep)
    assert not list(sweep.glob("compare*"))


def test_the_text_is_aligned(sweep):
    runs = collect(sweep)
    lines = tables.to_text(runs, compare(runs)).splitlines()
    assert lines[:4] == [
        "                    ────── gold prefixes ──────  ────── own prefixes ──────",
        "schedule         n            NLL    accuracy %    accuracy %         WER %",
        "teacher_forcing  3  0.200 ± 0.000  97.00 ± 0.00  90.00 ± 0.00  30.60 ± 1.63",
        "linear           3  0.200 ± 0.000  97.00 ± 0.00  90.00 ± 0.00  32.30 ± 0.90",
    ]


def test_what_is_left_in_the_folder(sweep):
    text = report(sweep)
    names = ["compare.csv", "compare.md", "compare.tex", "final.png", "learning.png"]
    assert sorted(path.name for path in sweep.iterdir() if path.is_file()) == [
        *names,
        "schedules.png",
    ]
    assert all(name in text for name in names)
    with (sweep / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["test/own/wer/mean"]) == pytest.approx(32.3)
    latex = (sweep / "compare.tex").read_text()
    assert r"teacher\_forcing & 3 & 0.200 $\pm$ 0.000 & 97.00 $\pm$ 0.00" in latex
    assert r"\cmidrule(lr){3-4} \cmidrule(lr){5-6}" in latex
    assert "| linear | 3 | 0.200 ± 0.000 |" in (sweep / "compare.md").read_text()


def test_a_report_that_fails_leaves_nothing(sweep, monkeypatch):
    def fail(*_):
        raise LabError("no picture")

    monkeypatch.setattr("s2s_jax.lab.figures.to_png", fail)
    with pytest.raises(LabError, match="no picture"):
        report(sweep)
    assert not [path for path in sweep.iterdir() if path.is_file()]
