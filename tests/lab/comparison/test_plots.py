import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s2s_jax.lab.base import figures
from s2s_jax.lab.base.metric_catalog import Metric
from s2s_jax.lab.comparison import plots
from s2s_jax.lab.comparison.difference_plots import differences_figure
from s2s_jax.lab.comparison.differences import find_differences, headline
from s2s_jax.lab.runs.collect import CollectedRuns, FinishedRun


@pytest.fixture
def runs():
    members = []
    for schedule in ["teacher_forcing", "linear"]:
        for seed in range(1 if schedule == "linear" else 3):
            records = []
            for step in range(100, 1001, 100):
                share = None if schedule == "teacher_forcing" else 1 - step / 1000
                records.append({"step": step, "train/teacher_prob": 0.5, "train/gold_share": share})
                accuracy = 1 - 1 / step + seed / 100
                records.append({"step": step, "eval/gold/token_accuracy": accuracy})
                records.append({"step": step, "eval/own/token_accuracy": accuracy - 0.1})
                records.append({"step": step, "eval/own/per": 8.0 + seed})
                records.append({"step": step, "eval/own/exact_match": 0.2})
            metrics = {"test/own/wer": 30.0 + seed, "test/gold/token_accuracy": 0.9}
            members.append(FinishedRun(Path(schedule), schedule, seed, {}, metrics, records))
    return CollectedRuns(Path(), members, [], [])


def test_the_figures_are_pictures_with_named_axes(runs):
    drawn = plots.make_figures(runs, ["test/own/wer"])
    assert list(drawn) == ["schedules", "learning", "final"]
    for figure in drawn.values():
        pixels = np.asarray(Image.open(io.BytesIO(figures.to_png(figure))).convert("L"))
        assert pixels.std() > 5
        assert all(axes.get_xlabel() for axes in figure.axes)
    labels = [axes.get_ylabel() for axes in drawn["learning"].axes]
    assert labels == ["token accuracy (%)", "token accuracy (%)", "phoneme error rate (%)"]
    assert drawn["final"].axes[0].get_xlabel() == "word error rate (%)"


def symbols_runs() -> CollectedRuns:
    """Runs with random targets, for which exact match is meaningless."""
    values = {"own/ser": 71.0, "own/exact_match": 0.002, "gold/token_accuracy": 0.3}
    members = [
        FinishedRun(
            Path(schedule), schedule, seed, {},
            {f"test/{name}": value for name, value in values.items()},
            [{"step": 10} | {f"eval/{name}": value for name, value in values.items()}],
        )
        for schedule in ("teacher_forcing", "linear")
        for seed in range(2)
    ]  # fmt: skip
    return CollectedRuns(Path(), members, [], [])


def test_symbols_are_judged_by_their_error_rate():
    runs = symbols_runs()
    learning = plots.learning_figure(runs)
    assert learning is not None
    labels = [axes.get_ylabel() for axes in learning.axes]
    assert labels == ["token accuracy (%)", "symbol error rate (%)"]
    final = plots.final_figure(runs, sorted(runs.compared[0].metrics))
    assert final is not None
    labels = [axes.get_xlabel() for axes in final.axes]
    assert labels == ["token accuracy (%)", "symbol error rate (%)", "exact match (%)"]
    assert headline(sorted(runs.compared[0].metrics), False, runs.catalog) == "test/own/ser"


def test_a_runs_own_scores_are_drawn_as_it_says():
    own = Metric("vowels", "vowels", "%", 100, better="lower", long_label="vowels missed")
    runs = symbols_runs()
    members = [
        dataclasses.replace(
            run,
            score_metrics=(own,),
            records=[*run.records, {"step": 10, "eval/own/vowels": 0.25}],
            metrics=run.metrics | {"test/own/vowels": 0.25},
        )
        for run in runs.compared
    ]
    runs = dataclasses.replace(runs, compared=members)
    learning = plots.learning_figure(runs)
    assert learning is not None
    assert learning.axes[-1].get_ylabel() == "vowels missed (%)"
    assert learning.axes[-1].lines[0].get_ydata() == pytest.approx([25])
    rows = find_differences(runs, ["test/own/vowels", "test/own/ser"])
    figure = differences_figure(runs, rows)
    assert figure is not None
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels == ["vowels (points), lower is better", "SER (points), lower is better"]
    assert headline([row.metric for row in reversed(rows)], False, runs.catalog) == rows[0].metric


def test_gold_and_own_prefixes_are_side_by_side_on_one_scale(runs):
    figure = plots.learning_figure(runs)
    assert figure is not None
    gold, own, _ = figure.axes
    assert (gold.get_title(), own.get_title()) == ("gold prefixes", "own prefixes")
    assert gold.get_ylim() == own.get_ylim()


def test_only_schedules_with_several_seeds_have_bands(runs):
    figure = plots.learning_figure(runs)
    assert figure is not None
    axes = figure.axes[0]
    assert len(axes.collections) == 1
    band = axes.collections[0].get_paths()[0].vertices
    step_1000 = [y for x, y in np.asarray(band) if x == 1000]
    assert (min(step_1000), max(step_1000)) == pytest.approx((99.9, 101.9))


def test_the_realised_share_is_drawn_with_the_curve(runs):
    figure = plots.schedule_figure(runs)
    assert figure is not None
    curve, *dots = (np.asarray(line.get_ydata()) for line in figure.axes[0].lines[1:])
    assert curve.tolist() == [0.5] * 10
    assert dots[0] == pytest.approx(1 - np.arange(1, 11) / 10)


def test_a_single_seed_has_no_error_bar(runs):
    figure = plots.final_figure(runs, ["test/own/wer"])
    assert figure is not None
    bars = [container.has_xerr for container in figure.axes[0].containers]  # type: ignore[union-attr]  # all are bars
    assert bars == [True, False]


@pytest.mark.parametrize("parameter", ["", " (teacher_prob=0.25)", " (k=0.5, floor=0.125, c=0.01)"])
@pytest.mark.parametrize("count", [1, 4, 5, 7])
def test_a_legend_is_within_its_figure(runs, parameter, count):
    (run, *_) = runs.compared
    names = [f"inverse_sigmoid{number}{parameter}" for number in range(count)]
    members = [dataclasses.replace(run, schedule=name) for name in names]
    figure = plots.schedule_figure(CollectedRuns(Path(), members, [], []))
    assert figure is not None
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert len(figure.legends[0].get_texts()) == count


def test_styles_differ_without_colour(runs):
    styles = figures.make_styles(7)
    for attribute in ["color", "line", "marker"]:
        assert len({getattr(style, attribute) for style in styles}) == 7


def test_figures_without_data_are_left_out():
    bare = CollectedRuns(Path(), [FinishedRun(Path(), "linear", 0, {}, {}, [])], [], [])
    assert plots.make_figures(bare, []) == {}


def test_pyplot_and_a_notebooks_backend_stay_untouched():
    code = """
import importlib, os, sys
for name in (
    "base.figures", "comparison.difference_plots", "comparison.plots", "evaluation.pictures",
    "exposure.plots", "verification.dependence",
):
    importlib.import_module(f"s2s_jax.lab.{name}")
pictures = sys.modules["s2s_jax.lab.evaluation.pictures"]
pictures.attention_picture(sys.modules["numpy"].eye(2), "ab", "xy")
print("matplotlib.pyplot" in sys.modules, os.environ["MPLBACKEND"])
"""
    backend = "module://matplotlib_inline.backend_inline"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"MPLBACKEND": backend},
    )
    assert (done.stdout, done.stderr) == (f"False {backend}\n", "")


def test_names_are_text_in_every_figure(runs):
    hostile = ("$$", r"$\frac$", "日本")
    renamed = [
        dataclasses.replace(run, schedule=name)
        for run, name in zip(runs.compared, hostile, strict=False)
    ]
    drawn = plots.make_figures(CollectedRuns(Path(), renamed, [], []), ["test/own/wer"])
    assert len(drawn) == 3
    for figure in drawn.values():
        figures.to_png(figure)
    figures.to_svg(drawn["final"])


def test_numbers_keep_their_powers_of_ten():
    figure, (axes,) = figures.new_figure(1, 1, (3, 3))
    axes.plot([0, 1], [0, 1e9])
    axes.ticklabel_format(axis="y", scilimits=(-2, 4), useMathText=True)
    axes.set_xticks([0, 1], ["$x$", "b"])
    figures.to_png(figure)
    assert axes.yaxis.offsetText.get_parse_math()
    assert not axes.get_xticklabels()[0].get_parse_math()


def test_fonts_of_other_scripts_are_used_if_installed(monkeypatch):
    monkeypatch.setattr(figures, "_FONTS", ("No Such Font", "DejaVu Serif"))
    figures._other_scripts.cache_clear()
    figure, (axes,) = figures.new_figure(1, 1, (3, 3))
    axes.set_title("日本")
    figures.to_png(figure)
    figures._other_scripts.cache_clear()
    assert axes.title.get_fontfamily() == ["DejaVu Sans", "DejaVu Serif"]
