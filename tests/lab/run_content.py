"""The content of a run's folder, without measured times."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from s2s_jax.data.batching import BatchShape
from s2s_jax.lab.runs.checkpoints import Checkpoints
from s2s_jax.lab.runs.named_arrays import flatten
from s2s_jax.lab.runs.run_folder import RunFolder
from s2s_jax.lab.training.build import make_experiment
from s2s_jax.lab.training.programs import Programs, batch_template

CLOCK = {"train/seconds", "train/tokens_per_second", "train/compile_seconds"}


def records(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name not in CLOCK}
        for line in lines
    ]


def newest(folder: Path) -> tuple[int, dict[str, np.ndarray]]:
    """The newest checkpoint: its step, and its leaves by name."""
    run = RunFolder(folder)
    experiment, vocabularies = make_experiment(run.config()), run.vocabularies()
    assert vocabularies is not None
    model = experiment.make_model(vocabularies)
    objective, optimizer = experiment.make_objective(model), experiment.make_optimizer
    batch, feedback = batch_template(BatchShape(1, 1, 1)), experiment.feedback
    programs = Programs(model, objective, optimizer, batch, feedback)
    with Checkpoints(run.checkpoints, read_only=True) as checkpoints:
        step, progress = checkpoints.restore(programs.template, "latest")
    return step, flatten(progress)


def state(folder: Path) -> tuple[int, dict[str, bytes]]:
    """The newest checkpoint as bytes: its step, and its leaves by name."""
    step, leaves = newest(folder)
    return step, {name: leaf.tobytes() for name, leaf in leaves.items()}


def disown(folder: Path) -> None:
    """Makes a run's checkpoints look as if saved before their config was recorded."""
    for path in folder.glob("checkpoints/*/_CHECKPOINT_METADATA"):
        record = json.loads(path.read_text())
        del record["custom_metadata"]["belongs_to"]
        path.write_text(json.dumps(record))
