"""Damages every key in every file of a finished run: the error is one line, or nothing changes."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from s2s_jax.data.pairs import DataError
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.comparison.comparison import compare, points
from s2s_jax.lab.comparison.difference_plots import _measured_positions
from s2s_jax.lab.comparison.item_scores import read_predictions
from s2s_jax.lab.runs.collect import collect
from s2s_jax.lab.runs.progress import read_progress
from s2s_jax.lab.runs.run_folder import RunFolder
from s2s_jax.lab.training.build import make_experiment

WHOLE = ("[]", "null", "3", "{}", "1e400", 5000 * "[", "")
"""What a file or a line may contain instead of an object."""

HARMLESS = ("metrics.jsonl", "exposure.json")
"""Files of which the damaged part is left out and the rest is used."""


def damaged(value: Any) -> Iterator[tuple[str, Any]]:
    """(description, object) with one key of nested objects removed or given another type."""
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        rest = {name: one for name, one in value.items() if name != key}
        yield f"{key} gone", rest
        for other in (None, "x", [[]]):
            yield f"{key} is {other!r}", rest | {key: other}
        for what, one in damaged(inner):
            yield f"{key}.{what}", rest | {key: one}


def train(folder: Path, config: Any) -> None:
    """Reads what `s2s train` and the plan of a sweep read from an existing run."""
    run = RunFolder(folder)
    run.check(config)
    run.finished(config)
    run.seconds(12)
    run.lost_lines(12, log_every=1, evaluate_every=4)
    run.has_logged({"test/own/wer": 1.0})


def open_run(folder: Path, config: Any) -> None:
    """Reads what `load_run` reads before the checkpoint."""
    run = RunFolder(folder)
    own, vocabularies = run.config(), run.vocabularies()
    make_experiment(own)
    assert vocabularies is not None
    make_experiment(own).make_model(vocabularies)
    run.belongings()


def compare_runs(folder: Path, config: Any) -> None:
    """Compares the runs as `s2s compare` does, which leaves out the damaged one."""
    runs = collect(folder.parents[1])
    assert len(runs.compared) + len(runs.left_out) == 3
    if runs.left_out:
        raise LabError(runs.left_out[0][1])
    compare(runs)
    points(runs)


READERS: dict[str, tuple[Callable[[Path, Any], Any], ...]] = {
    "config.json": (train, open_run),
    "provenance.json": (train, open_run),
    "source_vocabulary.json": (open_run,),
    "result.json": (train, compare_runs),
    "metrics.jsonl": (train, compare_runs, lambda folder, _: read_progress(folder, "eval/x")),
    "predictions_test.jsonl": (
        lambda folder, _: read_predictions(folder / "predictions_test.jsonl"),
    ),
    "exposure.json": (lambda folder, _: _measured_positions(collect(folder.parents[1]).compared),),
}


@pytest.fixture(scope="module")
def sweep(finished, tmp_path_factory) -> Path:
    """Three runs that differ in the seed and were measured by `s2s exposure`."""
    folder = tmp_path_factory.mktemp("sweep")
    curve = {"at": [1, 2], "value": [0.5, None]}
    exposure = {
        "settings": {"split": "dev", "checkpoint": "best", "max_examples": 0, "min_count": 2},
        "measures": {f"{kind}/accuracy_by_position": curve for kind in ("gold", "own")},
    }
    for seed in range(3):
        run = Path(shutil.copytree(finished, folder / f"inverse_sigmoid/seed_{seed}"))
        result = json.loads((run / "result.json").read_text())
        result["config"]["seed"] = seed
        (run / "result.json").write_text(json.dumps(result))
        (run / "exposure.json").write_text(json.dumps(exposure))
    assert _measured_positions(collect(folder).compared) is not None
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_one_line(sweep, make_config, name):
    folder, config = sweep / "inverse_sigmoid" / "seed_0", make_config()
    path = folder / name
    before = path.read_text()
    first, rest = before.split("\n", 1) if name.endswith("l") else (before, "")
    cases = [(what, json.dumps(value)) for what, value in damaged(json.loads(first))]
    if name == "result.json":  # the parts of its config that are read
        cases = [one for one in cases if not one[0].startswith(("config.model", "config.eval"))]
    lines: list[str] = []
    try:
        for what, text in [*cases, *((f"all is {text[:5]}", text) for text in WHOLE)]:
            path.write_text(f"{text}\n{rest}")
            for read in READERS[name]:
                try:
                    read(folder, config)
                except (LabError, DataError) as error:
                    lines.append(str(error))
                except Exception as error:
                    raise AssertionError(f"{name}: {what}") from error
    finally:
        path.write_text(before)
    assert lines or name in HARMLESS
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", "[]"),
        ("result.json", "3"),
        ("result.json", '{"status": "finished"}'),
        ("metrics.jsonl", '{"stop": 6}\n'),
    ],
)
def test_the_command_line_reports_it_in_one_line(copied, experiment_file, s2s, name, text):
    (copied / name).write_text(text)
    (copied / "in").write_text("ab\n")
    config = f"--config={experiment_file}:inverse_sigmoid"
    for command in (
        ("train", config, f"--workdir={copied}"),
        ("decode", copied, f"--input={copied / 'in'}"),
    ):
        code, _, err = s2s(*command)
        lines = [line for line in err.splitlines() if not line.startswith("best checkpoint: ")]
        assert (code, len(lines)) in ((0, 0), (2, 1)), err
