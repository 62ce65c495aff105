"""Differences between schedules: rows, baselines, corrections and sentences."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.metric_catalog import NO_INTERVAL
from s2s_jax.lab.base.seed_statistics import holm
from s2s_jax.lab.comparison import difference_tables
from s2s_jax.lab.comparison.difference_plots import positions_figure
from s2s_jax.lab.comparison.differences import (
    ScheduleDifference,
    baselines,
    find_differences,
    headline,
    sentence,
    to_frame,
)
from s2s_jax.lab.comparison.html_report import find_examples
from s2s_jax.lab.comparison.item_scores import read_predictions
from s2s_jax.lab.comparison.significance import Difference, paired_difference
from s2s_jax.lab.evaluation.scores import make_scorer
from s2s_jax.lab.runs.collect import CollectedRuns, FinishedRun


def make_runs(
    folder: Path,
    error_rates: dict[str, float],
    num_seeds: int = 3,
    num_items: int = 200,
    varied: tuple[tuple[str, str], ...] = (),
) -> CollectedRuns:
    """Runs with hypotheses that are wrong at random with the given probability."""
    members = []
    generator = np.random.default_rng(0)
    for schedule, rate in error_rates.items():
        for seed in range(num_seeds):
            wrong = generator.random(num_items) < rate
            path = folder / schedule / f"seed_{seed}"
            path.mkdir(parents=True)
            rows = [
                {
                    "source": f"w{i}",
                    "references": [f"A B {i}"],
                    "hypothesis": f"A {'C' if bad else 'B'} {i}",
                }
                for i, bad in enumerate(wrong)
            ]
            (path / "predictions_test.jsonl").write_text(
                "".join(json.dumps(row) + "\n" for row in rows)
            )
            metrics = {"test/own/wer": 100 * wrong.mean(), "test/gold/nll": 0.3 + seed / 10}
            config = {"schedule": {"name": schedule}, "seed": seed, "eval": {"scores": "phonemes"}}
            members.append(FinishedRun(path, schedule, seed, config, metrics, [], varied))
    return CollectedRuns(folder, members, [], [])


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> CollectedRuns:
    rates = {"teacher_forcing": 0.3, "linear": 0.31, "exponential": 0.6}
    return make_runs(tmp_path_factory.mktemp("runs"), rates)


@pytest.fixture(scope="module")
def rows(runs) -> list[ScheduleDifference]:
    return find_differences(runs, ["test/own/wer", "test/gold/nll"])


def test_items_are_used_if_available_and_otherwise_only_seeds(rows):
    wer, nll = rows[:2], rows[2:]
    assert (
        [row.schedule for row in wer] == [row.schedule for row in nll] == ["linear", "exponential"]
    )
    assert all(row.difference.num_items == 200 and not row.remark for row in wer)
    assert all(row.difference.num_items == 0 for row in nll)
    assert all(
        row.remark == "the score cannot be recomputed from the saved hypotheses" for row in nll
    )
    assert all(row.seeds == (0, 1, 2) for row in rows)


def test_a_difference_of_30_points_is_found_but_not_one_of_1_point(runs, rows):
    near, far = rows[:2]
    assert far.differs
    assert not near.differs
    means = {
        name: np.mean([run.metrics["test/own/wer"] for run in some])
        for name, some in runs.by_schedule.items()
    }
    value = means["exponential"] - means["teacher_forcing"]
    assert far.difference.value == pytest.approx(value)
    assert far.difference.low < value < far.difference.high
    assert far.improvement < 0.4 < near.improvement
    assert [near.p_holm, far.p_holm] == holm([near.difference.p_value, far.difference.p_value])


def test_runs_with_the_same_output_do_not_differ(runs, rows):
    # The likelihoods are the same for each seed.
    for row in rows[2:]:
        assert (row.difference.value, row.difference.p_value, row.p_holm) == (0, 1, 1)
        assert row.improvement == 0.5
        assert f"{row.schedule}: the same as teacher_forcing in each of 3 seeds" in sentence(row)


def test_the_first_metric_chosen_is_the_headline():
    names = ["test/gold/nll", "test/own/wer"]
    assert headline(names, chosen=False) == "test/own/wer"
    assert headline(names, chosen=True) == "test/gold/nll"
    assert headline(["test/gap"], chosen=False) == "test/gap"


WER = "test/own/wer"


def found(
    value=1.0, low=-1.0, high=3.0, p=0.2, n=3, needed: int | None = 9, p_holm=None, metric=WER
):
    difference = Difference(value, low, high, p, n, 0, 1.0, 0.0)
    row = ScheduleDifference(
        "linear", "teacher_forcing", metric, (0, 1, 2), difference, p, 0.4, needed
    )
    return replace(row, p_holm=p if p_holm is None else p_holm)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            found(),
            "linear: not distinguishable from teacher_forcing at n=3 (WER +1.00 [-1.00, 3.00]"
            " points, p=0.2); about 9 seeds would be needed to see a difference of this size.",
        ),
        (found(needed=None), "more than 100 seeds would be needed to see a difference"),
        (found(p=0.03, p_holm=0.06), "not distinguishable"),
        (found(p=0.03, p_holm=0.06), "points, Holm-corrected p=0.06)"),
        (
            found(2.0, 1.0, 3.0, 0.01),
            "linear: higher (worse) than teacher_forcing at n=3"
            " (WER +2.00 [1.00, 3.00] points, p=0.01).",
        ),
        (found(-2.0, -3.0, -1.0, 0.0002), "lower (better) than teacher_forcing at n=3"),
        (found(-2.0, -3.0, -1.0, 0.0002), "p<0.001"),
        (
            found(0.02, 0.01, 0.03, 0.01, metric="test/own/token_accuracy"),
            "higher (better) than teacher_forcing at n=3 (own accuracy +2.00 [1.00, 3.00] points",
        ),
        (found(2.0, 1.0, 3.0, 0.01, metric="test/mine"), "linear: higher than teacher_forcing"),
        (found(n=1, low=math.nan, high=math.nan, p=math.nan), "cannot be estimated from one seed"),
        (found(n=0, value=math.nan), "no seed in common with teacher_forcing"),
        (found(value=0.0), "the observed difference is 0"),
    ],
)
def test_sentences(row, said):
    assert said in sentence(row)


def test_what_cannot_be_paired_is_not_compared(runs):
    others = [
        replace(run, seed=run.seed + 2) if run.schedule == "linear" else run
        for run in runs.compared
    ]
    rows = find_differences(replace(runs, compared=others), ["test/own/wer"])
    assert rows[0].seeds == (2,)
    assert math.isnan(rows[0].difference.p_value)
    assert math.isnan(rows[0].p_holm)
    assert rows[1].p_holm == rows[1].difference.p_value  # only one test
    assert NO_INTERVAL in difference_tables.to_text(rows, "test/own/wer")


def test_with_unusable_files_only_seeds_are_compared(tmp_path):
    runs = make_runs(tmp_path, {"teacher_forcing": 0.3, "linear": 0.3}, num_items=40)
    path = tmp_path / "linear" / "seed_1" / "predictions_test.jsonl"
    whole = path.read_text()
    for content, remark in [
        (whole.replace("w0", "v0"), "the runs were tested on different items"),
        (whole[:-5], "a predictions_test.jsonl is incomplete or damaged"),
        (
            whole.replace('is": "A', 'is": "B'),
            "the score cannot be recomputed from the saved hypotheses",
        ),
    ]:
        path.write_text(content)
        (row,) = find_differences(runs, ["test/own/wer"])
        assert (row.remark, row.difference.num_items) == (remark, 0)
        text = difference_tables.to_text([row], "test/own/wer")
        assert f"compared over seeds only (paired t-test): {remark}." in text


@pytest.mark.parametrize(("tokenize", "num_items"), [("char", 60), ("13a", 0), ("no-such", 0)])
def test_item_bleu_uses_the_runs_own_tokenizer(tmp_path, tokenize, num_items):
    runs = make_runs(tmp_path, {"teacher_forcing": 0.2, "linear": 0.5}, num_items=60)
    scorer = make_scorer("translation", "char")

    def scored(run: FinishedRun) -> FinishedRun:
        found = read_predictions(run.folder / "predictions_test.jsonl")
        metrics = {"test/own/bleu": scorer(found.hypotheses, found.references)["bleu"]}
        return replace(
            run,
            metrics=metrics,
            config=run.config | {"eval": {"scores": "translation", "bleu_tokenize": tokenize}},
        )

    runs = replace(runs, compared=[scored(run) for run in runs.compared])
    (row,) = find_differences(runs, ["test/own/bleu"])
    assert row.difference.num_items == num_items
    assert row.difference.value < 0
    if tokenize == "no-such":
        assert row.remark.startswith("eval.bleu_tokenize is 'no-such'")


def test_with_a_single_test_item_only_seeds_are_compared(tmp_path):
    runs = make_runs(tmp_path, {"teacher_forcing": 0.0, "linear": 0.5}, num_items=1)
    (row,) = find_differences(runs, ["test/own/wer"])
    totals = [
        [run.metrics["test/own/wer"] for run in members] for members in runs.by_schedule.values()
    ]
    assert row.difference == paired_difference(np.array(totals[1]), np.array(totals[0]))
    assert len(set(totals[1])) == 2
    assert 0 < row.difference.p_value < 1
    assert math.isfinite(row.difference.low + row.difference.item_variance + row.improvement)
    assert row.remark == "the test set has one item"


def test_each_row_is_compared_with_the_baseline_of_the_same_other_keys(tmp_path):
    members = []
    for coin in ("sequence", "token"):
        varied = (("rollout.coin", f'"{coin}"'),)
        for schedule in ("teacher_forcing", "linear"):
            label = f"{schedule}, coin={coin}"
            config = {"schedule": {"name": schedule}}
            members.append(
                FinishedRun(tmp_path, label, 0, config, {"test/own/wer": 1.0}, [], varied)
            )
    runs = CollectedRuns(tmp_path, members, [], [])
    first, second = "teacher_forcing, coin=sequence", "teacher_forcing, coin=token"
    expected = {"linear, coin=sequence": first, "linear, coin=token": second, second: first}
    assert baselines(runs) == baselines(runs, "teacher_forcing") == expected
    against = baselines(runs, "linear, coin=token")
    assert set(against.values()) == {"linear, coin=token"}
    assert len(against) == 3
    with pytest.raises(LabError, match=r"no row 'linear, coin=tokn' .*did you mean"):
        baselines(runs, "linear, coin=tokn")


def test_without_teacher_forcing_the_first_row_is_the_baseline(runs):
    others = [run for run in runs.compared if run.schedule != "teacher_forcing"]
    assert baselines(replace(runs, compared=others)) == {"exponential": "linear"}
    members = []
    for coin in ("sequence", "token"):
        varied = (("rollout.coin", f'"{coin}"'),)
        for schedule in ("linear", "exponential"):
            label, config = f"{schedule}, coin={coin}", {"schedule": {"name": schedule}}
            members.append(replace(others[0], schedule=label, config=config, varied=varied))
    first, second = "linear, coin=sequence", "linear, coin=token"
    assert baselines(replace(runs, compared=members)) == {
        "exponential, coin=sequence": first,
        "exponential, coin=token": second,
        second: first,
    }
    assert baselines(runs, "exponential") == dict.fromkeys(
        ("teacher_forcing", "linear"), "exponential"
    )


def test_tables_in_every_form(rows):
    text = difference_tables.to_text(rows, "test/own/wer")
    assert "Against teacher_forcing by WER (lower is better), test split:" in text
    assert "<0.001" not in text.split("exponential")[0]
    markdown = difference_tables.to_markdown(rows, "test/own/wer")
    assert markdown.startswith(f"- {sentence(rows[0])}\n- {sentence(rows[1])}\n\n")
    assert markdown.count("| schedule | n | difference") == 2
    latex = difference_tables.to_latex(rows, "test/own/wer")
    assert latex.count(r" \\") == 3
    assert latex.count("&") == 3 * 7
    frame = to_frame(rows)
    assert frame.loc["linear", "test/own/wer/p_holm"] == rows[0].p_holm
    assert frame.loc["linear", "baseline"] == "teacher_forcing"


def test_examples_are_items_on_which_schedules_differ(runs):
    found = find_examples(runs, most=5)
    assert found is not None
    assert (found.seed, found.num_items, len(found.items)) == (0, 200, 5)
    exact = {
        label: np.array(
            [
                json.loads(line)["hypothesis"] in json.loads(line)["references"]
                for line in (some[0].folder / "predictions_test.jsonl").read_text().splitlines()
            ]
        )
        for label, some in runs.by_schedule.items()
    }
    table = np.stack(list(exact.values()))
    assert found.num_differing == (table.any(0) & ~table.all(0)).sum()
    for _, texts, hypotheses in found.items:
        right = [said in texts for said in hypotheses]
        assert any(right)
        assert not all(right)


def add_exposure(run: FinishedRun, gold: float, own: float, **settings: object) -> None:
    """Writes the file of `s2s exposure`, with accuracies that no predictions have."""
    measures = {
        f"{kind}/accuracy_by_position": {"at": [1, 2], "value": [value, value], "n": [200, 200]}
        for kind, value in (("gold", gold), ("own", own))
    }
    how = {"split": "dev", "checkpoint": "best", "max_examples": 0, "min_count": 50} | settings
    record = {"settings": how, "measures": measures}
    (run.folder / "exposure.json").write_text(json.dumps(record))


def drawn_positions(runs: CollectedRuns) -> tuple[dict[str, list[float]], str]:
    """Panel -> the accuracies of the rows at the first position, in percent; the remark below."""
    figure = positions_figure(runs)
    assert figure is not None
    panels = {
        axes.get_title(): [float(np.asarray(line.get_ydata())[0]) for line in axes.lines]
        for axes in figure.axes
    }
    return panels, figure.legends[0].get_title().get_text()


@pytest.fixture
def predicted(tmp_path) -> CollectedRuns:
    """Two seeds of two schedules whose first predicted token is always right."""
    runs = make_runs(tmp_path, {"teacher_forcing": 0.3, "linear": 0.6}, num_seeds=2)
    return replace(runs, compared=[with_accuracy(run) for run in runs.compared])


def with_accuracy(run: FinishedRun) -> FinishedRun:
    """The run with the accuracy of its predictions over A, B, the number and the end."""
    accuracy = 1 - run.metrics["test/own/wer"] / 100 / 4
    return replace(run, metrics=run.metrics | {"test/own/token_accuracy": accuracy})


def test_accuracy_by_position_is_from_exposure_if_all_runs_were_measured_alike(predicted):
    for run in predicted.compared:
        add_exposure(run, gold=0.8, own=0.7 if run.schedule == "linear" else 0.6)
    panels, remark = drawn_positions(predicted)
    assert panels["gold prefixes"] == pytest.approx([80, 80])
    assert panels["own prefixes"] == pytest.approx([60, 70])
    assert remark.startswith("Split: dev; positions with at least 50 targets\n")


@pytest.mark.parametrize(
    "settings", [None, {"split": "test"}, {"checkpoint": "latest"}, {"max_examples": 100}]
)
def test_accuracy_by_position_mixes_neither_splits_nor_checkpoints(predicted, settings):
    *most, last = predicted.compared
    for run in most:
        add_exposure(run, gold=0.8, own=0.7)
    if settings is not None:
        add_exposure(last, gold=0.8, own=0.7, **settings)
    panels, remark = drawn_positions(predicted)
    assert panels == {"own prefixes": [100, 100]}
    assert remark.startswith("Split: test; positions with at least 30 targets\n")


def test_the_source_of_accuracy_by_position_is_shown(predicted):
    for run in predicted.compared:
        add_exposure(run, 0.8, 0.7, split="test", checkpoint="latest", max_examples=1500)
    _, remark = drawn_positions(predicted)
    assert remark.startswith("Split: test, latest checkpoint, 1,500 sequences; positions")
