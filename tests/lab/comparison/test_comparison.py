import csv
import json
import math
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from PIL import Image

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.metric_catalog import Metric
from s2s_jax.lab.base.seed_statistics import estimate, t_half_width
from s2s_jax.lab.comparison import tables
from s2s_jax.lab.comparison.budgets import run_tokens
from s2s_jax.lab.comparison.comparison import (
    collect,
    compare,
    metric_names,
    points,
    write_comparison,
)
from s2s_jax.lab.comparison.differences import baselines

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


def test_runs_with_another_bleu_tokenizer_are_left_out(sweep):
    """Also if the sweep itself sets it: scores with different tokenizers cannot be compared."""
    for path in sorted(sweep.glob("*/seed_*/result.json")):
        result = json.loads(path.read_text())
        result["config"]["eval"] = {"bleu_tokenize": "13a"}
        path.write_text(json.dumps(result))
    folder, key = "linear,bleu_tokenize=zh/seed_0", "eval.bleu_tokenize"
    config, overrides = {"eval": {"bleu_tokenize": "zh"}}, {key: "zh"}
    write_run(sweep, "linear", 0, metrics_of(9.0), folder, config=config, overrides=overrides)
    runs = collect(sweep)
    assert len(runs.compared) == 6
    ((name, reason),) = runs.left_out
    assert name == folder
    assert f'{key} is "zh", most runs have "13a"' in reason


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


OWN = Metric("vowels", "vowels\x1b", "%", 100, digits=1, better="lower")


def test_a_runs_own_scores_are_shown_as_its_result_says(tmp_path):
    """Even if the code that made them is gone."""
    for schedule, value in (("teacher_forcing", 0.25), ("linear", 0.125)):
        for seed in range(2):
            metrics = {"test/own/vowels": value + seed / 100, "test/own/exact_match": 0.5}
            config = {"eval": {"scores": "no_such_module_of_mine:vowels"}}
            folder = write_run(
                tmp_path, schedule, seed, metrics, config=config, score_metrics=[OWN.to_dict()]
            )
            line = {"source": "a", "references": ["b"], "hypothesis": "b"}
            (folder / "predictions_test.jsonl").write_text(f"{json.dumps(line)}\n" * 2)
    text = write_comparison(tmp_path)
    assert "exact %  vowels\\x1b %" in text
    assert re.search(r"50\.00 ± 0\.00 +25\.5 ± 6\.4\n", text)
    assert "Against teacher_forcing by vowels\\x1b (lower is better), test split" in text
    assert "linear: not distinguishable from teacher_forcing at n=2 (vowels\\x1b -12.5 " in text
    assert (
        "compared over seeds only (paired t-test): eval.scores is 'no_such_module_of_mine:vowels'"
        in text
    )
    layout = next(tmp_path.glob("over_seeds/teacher_forcing/*")).read_bytes()
    assert b"vowels\\x1b (%), test" in layout


@pytest.mark.parametrize("change", [{"digits": 99}, {"label": ""}, {"better": "up"}, {"scale": 0}])
def test_a_score_that_cannot_be_shown_leaves_its_run_out(sweep, change):
    path = sweep / "linear/seed_1/result.json"
    result = json.loads(path.read_text())
    result["score_metrics"] = [OWN.to_dict() | change]
    path.write_text(json.dumps(result))
    ((name, reason),) = collect(sweep).left_out
    assert name == "linear/seed_1"
    assert "score_metrics" in reason
    assert "\n" not in reason


def test_metrics_are_chosen_by_either_name_and_unknown_ones_reported(sweep):
    runs = collect(sweep)
    frame = compare(runs, ["own/wer", "test/own/wer", "eval/own/wer"])
    assert list(frame.columns[1::3]) == ["test/own/wer/mean", "eval/own/wer/mean"]
    assert metric_names(runs, ["own/wer", "test/own/wer"]) == ["test/own/wer"]
    with pytest.raises(LabError, match=r"metric 'test/own/were'; did you mean 'test/own/wer'\?"):
        compare(runs, ["test/own/were"])
    with pytest.raises(LabError, match="it must be one of eval/own/wer, test/gold/nll"):
        compare(runs, ["bleu"])


def test_a_metric_with_a_single_seed_has_no_interval(sweep):
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


def provenance(test="t", x64=False):
    return {
        "data": {"train": "a", "test": test},
        "vocabularies": {"source": "s", "target": "t"},
        "switches": {"jax_enable_x64": x64},
        "versions": {},
    }


def test_runs_of_other_data_or_switches_are_left_out_with_the_reason(tmp_path):
    for seed in range(3):
        for schedule in WER:
            test = "u" if (schedule, seed) == ("linear", 1) else "t"
            own = provenance(test, x64=(schedule, seed) == ("linear", 2))
            more = {} if seed == 0 else {"provenance": own}
            write_run(tmp_path, schedule, seed, metrics_of(30.0), **more)
    runs = collect(tmp_path)
    assert dict(runs.left_out) == {
        "linear/seed_1": "most runs had other data (test)",
        "linear/seed_2": "jax_enable_x64 is True, most runs have False",
    }
    assert runs.notes == ["2 runs did not record which data they were trained on."]


def test_a_sweep_that_varies_its_data_is_compared(tmp_path):
    for size in (1, 2):
        for seed in range(2):
            data = {"name": "copy", "num_train": size}
            write_run(
                tmp_path, "linear", seed, metrics_of(30.0), f"linear,num_train={size}/seed_{seed}",
                config={"data": data}, overrides={"data.num_train": size},
                provenance=provenance(test=str(size)), versions={"jax": f"0.10.{size}"},
            )  # fmt: skip
    runs = collect(tmp_path)
    assert (len(runs.compared), runs.left_out) == (4, [])
    assert runs.notes == ["The runs are of different versions: jax 0.10.1 or 0.10.2."]


def test_a_run_that_has_not_made_all_its_updates_is_not_finished(sweep):
    config = {"train": {"num_steps": 240}}
    write_run(sweep, "linear", 3, metrics_of(1.0), config=config, steps=137)
    assert left_out(sweep)["linear/seed_3"] == "its status is finished after 137 of 240 updates"


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
    assert reasons["linear/seed_4"] == "has not finished: there is no result.json"
    assert "is not complete JSON" in reasons["linear/seed_5"]
    assert "status is 1, not one of failed, finished, stopped" in reasons["linear/seed_6"]
    assert "config is missing" in reasons["linear/seed_7"]
    assert all("\n" not in reason for reason in reasons.values())
    frame = compare(collect(sweep))
    assert frame.loc["linear", "n"] == 3
    assert frame.loc["linear", "test/own/wer/mean"] == pytest.approx(32.3)
    runs = collect(sweep)
    assert "linear/seed_3: its status is failed" in tables.to_text(runs, frame)
    assert "  - linear/seed_3: its" in tables.to_markdown(runs, frame)


def test_runs_that_differ_in_more_than_schedule_and_seed_are_left_out(sweep):
    write_run(
        sweep, "linear", 3, metrics_of(99.0), config={"model": {"hidden_size": 512, "cell": "gru"}}
    )
    write_run(sweep, "linear", 2, metrics_of(99.0), folder="linear/seed_2_again")
    assert left_out(sweep) == {
        "linear/seed_2_again": "repeats linear/seed_2: the same schedule and seed",
        "linear/seed_3": 'differs in more than schedule and seed: model.cell is "gru", most runs '
        "have no such key; model.hidden_size is 512, most runs have 256",
    }
    assert compare(collect(sweep)).loc["linear", "test/own/wer/mean"] == pytest.approx(32.3)


def test_schedules_that_differ_in_parameters_have_separate_rows(sweep):
    for seed in range(2):
        config = {"schedule": {"name": "linear", "k": 0.5}}
        write_run(
            sweep, "linear", seed, metrics_of(35.0), f"linear_half/seed_{seed}", config=config
        )
    frame = compare(collect(sweep))
    assert frame["n"].to_dict() == {"teacher_forcing": 3, "linear": 3, "linear (k=0.5)": 2}


def test_a_truncated_record_is_used_and_reported(sweep):
    path = sweep / "linear" / "seed_0" / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    runs = collect(sweep)
    assert runs.notes == ["1 broken line of linear/seed_0/metrics.jsonl left out."]
    assert len(runs.by_schedule["linear"][0].records) == 3


def test_nothing_to_compare_is_an_error(sweep, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, message in [
        (tmp_path / "none", "there is no folder .*none"),
        (tmp_path / "empty", "there are no runs in .*empty"),
        (sweep / "linear" / "seed_0", "seed_0 is a single run"),
    ]:
        with pytest.raises(LabError, match=message):
            collect(folder)
    write_run(tmp_path / "one", "linear", 0, metrics_of(1.0))
    (write_run(tmp_path / "one", "linear", 1, {}) / "result.json").unlink()
    with pytest.raises(
        LabError, match=r"only one run in .*one .*; linear/seed_1: has not finished"
    ):
        collect(tmp_path / "one")
    write_run(sweep, "linear", 3, {}, config={"data": {"name": "addition"}})
    with pytest.raises(LabError, match="different tasks: addition, cmudict"):
        write_comparison(sweep)
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


def test_named_methods_are_rows_whatever_they_set(tmp_path):
    methods = {
        "teacher_forcing": ("teacher_forcing", {"rollout.coin": "token"}),
        "inverse": ("linear", {"rollout.coin": "sequence"}),
        "noise": ("linear", {"rollout.feed": "argmax", "objective.tau": 0.5}),
    }
    for method, (schedule, sets) in methods.items():
        config = {
            "method": method,
            "rollout": {
                "coin": sets.get("rollout.coin", "token"),
                "feed": sets.get("rollout.feed", "sample"),
            },
            "objective": {"tau": sets.get("objective.tau")},
        }
        for seed in range(2):
            write_run(
                tmp_path,
                schedule,
                seed,
                metrics_of(30.0 + len(method)),
                f"{method}/seed_{seed}",
                config=config,
                overrides={"method": method, "seed": seed, "schedule.name": schedule} | sets,
            )
    runs = collect(tmp_path)
    assert not runs.left_out
    assert compare(runs)["n"].to_dict() == {"teacher_forcing": 2, "inverse": 2, "noise": 2}
    assert set(baselines(runs).items()) == {
        ("inverse", "teacher_forcing"),
        ("noise", "teacher_forcing"),
    }


def test_other_varied_keys_have_separate_rows(tmp_path):
    for coin in ("token", "sequence"):
        for seed in range(2):
            config = {"rollout": {"coin": coin, "feed": "sample"}}
            overrides = {"rollout.coin": coin, "seed": seed, "rollout.feed": "sample"}
            for schedule in ("teacher_forcing", "linear"):
                folder = f"{schedule},coin={coin}/seed_{seed}"
                metrics = metrics_of(30.0 + (coin == "sequence"))
                write_run(
                    tmp_path, schedule, seed, metrics, folder, config=config, overrides=overrides
                )
    # A run added to the sweep's folder by hand: its override is in no folder name.
    config = {"rollout": {"coin": "token", "feed": "argmax"}}
    overrides = {"rollout.feed": "argmax", "rollout.coin": "token"}
    write_run(tmp_path, "linear", 5, metrics_of(9.0), config=config, overrides=overrides)
    runs = collect(tmp_path)
    frame = compare(runs, ["own/wer"])
    assert frame["n"].to_dict() == {
        "teacher_forcing, coin=sequence": 2,
        "teacher_forcing, coin=token": 2,
        "linear, coin=sequence": 2,
        "linear, coin=token": 2,
    }
    assert frame["test/own/wer/mean"].tolist() == [31, 30, 31, 30]
    ((name, reason),) = runs.left_out
    assert (name, "rollout.feed is" in reason) == ("linear/seed_5", True)


def test_every_number_of_every_run_is_a_point(sweep):
    found = points(collect(sweep))
    assert list(found.columns) == ["schedule", "seed", "run", "step", "metric", "value"]
    one = found[(found["run"] == "linear/seed_1") & (found["metric"] == "eval/own/token_accuracy")]
    assert one["value"].tolist() == [0.4, 0.7]
    assert one["step"].tolist() == [10, 20]
    final = found[found["metric"] == "final/test/own/wer"]
    assert sorted(final["value"]) == sorted([*WER["linear"], *WER["teacher_forcing"]])
    assert set(final["step"]) == {20}


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A compared sweep, and the printed text."""
    root = tmp_path_factory.mktemp("reported") / "sweep"
    for schedule, values in WER.items():
        for seed, wer in enumerate(values):
            write_run(root, schedule, seed, metrics_of(wer))
    return root, write_comparison(root)


NAMES = ["differences", "final", "gold_own", "learning", "schedules"]


def test_the_files_written_to_the_folder(reported):
    sweep, text = reported
    pictures = [f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")]
    others = ["compare.csv", "compare.md", "compare.parquet", "compare.tex", "report.html"]
    assert sorted(path.name for path in sweep.iterdir() if path.is_file()) == sorted(
        pictures + others
    )
    assert all(name in text for name in pictures + others)
    with (sweep / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["test/own/wer/mean"]) == pytest.approx(32.3)
    assert float(rows[1]["test/own/wer/difference"]) == pytest.approx(1.7)
    assert rows[0]["test/own/wer/difference"] == ""
    latex = (sweep / "compare.tex").read_text()
    assert r"teacher\_forcing & 3 & 0.200 $\pm$ 0.000 & 97.00 $\pm$ 0.00" in latex
    assert r"\cmidrule(lr){3-4} \cmidrule(lr){5-6}" in latex
    assert latex.count(r"\toprule") == 2
    markdown = (sweep / "compare.md").read_text()
    assert "| linear | 3 | 0.200 ± 0.000 |" in markdown
    frame = pd.read_parquet(sweep / "compare.parquet")
    pd.testing.assert_frame_equal(frame, points(collect(sweep)))


def test_without_items_the_conclusion_is_that_of_the_paired_t_test(reported):
    sweep, text = reported
    found = scipy.stats.ttest_rel(WER["linear"], WER["teacher_forcing"])
    low, high = found.confidence_interval()
    line = next(one for one in text.splitlines() if one.startswith("linear:"))
    assert f"WER +1.70 [{low:.2f}, {high:.2f}] points, p={found.pvalue:.2g}" in line
    assert line in (sweep / "compare.md").read_text().replace("- linear", "linear")
    assert "compared over seeds only (paired t-test): there is no predictions_test.jsonl" in text


def test_the_page_is_self_contained(reported):
    page = (reported[0] / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=.(?!data:)", page)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    assert page.count("data:image/svg+xml;base64,") == len(NAMES)
    assert "linear: higher (worse) than teacher_forcing" in page or "not distinguishable" in page


def test_pictures_are_readable_without_colour(reported):
    for name in NAMES:
        grey = np.asarray(Image.open(reported[0] / f"{name}.png").convert("L"))
        assert np.quantile(grey, 0.005) < 140 < 250 < np.median(grey), name
        assert "<svg" in (reported[0] / f"{name}.svg").read_text()[:1000]


def test_comparing_again_changes_nothing(reported, snapshot, tmp_path):
    copy = tmp_path / "sweep"
    shutil.copytree(reported[0], copy)
    before = snapshot(copy)
    stale = copy / "over_seeds" / "gone" / "events.out.tfevents.0000000000.compare"
    stale.parent.mkdir()
    stale.write_bytes(b"")
    write_comparison(copy)
    assert snapshot(copy) == before


def test_unequal_budgets_are_reported(sweep):
    text = tables.to_text(collect(sweep), compare(collect(sweep)))
    budget = "Budget per run: 20 updates, 1 s of wall-clock time."
    assert f"{budget} Equal for all schedules, as far as recorded." in text
    for seed in range(3):
        path = sweep / "linear" / f"seed_{seed}" / "result.json"
        result = json.loads(path.read_text()) | {"steps": 30, "wall_seconds": 2.0 + seed}
        path.write_text(json.dumps(result))
    text = tables.to_text(collect(sweep), compare(collect(sweep)))
    assert "Budget per run: 20 to 30 updates, 1 to 4 s of wall-clock time." in text
    assert "Updates differ: teacher_forcing 20, linear 30." in text
    assert "Wall-clock time differs: teacher_forcing 1 s, linear 3 s." in text


def test_the_run_that_a_run_started_from_is_part_of_its_budget(sweep):
    record = {"workdir": "runs/a", "step": 5, "parameters": "ab", "updates": 80}
    record |= {"target_tokens": None, "wall_seconds": 3.0}
    path = sweep / "linear" / "seed_0" / "result.json"
    for one in sweep.glob("*/seed_*/result.json"):
        one.write_text(json.dumps(json.loads(one.read_text()) | {"started_from": record}))
    text = tables.to_text(collect(sweep), compare(collect(sweep)))
    assert (
        "Budget per run, including the run that it started from: 100 updates (80 of them there),"
        " 4 s of wall-clock time. Equal for all schedules" in text
    )
    damaged = json.loads(path.read_text()) | {"started_from": {"step": 5}}
    path.write_text(json.dumps(damaged))
    ((_, reason),) = collect(sweep).left_out
    assert "started_from.workdir is missing" in reason


def test_tokens_are_estimated_from_their_rate(sweep):
    lines = [
        {"step": step, "train/tokens_per_second": 100.0, "train/seconds": seconds}
        for step, seconds in ((5, 9.0), (10, 10.0), (15, 11.0), (20, 52.0))
    ]
    for seed in range(3):
        path = sweep / "linear" / f"seed_{seed}" / "metrics.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    # 100 tokens in 5 steps; the last stretch is longer than its rate says, as where a run resumed.
    run = collect(sweep).by_schedule["linear"][0]
    assert run_tokens(run) == pytest.approx(400)
    assert math.isnan(run_tokens(collect(sweep).by_schedule["teacher_forcing"][0]))
    runs = collect(sweep)
    assert "400 target tokens" in tables.to_text(runs, compare(runs))


def test_bad_input_is_one_line_and_exit_code_2(s2s, sweep, tmp_path):
    write_run(tmp_path / "one", "linear", 0, metrics_of(1.0))
    for arguments, message in [
        ([tmp_path / "nowhere"], "there is no folder"),
        ([sweep / "linear" / "seed_0"], "is a single run"),
        ([tmp_path / "one"], "only one run"),
        ([sweep, "--metrics=own/were"], "no run has a metric 'own/were'; did you mean"),
        ([sweep, "--baseline=lineer"], "'lineer' to compare with; did you mean 'linear'?"),
    ]:
        code, out, err = s2s("compare", *arguments)
        assert (code, out, len(err.splitlines())) == (2, "", 1), err
        assert message in err
    assert not list(sweep.glob("compare*"))


def test_a_failed_comparison_writes_nothing(sweep, monkeypatch):
    def fail(*_):
        raise LabError("no page")

    monkeypatch.setattr("s2s_jax.lab.comparison.html_report.to_html", fail)
    with pytest.raises(LabError, match="no page"):
        write_comparison(sweep)
    assert not [path for path in sweep.iterdir() if path.is_file()]
    assert not (sweep / "over_seeds").exists()


def test_a_figure_that_fails_is_left_out_with_a_line(sweep, monkeypatch):
    from s2s_jax.lab.base import figures
    from s2s_jax.lab.comparison import plots

    def fail(*_):
        raise RuntimeError("no\npicture")

    (sweep / "learning.png").write_bytes(b"of an earlier comparison")
    to_svg, calls = figures.to_svg, []

    def fail_once(figure):
        calls.append(figure)
        return fail() if len(calls) == 1 else to_svg(figure)

    monkeypatch.setattr(plots, "learning_figure", fail)
    monkeypatch.setattr(figures, "to_svg", fail_once)
    told = [line for line in write_comparison(sweep).splitlines() if "left out: figure" in line]
    assert told == [
        "left out: figure learning (RuntimeError: no picture)",
        "left out: figure schedules (RuntimeError: no picture)",
    ]
    pictures = {path.name for path in sweep.iterdir() if path.suffix in (".png", ".svg")}
    assert not pictures & {"learning.png", "learning.svg", "schedules.png", "schedules.svg"}
    assert {"final.png", "final.svg", "compare.csv"} <= {path.name for path in sweep.iterdir()}
