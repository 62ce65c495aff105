"""`s2s exposure`: measures the exposure bias of trained runs and writes it to their folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from s2s_jax.data.chain import ChainTruth
from s2s_jax.data.markov import known_truth
from s2s_jax.data.task import EvaluationData, Task
from s2s_jax.exposure import GROUPS as GROUPS_OF_ANY_TASK
from s2s_jax.exposure import (
    NUM_STATES,
    Measure,
    make_next_token_probs,
    measure_exposure,
    measure_known_truth,
)
from s2s_jax.lab.base.decorations import Attempt, Decorations
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.figures import to_png
from s2s_jax.lab.base.files import check_folder, write_atomic, write_json
from s2s_jax.lab.base.versions import versions
from s2s_jax.lab.evaluation.divergence import (
    MAX_ENUMERATED,
    knows_symbols,
    symbol_ids,
    told_symbols,
)
from s2s_jax.lab.exposure.plots import exposure_figure
from s2s_jax.lab.exposure.settings import EXPOSURE_FILE, RunExposure, Settings
from s2s_jax.lab.exposure.tables import to_text
from s2s_jax.lab.runs.collect import (
    finished_result,
    left_out_lines,
    run_folders,
)
from s2s_jax.lab.runs.labels import config_labels, schedule_order
from s2s_jax.lab.runs.provenance import Provenance, told_apart
from s2s_jax.lab.runs.tracking import Tracker
from s2s_jax.lab.training.trained_run import TrainedRun, load_run, load_run_task
from s2s_jax.names import did_you_mean

GROUPS = (*GROUPS_OF_ANY_TASK, "truth")
"""The groups of measures that can be requested separately."""

_USUAL = Settings()


def measure_runs(
    workdirs: Sequence[str | Path],
    settings: Settings = _USUAL,
    *,
    output: str | Path | None = None,
    report: Callable[[str], None] = print,
) -> list[RunExposure]:
    """Measures runs and writes `exposure.json` and TensorBoard curves to the folder of each.

    All runs are opened before the first is measured, and all are measured before anything is
    written.

    Args:
      workdirs: folders of runs, or of sweeps, which stand for their finished runs.
      settings: how to measure.
      output: a folder for `exposure.txt` and `exposure.png`, which show all runs side by side;
        None to write neither.
      report: takes a line of progress.

    Returns:
      The runs, sorted as in a table: by schedule, then seed.

    Raises:
      LabError, DataError: a folder has no run or no checkpoint; the runs are of different tasks;
        two runs are of the same experiment and seed; the split does not exist or has too few
        sequences; or a measure needs a known truth, which the task does not have.
    """
    _check(settings)
    if output is not None:
        check_folder(output)
    folders = find_runs(workdirs, report)
    runs = [load_run(folder, settings.checkpoint) for folder in folders]
    if "truth" in settings.groups:
        for folder, run in zip(folders, runs, strict=True):
            if known_truth(run.config.data.name, run.config.data) is None:
                raise LabError(
                    f"{folder}: the measures of 'truth' need a task whose distribution is known"
                    f" (markov, hmm), not {run.config.data.name}"
                )
    labels = _labels(folders, runs)
    found = []
    for number, (folder, label, run) in enumerate(zip(folders, labels, runs, strict=True), start=1):
        report(f"{folder} ({number} of {len(runs)}): {settings.split} split, step {run.step} ...")
        try:
            task = load_run_task(run, report)
            count, measures = _measure(run, task, settings)
        except ValueError as error:
            raise LabError(f"{folder}: {error}") from error
        seed, provenance = run.config.seed, Provenance.of(task)
        found.append(RunExposure(folder, label, seed, run.step, count, measures, provenance))
    found.sort(key=lambda one: (*schedule_order(one.label), one.seed))
    attempt = Decorations(report).attempt
    together = {} if output is None else _side_by_side(found, settings, attempt)
    if output is not None:
        _make_folder(Path(output))
    for one in found:
        _write(one, settings, attempt)
    for name, data in together.items():
        write_atomic(Path(output or "") / name, data)
    if output is not None and "exposure.png" not in together:  # one from other runs may be there
        Path(output, "exposure.png").unlink(missing_ok=True)
    return found


def find_runs(workdirs: Sequence[str | Path], report: Callable[[str], None] = print) -> list[Path]:
    """The folders of runs, without duplicates; sweeps are replaced by their finished runs.

    Args:
      workdirs: folders of runs, which need not have finished, or of sweeps.
      report: takes a line for each run of a sweep that is left out, with the reason.

    Raises:
      LabError: a folder holds neither a run nor a sweep with a finished run.
    """
    folders: dict[Path, Path] = {}
    left_out: dict[Path, tuple[str, str]] = {}
    for workdir in map(Path, workdirs):
        named = (workdir / "config.json").exists()
        found, unfinished = ([workdir], {}) if named else _finished(workdir)
        if not found:
            some = list(unfinished.items())[:3]
            reasons = "".join(f"; {folder}: {reason}" for folder, reason in some)
            raise LabError(
                f"{workdir} holds no run (no config.json) and no finished runs of a sweep"
                f" (<schedule>/seed_<n>){reasons}"
            )
        for folder in found:
            folders.setdefault(folder.resolve(), folder)
        for folder, reason in unfinished.items():
            left_out.setdefault(folder.resolve(), (str(folder), reason))
    for line in left_out_lines([one for path, one in left_out.items() if path not in folders]):
        report(line)
    return list(folders.values())


def _finished(sweep_dir: Path) -> tuple[list[Path], dict[Path, str]]:
    """The finished runs of a sweep, and the reason why each other run is left out."""
    finished: list[Path] = []
    others: dict[Path, str] = {}
    for folder in run_folders(sweep_dir):
        try:
            finished_result(folder)
        except LabError as error:
            others[folder] = str(error)
        else:
            finished.append(folder)
    return finished, others


def _labels(folders: Sequence[Path], runs: Sequence[TrainedRun]) -> list[str]:
    """Labels for the runs; runs with the same label differ only in the seed.

    Raises:
      LabError: they are of different tasks, or two of them have the same label and seed.
    """
    tasks = {run.config.data.name: folder for folder, run in zip(folders, runs, strict=True)}
    if len(tasks) > 1:
        some = ", ".join(f"{name} ({folder})" for name, folder in sorted(tasks.items()))
        raise LabError(f"the runs are of different tasks: {some}; name runs of one task")
    provenances = [run.provenance for run in runs]
    configs = [
        {**run.config.to_dict(), "provenance": own}
        for run, own in zip(runs, told_apart(provenances), strict=True)
    ]
    labels = config_labels(configs)
    seen: dict[tuple[str, int], Path] = {}
    for folder, label, run in zip(folders, labels, runs, strict=True):
        other = seen.setdefault((label, run.config.seed), folder)
        if other != folder:
            raise LabError(
                f"{folder} and {other} are the same experiment: {label} with seed"
                f" {run.config.seed}; name one of them"
            )
    return labels


def _measure(run: TrainedRun, task: Task, settings: Settings) -> tuple[int, dict[str, Measure]]:
    """The number of sequences, and every requested measure."""
    task.check_lengths(settings.split, run.model.max_length)
    data = task.evaluation(settings.split, run.config.eval.batch_size, settings.max_examples)
    sizes = {"num_resamples": settings.num_resamples, "confidence": settings.confidence}
    measures: dict[str, Measure] = {}
    groups = [name for name in settings.groups if name != "truth"]
    if groups or not settings.groups:
        measures |= measure_exposure(
            run.model,
            run.params,
            data,
            jax.random.key(settings.seed),
            max_length=task.max_decode_length(settings.split, run.model.max_length),
            groups=groups,
            min_count=settings.min_count,
            seed=settings.seed,
            **sizes,
        )
    truth = known_truth(run.config.data.name, run.config.data)
    if truth is not None and (not settings.groups or "truth" in settings.groups):
        measures |= _measure_truth(run, data, truth, settings)
    return len(data.tokens), measures


def _measure_truth(
    run: TrainedRun, data: EvaluationData, truth: ChainTruth, settings: Settings
) -> dict[str, Measure]:
    """The measures against the true chain: over all its sequences, or one sampled per source."""
    if not knows_symbols(run.vocabularies, truth):
        raise LabError(
            "the target vocabulary lacks a symbol, so the model cannot be compared with the truth"
        )
    told = told_symbols(np.asarray(data.sources), truth.length)
    num_sources = 1 if (told == told[0]).all() else len(told)
    sources = data.tokens.source
    ids, mask = sources.padded(np.arange(num_sources), int(sources.lengths.max()))
    model = make_next_token_probs(
        run.model,
        run.params,
        ids,
        mask,
        symbol_ids(run.vocabularies, truth),
        truth.length,
        batch_size=run.config.eval.batch_size,
    )

    def of_truth(prefixes: np.ndarray) -> np.ndarray:
        rows = told if num_sources > 1 else np.repeat(told[:1], len(prefixes), axis=0)
        return truth.next_token_probs(prefixes, rows)

    return measure_known_truth(
        of_truth,
        model,
        truth.num_symbols,
        truth.length,
        num_sources=num_sources,
        max_sequences=MAX_ENUMERATED,
        num_resamples=settings.num_resamples,
        confidence=settings.confidence,
        seed=settings.seed,
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"{folder} cannot be a folder: {error.strerror or error}") from error


def _side_by_side(
    runs: list[RunExposure], settings: Settings, attempt: Attempt
) -> dict[str, str | bytes]:
    """The files of all runs together: name -> content."""
    files: dict[str, str | bytes] = {"exposure.txt": to_text(runs, settings) + "\n"}
    with attempt("figure exposure.png"):
        figure = exposure_figure(runs)
        if figure is not None:
            files["exposure.png"] = to_png(figure)
    return files


def _write(run: RunExposure, settings: Settings, attempt: Attempt) -> None:
    png: bytes | None = None
    with attempt("figure exposure/curves"):
        figure = exposure_figure([run])
        if figure is not None:
            png = to_png(figure, dots_per_inch=100)
    record: dict[str, Any] = {
        "schedule": run.label,
        "seed": run.seed,
        "step": run.step,
        "num_sequences": run.num_sequences,
        "settings": asdict(settings),
        "versions": versions(),
        "provenance": run.provenance.to_dict() if run.provenance else None,
        "measures": {name: asdict(one) for name, one in run.measures.items()},
    }
    with Tracker(run.folder / "exposure") as tracker:
        for name, one in run.measures.items():
            if one.at is None:
                tracker.scalars(run.step, {f"exposure/{name}": float(one.value)})
            else:
                for place, value in zip(one.at, one.value, strict=True):
                    tracker.scalars(int(place), {f"exposure/{name}": float(value)})
        if png is not None:
            tracker.image(run.step, "exposure/curves", png)
    write_json(run.folder / EXPOSURE_FILE, record)


def _check(settings: Settings) -> None:
    unknown = [name for name in settings.groups if name not in GROUPS]
    if unknown:
        raise LabError(f"no measures {unknown[0]!r}; {did_you_mean(unknown[0], GROUPS)}")
    for name, lowest in (("max_examples", 0), ("min_count", 1), ("num_resamples", 2), ("seed", 0)):
        if getattr(settings, name) < lowest:
            raise LabError(f"{name} is {getattr(settings, name)}; it must be at least {lowest}")
    if not 0 < settings.confidence < 1:
        raise LabError(f"confidence is {settings.confidence}; it must be between 0 and 1")
    if settings.min_count > NUM_STATES and (not settings.groups or "states" in settings.groups):
        others = ",".join(name for name in GROUPS_OF_ANY_TASK if name != "states")
        raise LabError(
            f"min_count is {settings.min_count}, but decoder states are compared for only"
            f" {NUM_STATES} sequences: lower it, or leave states out (--measures={others})"
        )
