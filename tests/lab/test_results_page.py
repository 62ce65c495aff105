"""docs/scripts/results.py, and the page that it writes."""

import importlib
import json
import math
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from s2s_jax.lab.arguments import make_parser
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.files import to_json
from s2s_jax.lab.base.metric_catalog import NO_INTERVAL
from s2s_jax.lab.base.seed_statistics import estimate
from s2s_jax.lab.comparison import plots
from s2s_jax.lab.config.experiment_file import load_experiment, sweep_of
from s2s_jax.lab.config.keys import flat_keys
from s2s_jax.lab.config.overrides import parse_config
from s2s_jax.lab.runs.names import run_name

# Its fixtures draw once, not once per worker.
pytestmark = pytest.mark.xdist_group("results_page")

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REDUCED = {"train.num_steps": 2000, "model.hidden_size": 128, "data.data_dir": "somewhere/else"}

# For each schedule and seed: own accuracy, gold accuracy, WER.
WORSE = {"own": (0.90, 0.91, 0.905), "gold": (0.95, 0.955, 0.954), "wer": (40.0, 40.6, 40.1)}
BASE = {"own": (0.92, 0.929, 0.924), "gold": (0.99, 0.992, 0.993), "wer": (30.0, 30.4, 30.3)}
ALIKE = {"own": (0.921, 0.927, 0.925), "gold": (0.99, 0.991, 0.994), "wer": (29.9, 30.7, 30.2)}
NARROWER = {"own": (0.94, 0.95, 0.945), "gold": (0.99, 0.993, 0.992), "wer": (25.0, 25.4, 25.1)}

PREDICTED = {1.0: 0.0, 0.5: 0.113, 0.0: 0.4866}
MEASURED = {
    1.0: (0.0007, 0.0011, 0.0009),
    0.5: (0.1128, 0.1140, 0.1131),
    0.0: (0.51, 0.511, 0.5105),
}


@pytest.fixture(scope="module")
def results() -> Iterator[Any]:
    """The script, which is not part of the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS / "scripts"))
        yield importlib.import_module("results")
        for name in [name for name in sys.modules if name.partition("_")[0] == "results"]:
            del sys.modules[name]


def write_run(
    folder: Path, name: str, schedule: str, seed: int, metrics: dict[str, float],
    changed: dict[str, Any], varied: dict[str, Any],
) -> None:  # fmt: skip
    """A run's folder as training writes it, with the given metrics."""
    config = load_experiment(str(ROOT / f"experiments/{name}.py")).get_config(schedule)
    config.update_from_flattened_dict({**changed, **varied, "seed": seed})
    path = folder / run_name(schedule, seed, varied)
    path.mkdir(parents=True)
    result = {
        "status": "finished", "config": to_json(config.to_dict()),
        "overrides": {**changed, **varied, "schedule.name": schedule, "seed": seed},
        "steps": config.train.num_steps, "metrics": metrics, "wall_seconds": 9.0,
        "best_step": config.train.num_steps - seed,
    }  # fmt: skip
    (path / "result.json").write_text(json.dumps(result))
    prob = varied.get("schedule.teacher_prob", 1.0)
    ends = {one.replace("test/", "eval/"): value for one, value in metrics.items()}
    records = [
        {"step": step, "train/teacher_prob": prob, "train/gold_share": prob, **ends}
        for step in (1, config.train.num_steps)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))


def write_g2p(folder: Path, rows: dict[str, dict], changed: dict[str, Any] | None = None) -> Path:
    for schedule, values in rows.items():
        for seed, (own, gold, wer) in enumerate(
            zip(values["own"], values["gold"], values["wer"], strict=True)
        ):
            metrics = {
                "test/own/token_accuracy": own, "test/gold/token_accuracy": gold,
                "test/gap": gold - own, "test/own/wer": wer,
            }  # fmt: skip
            write_run(folder, "g2p", schedule, seed, metrics, changed or {}, {})
    return folder


def write_markov(folder: Path, measured: dict[float, tuple[float, ...]]) -> Path:
    for prob, values in measured.items():
        for seed, value in enumerate(values):
            metrics = {"eval/kl_to_truth": value, "eval/kl_predicted": PREDICTED[prob]}
            varied = {"schedule.teacher_prob": prob}
            write_run(folder, "markov", "constant", seed, metrics, {}, varied)
    return folder


def write_reverse(folder: Path) -> Path:
    """Two schedules, two seeds, with scores on longer strings that do not differ."""
    for schedule in ("teacher_forcing", "linear"):
        for seed, cer in enumerate((0.4, 0.6)):
            metrics = {
                "test/own/token_accuracy": 0.98, "test/gold/token_accuracy": 0.99,
                "test/gap": 0.01 + seed / 1000, "test/own/cer": cer,
                "test_long/own/token_accuracy": 0.3 + seed / 100, "test_long/gap": 0.2,
                "test_long/own/cer": 60 + seed * (1 if schedule == "linear" else -1),
            }  # fmt: skip
            changed = {"model.hidden_size": 64, "data.data_dir": "somewhere/else"}
            write_run(folder, "reverse", schedule, seed, metrics, changed, {})
    return folder


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory) -> dict[str, Path]:
    """A finished sweep of three tasks."""
    root = tmp_path_factory.mktemp("runs")
    rows = {"teacher_forcing": BASE, "linear": WORSE, "exponential": ALIKE}
    return {
        "g2p": write_g2p(root / "g2p", rows, REDUCED),
        "reverse": write_reverse(root / "reverse"),
        "markov": write_markov(root / "markov", MEASURED),
    }


@pytest.fixture(scope="module")
def written(results, sweeps, tmp_path_factory) -> Path:
    """The folder with the page of these sweeps."""
    folder = tmp_path_factory.mktemp("docs")
    named = [f"{name}={path}" for name, path in sweeps.items()]
    assert results.main([*named, f"--out={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def page(written) -> str:
    return (written / "results.md").read_text(encoding="utf-8")


def sections(page: str) -> dict[str, str]:
    """Second-level heading -> its text."""
    found = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every table, headings first, without the alignment row."""
    found: list[list[list[str]]] = []
    before = ""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| :--"):
            if not before.startswith("|"):
                found.append([])
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        before = line
    return found


def lists(text: str) -> tuple[str, str]:
    """The lines of what can be concluded and what cannot."""
    can, cannot = text.split("**What can be concluded**")[1].split("**What cannot be concluded**")
    return can, cannot.partition("\n### ")[0]


def seeds_flag(name: str, count: int) -> int | None:
    """The value of --seeds for the first seeds of an experiment; None if these are all seeds."""
    own = {one["seed"] for one in sweep_of(str(ROOT / f"experiments/{name}.py"))}
    return None if len(own) == count else count


def check_numbers(page: str) -> None:
    """Checks that all tables have n, and all means, differences and conclusions an interval."""
    found = tables(page)
    assert found
    for headings, *rows in found:
        place = headings.index("n")
        with_interval = any("interval" in one for one in headings)
        for row in rows:
            assert int(row[place]) >= 2, row
            for name, cell in zip(headings[place + 1 :], row[place + 1 :], strict=True):
                if with_interval and "interval" in name:
                    low, high = map(float, re.fullmatch(r"\[(\S+), (\S+)\]", cell).groups())  # type: ignore[union-attr]  # a None fails here, too
                    assert low <= high
                elif not with_interval and cell != NO_INTERVAL:
                    assert re.fullmatch(r"-?\d+\.\d+ ± +\d+\.\d+( \(n=\d+\))?", cell), cell
    for section in sections(page).values():
        for line in lists(section)[0].splitlines():
            if re.search(r"\d\.\d", line):
                assert re.search(r"n=\d+", line), line
                assert re.search(r"\[\S+, \S+\]|± \d", line), line


def test_no_number_without_n_and_an_interval(page):
    check_numbers(page)
    assert len(tables(page)) > 8


def test_the_page_of_the_repository_is_one(results):
    page = (DOCS / "results.md").read_text(encoding="utf-8")
    check_numbers(page)
    assert set(sections(page)) <= {task.title for task in results.TASKS.values()}
    shown = re.findall(r"\]\(images/(results_\w+\.png)\)", page)
    assert {path.name for path in DOCS.glob("images/results_*")} == set(shown)
    for name in shown:
        assert (DOCS / "images" / name).stat().st_size < 150_000


def test_the_figures_are_small_pictures_and_all_are_shown(written, page):
    shown = re.findall(r"!\[[^\]]+\]\(images/([\w.]+)\)", page)
    assert sorted(shown) == sorted(path.name for path in (written / "images").iterdir())
    assert {name.split("_")[1] for name in shown} == {"g2p", "reverse", "markov"}
    for name in shown:
        path = written / "images" / name
        assert path.stat().st_size < 150_000
        assert np.asarray(Image.open(path).convert("L")).std() > 5
    for task in ("g2p", "reverse"):
        assert 2 <= sum(name.startswith(f"results_{task}") for name in shown) <= 4


def test_means_and_differences_are_those_of_the_runs(page):
    scores, against = tables(sections(page)["Spelling to phonemes"])[:2]
    wer = scores[0].index("WER % (own)")
    found = estimate(BASE["wer"])
    assert scores[1][0] == "teacher_forcing"
    assert scores[1][wer] == f"{found.mean:.2f} ± {found.half_width:.2f}"
    difference = np.mean(np.subtract(WORSE["wer"], BASE["wer"]))
    assert against[1][:3] == ["linear", "3", f"{difference:+.2f}"]


def test_only_differences_are_concluded(page):
    can, cannot = lists(sections(page)["Spelling to phonemes"])
    assert "linear: higher (worse) than teacher_forcing at n=3 (WER +" in can
    assert "exponential: not distinguishable from teacher_forcing at n=3 (WER" in cannot
    assert "exponential: not" not in can
    assert "linear: higher" not in cannot
    assert "3 seeds give only a first impression" in cannot
    assert "Gold minus own, with 95 % t-intervals that exclude 0: teacher_forcing 6.73 ±" in can
    # Two of three runs were better on dev before the end.
    assert "3 of 9 runs were at their best on dev when they ended" in cannot


@pytest.fixture
def conclude(results, tmp_path) -> Callable[..., tuple[str, str]]:
    """Conclusions of a sweep on g2p, without its figures."""

    def find(rows: dict[str, dict], **changes: Any) -> tuple[str, str]:
        sweep = results.read_sweep("g2p", write_g2p(tmp_path / "sweep", rows, changes))
        names = results.metric_names(sweep.runs)
        differences = results.find_differences(sweep.runs, names)
        found = results.results_conclusions.find_conclusions(sweep, differences, ["test/own/wer"])
        return "\n".join(found[0]), "\n".join(found[1])

    return find


def test_why_a_gap_is_narrower(conclude):
    can, _ = conclude({"teacher_forcing": BASE, "linear": WORSE, "exponential": NARROWER})
    (lost,) = re.findall(r"^linear: lower than .*gap.*$", can, re.MULTILINE)
    assert "Gold prefixes lose more than own ones: gold accuracy -3.87 [" in lost
    (gained,) = re.findall(r"^exponential: lower than .*gap.*$", can, re.MULTILINE)
    assert "Own prefixes do better: own accuracy +2.07 [" in gained


def test_a_narrower_gap_may_have_unknown_causes(conclude):
    noisy = {"own": (0.93, 0.925, 0.93), "gold": (0.979, 0.969, 0.978), "wer": BASE["wer"]}
    can, cannot = conclude({"teacher_forcing": BASE, "linear": noisy})
    assert "It is not shown that own prefixes do better: own accuracy +" in can
    assert cannot.startswith("linear: the same as teacher_forcing")
    assert "are equal" not in cannot


def test_a_gap_whose_interval_contains_0_is_not_shown(conclude):
    same = {**BASE, "gold": (0.921, 0.928, 0.925)}
    can, cannot = conclude({"teacher_forcing": BASE, "linear": same})
    assert "that exclude 0: teacher_forcing" in can
    (line,) = [line for line in cannot.splitlines() if line.startswith("that own prefixes cost")]
    assert ": linear 0.03 ± " in line
    assert "teacher_forcing" not in line


@pytest.mark.parametrize(
    ("count", "said", "unsaid"),
    [
        (2, "2 seeds give only a first impression", "a claim about"),
        (5, "a claim about", "a first impression"),
        (10, "", "claim"),
    ],
)
def test_the_page_says_what_the_number_of_seeds_allows(conclude, count, said, unsaid):
    noise = np.random.default_rng(0).normal(0, 0.3, (2, count))
    rows = {
        name: {"own": 0.9 + 0.01 * one, "gold": 0.95 + 0.01 * one, "wer": 30 + one}
        for name, one in zip(("teacher_forcing", "linear"), noise, strict=True)
    }
    _, cannot = conclude(rows)
    assert said in cannot
    assert unsaid not in cannot


def test_metrics_at_the_end_of_their_scale_show_nothing(conclude):
    perfect = {**BASE, "wer": (0.0, 0.2, 0.0)}
    _, cannot = conclude({"teacher_forcing": perfect, "linear": perfect})
    assert "much by WER: all 6 runs are between 0.00 and 0.20 %" in cannot


def test_unequal_budgets_and_runs_left_out_are_limits(results, tmp_path):
    folder = write_g2p(tmp_path, {"teacher_forcing": BASE, "linear": WORSE})
    assert "equal budgets" not in "".join(results.results_conclusions.limits(
        results.read_sweep("g2p", folder)
    ))  # fmt: skip
    for path in folder.glob("linear/*/result.json"):
        path.write_text(path.read_text().replace('"wall_seconds": 9.0', '"wall_seconds": 99.0'))
    (folder / "linear/seed_2/result.json").unlink()
    limits = "\n".join(results.results_conclusions.limits(results.read_sweep("g2p", folder)))
    assert "what equal budgets would give: wall-clock time differs" in limits
    assert "the runs that were left out would have changed: linear/seed_2" in limits
    assert "2 to 3 seeds give only a first impression" in limits


def test_the_command_gives_the_configs_of_the_runs(page, sweeps, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert "somewhere" not in page
    for title, name in (("Spelling to phonemes", "g2p"), ("Reversal", "reverse")):
        (line,) = re.findall(r"^s2s (sweep .*)$", sections(page)[title], re.MULTILINE)
        words = shlex.split(line)
        flags = [one for one in words if one.startswith("--config.")]
        options = make_parser().parse_args([one for one in words if one not in flags])
        assert options.seeds == seeds_flag(name, 2 if name == "reverse" else 3)
        for path in sweeps[name].glob("*/seed_*/result.json"):
            config = json.loads(path.read_text())["config"]
            file = f"--config={options.config}:{config['schedule']['name']}"
            made, _, _ = parse_config([file, *flags])
            found = {key: to_json(value) for key, value in flat_keys(made).items()}
            for key, value in found.items():
                here = config
                for part in key.split("."):
                    here = here[part]
                assert here == value or key in ("seed", "data.data_dir"), key


def test_what_a_run_leaves_is_what_a_page_needs(results, finished, tmp_path):
    """Copies of a trained run with another seed and schedule."""
    result = json.loads((finished / "result.json").read_text())
    result["config"]["data"]["name"] = "cmudict"
    for schedule in ("teacher_forcing", "inverse_sigmoid"):
        for seed in range(2):
            result["config"]["seed"], result["config"]["schedule"]["name"] = seed, schedule
            path = tmp_path / run_name(schedule, seed, {})
            path.mkdir(parents=True)
            (path / "result.json").write_text(json.dumps(result))
            for name in ("metrics.jsonl", "predictions_test.jsonl"):
                shutil.copy(finished / name, path)
    sweep = results.read_sweep("g2p", tmp_path)
    page = results.make_page([sweep], "python results.py")
    text = "\n\n".join(page.parts)
    check_numbers(text)
    assert "inverse_sigmoid: the same as teacher_forcing in each of 2 seeds (WER)" in text
    labels = tables(text)[0][0]
    assert {"accuracy % (gold)", "accuracy % (own)", "WER % (own)", "gap %"} <= set(labels)
    assert {name.removesuffix(".png") for name in page.pictures} == {
        f"results_g2p_{what}" for what in ("schedules", "learning", "scores", "prefixes")
    }


def test_overrides_set_by_hand_are_reported_but_varied_keys_are_not(page, results, tmp_path):
    chain = sections(page)["A Markov chain"]
    flag = "" if seeds_flag("markov", 3) is None else " --seeds=3"
    assert f"\ns2s sweep --config=experiments/markov.py --workdir=runs/markov{flag}\n" in chain
    assert "by hand" not in page
    write_g2p(tmp_path, {"teacher_forcing": BASE})
    write_g2p(tmp_path, {"linear": WORSE}, {"schedule.floor": 0.25})
    sweep = results.read_sweep("g2p", tmp_path)
    text = results.results_sweeps.to_markdown(sweep)
    assert "Set for some runs by hand: schedule.floor." in text
    assert "schedule.floor=" not in sweep.command


def test_a_reduced_size_is_reported(page, results, tmp_path):
    text = sections(page)["Spelling to phonemes"]
    assert "`train.num_steps` is 2,000 instead of 34,000" in text
    assert "`model.hidden_size` is 128 instead of 384" in text
    assert "updates, reduced size" in page
    full = results.read_sweep(
        "g2p", write_g2p(tmp_path, {"teacher_forcing": BASE, "linear": WORSE})
    )
    assert "Reduced" not in results.results_sweeps.to_markdown(full)
    flag = "" if seeds_flag("g2p", 3) is None else " --seeds=3"
    assert full.command == f"s2s sweep --config=experiments/g2p.py --workdir=runs/g2p{flag}"


def test_more_seeds_than_the_experiments_have_are_reported(results, tmp_path):
    more = {name: (*values, values[0] + 0.001, values[1] + 0.001) for name, values in BASE.items()}
    folder = write_g2p(tmp_path, {"teacher_forcing": more, "linear": more})
    for path in folder.glob("*/seed_0"):
        path.rename(path.with_name("seed_17"))
    for path in folder.glob("*/seed_17/result.json"):
        path.write_text(path.read_text().replace('"seed": 0', '"seed": 17'))
    sweep = results.read_sweep("g2p", folder)
    assert "The seeds are 1, 2, 3, 4, 17;" in results.results_sweeps.to_markdown(sweep)
    assert "--seeds" not in sweep.command


def test_longer_strings_have_their_own_table(page):
    text = sections(page)["Reversal"]
    of_test, of_long = text.split("### Reversal: `test`")[1].split("### Reversal: `test_long`")
    assert "test_long split" not in of_test
    assert "Against teacher_forcing by CER (lower is better), test_long split" in of_long
    assert "CER % (own)" in tables(of_long)[0][0]
    assert "On test_long: " in text


def test_measurements_are_shown_next_to_predictions(page):
    headings, *rows = tables(sections(page)["A Markov chain"])[0]
    assert [row[0] for row in rows] == ["1", "0.5", "0"]
    assert [row[headings.index("predicted")] for row in rows] == ["0.0000", "0.1130", "0.4866"]
    found = estimate(MEASURED[0.5])
    assert rows[1][headings.index("measured")] == f"{found.mean:.4f} ± {found.half_width:.4f}"
    assert [row[-1] for row in rows] == ["no", "yes", "no"]
    can, cannot = lists(sections(page)["A Markov chain"])
    assert "teacher_prob 0.5: predicted 0.1130, measured 0.1133 ± 0.0016 nats at n=3: no" in can
    assert "teacher_prob 0: predicted 0.4866, measured 0.5105 ± 0.0012 nats at n=3: more" in cannot
    assert "damage against constant (teacher_prob=1.0) predicted +0.1130, measured +0.1124" in can
    assert "at n=3: as predicted" in can
    assert "at n=3: more than predicted" in can
    assert "the measured distance grows wherever teacher_prob falls" in can


def test_overlapping_intervals_show_no_order(results, tmp_path):
    measured = {**MEASURED, 0.5: (0.45, 0.55, 0.52)}  # separate from that of 1, but not of 0
    sweep = results.read_sweep("markov", write_markov(tmp_path, measured))
    rows = results.results_theory.theory_rows(sweep)
    against = results.results_theory.differences(sweep, rows)
    _, cannot = results.results_theory.find_conclusions(rows, against)
    assert any(line.startswith("that the measured distance grows") for line in cannot)


def test_a_chain_without_a_prediction_is_rejected(results, tmp_path, capsys):
    folder = write_markov(tmp_path / "runs", MEASURED)
    path = next(folder.glob("*/seed_0/result.json"))
    path.write_text(path.read_text().replace("kl_predicted", "other"))
    assert results.main([f"markov={folder}", f"--out={tmp_path / 'docs'}"]) == 2
    assert "has no eval/kl_predicted; see docs/theory.md" in capsys.readouterr().err


def test_bad_input_is_one_line_and_exit_code_2_and_writes_nothing(
    results, sweeps, tmp_path, capsys, snapshot
):
    docs = tmp_path / "docs"
    (docs / "images").mkdir(parents=True)
    (docs / "results.md").write_text("old")
    (docs / "images/results_old.png").write_text("old")
    one_seed = write_g2p(tmp_path / "one", {"teacher_forcing": BASE, "linear": WORSE})
    for seed in (1, 2):
        (one_seed / f"linear/seed_{seed}/result.json").unlink()
    (tmp_path / "empty").mkdir()
    before = snapshot(docs)
    for arguments, message in (
        ([f"g2b={sweeps['g2p']}"], "there is no section 'g2b'; did you mean 'g2p'?"),
        (["g2p"], "g2p names no sweep; write NAME=FOLDER"),
        (["g2p=nowhere"], "there is no folder nowhere"),
        ([f"g2p={tmp_path / 'empty'}"], "there are no runs in"),
        ([f"g2p={sweeps['g2p'] / 'linear/seed_0'}"], "there are no runs in"),
        ([f"g2p={one_seed}"], "has one finished seed of linear; an interval needs two"),
        ([f"g2p={sweeps['reverse']}"], "is a sweep on reverse; that of g2p is on cmudict"),
        ([f"g2p={sweeps['g2p']}", f"g2p={sweeps['g2p']}"], "g2p is named twice"),
        ([f"g2p={sweeps['g2p']}", "markov=nowhere"], "there is no folder nowhere"),
        ([], "the following arguments are required"),
        (["--no-such-flag", "g2p=x"], "unrecognized arguments"),
    ):
        assert results.main([*arguments, f"--out={docs}"]) == 2
        out, err = capsys.readouterr()
        assert err.startswith("results.py: ")
        assert message in err
        assert err.count("\n") == 1
        assert not out
        assert snapshot(docs) == before


def test_a_page_is_written_completely_or_not_at_all(results, tmp_path, snapshot, monkeypatch):
    (tmp_path / "images").mkdir()
    for name in ("results.md", "images/results_old.png", "images/g2p_learning.png"):
        (tmp_path / name).write_text("old")
    before = snapshot(tmp_path)
    page = results.Page(["# Results"], {"results_new.png": b"new", "results_b.png": b"b"})
    real = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if data == b"# Results\n":
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LabError, match="No space left"):
        results.write(page, tmp_path)
    assert snapshot(tmp_path) == before
    monkeypatch.undo()
    results.write(page, tmp_path)
    files = {name: data for name, data in snapshot(tmp_path).items() if data is not None}
    assert files == {
        "results.md": b"# Results\n",
        "images/results_new.png": b"new",
        "images/results_b.png": b"b",
        "images/g2p_learning.png": b"old",
    }


def test_the_same_runs_give_the_same_page(results, sweeps, written, tmp_path, snapshot):
    assert results.main([f"markov={sweeps['markov']}", f"--out={tmp_path}"]) == 0
    found, before = snapshot(tmp_path), snapshot(written)
    for name, data in found.items():
        if name.endswith(".png"):
            assert before[name] == data, name
    text = sections((tmp_path / "results.md").read_text())
    whole = sections((written / "results.md").read_text())
    assert text == {"A Markov chain": whole["A Markov chain"]}


def test_a_figure_has_the_predictions_and_every_seed(results, sweeps):
    sweep = results.read_sweep("markov", sweeps["markov"])
    rows = results.results_theory.theory_rows(sweep)
    panel, steps = results.results_theory.theory_figure(sweep, rows).axes
    predicted = panel.lines[0]
    assert list(predicted.get_xdata()) == [1.0, 0.5, 0.0]
    assert list(predicted.get_ydata()) == [0.0, 0.113, 0.4866]
    drawn = [sorted(line.get_ydata()) for line in panel.lines if len(line.get_ydata()) == 3]
    for values in MEASURED.values():
        assert sorted(values) in drawn
    assert math.isclose(steps.lines[-1].get_ydata()[0], 0.4866)
    assert plots.schedule_figure(sweep.runs) is not None
