"""Opens what `train.init_from` names: a trained run from whose parameters a new run starts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from s2s_jax.data.files import fingerprint
from s2s_jax.data.task import Task, Vocabularies
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.files import to_json
from s2s_jax.lab.config.keys import Config, config_files
from s2s_jax.lab.config.user_code import own_errors_in_a_line
from s2s_jax.lab.runs.checkpoints import Checkpoints
from s2s_jax.lab.runs.named_arrays import flatten
from s2s_jax.lab.runs.provenance import distinct_records
from s2s_jax.lab.runs.run_folder import RunFolder
from s2s_jax.lab.training.build import Experiment
from s2s_jax.lab.training.data_remarks import count_unknown
from s2s_jax.lab.training.other_runs import check_unchanged, folder_of, naming_the_key
from s2s_jax.lab.training.trained_run import TrainedRun, load_run
from s2s_jax.models.interface import Params

KEY = "train.init_from"
_PARAMS = "state.params"
_MOST_UNKNOWN = 0.25
"""The largest share of training tokens that may be unknown to the vocabularies taken along."""

_SHOWN = 2  # parameters or keys that a message names

_MAY_DIFFER = ("dropout", "dtype")
"""The options of a model that change neither its parameters nor their meaning."""


class WarmStart(NamedTuple):
    """What a new run takes along from the run that it starts from.

    Attributes:
      params: the parameters of its best checkpoint, on the host.
      vocabularies: its vocabularies.
      record: where they come from, and what the training there used; see
        `s2s_jax.lab.runs.provenance.STARTED_FROM`.
    """

    params: Params
    vocabularies: Vocabularies
    record: dict[str, Any]

    def check(self, folder: RunFolder) -> None:
        """Checks that a run which was begun before, but has no checkpoint, would start as then.

        Raises:
          LabError: it was begun from other parameters.
        """
        provenance = folder.provenance()
        before = provenance.started_from if provenance else None
        check_unchanged("from step", folder, before, self.record)


def starts_warm(config: Config, folder: RunFolder) -> bool:
    """Whether a run starts from another one: it names one, and has no checkpoint of its own yet."""
    return bool(config.train.init_from) and not folder.has_checkpoint


class WarmStarts:
    """What new runs start from; runs with the same model and start are checked only once.

    Example:
      starts = WarmStarts()
      if starts_warm(config, RunFolder(workdir)):
          start = starts.load(make_experiment(config))
    """

    def __init__(self):
        self._templates: dict[str, Params] = {}
        self._runs: dict[Path, tuple[TrainedRun, dict[str, Any]]] = {}

    def check(self, experiment: Experiment) -> None:
        """Checks that a new run can start as its config says; reads no parameters.

        Args:
          experiment: its `train.init_from` is not empty.

        Raises:
          LabError, DataError: there is no such run, it has no checkpoint, its vocabularies are of
            another kind, or its parameters have other names or shapes.
        """
        self._template(experiment)

    def load(
        self, experiment: Experiment, report: Callable[[str], None] = lambda line: None
    ) -> WarmStart:
        """Loads what a new run starts from.

        Args:
          experiment: see `check`.
          report: called with a line of progress.

        Raises:
          LabError, DataError: see `check`; or the checkpoint is damaged.
        """
        template, folder = self._template(experiment), _folder(experiment.config)
        if folder not in self._runs:
            with naming_the_key(KEY):
                run = load_run(folder, report=report)
                self._runs[folder] = run, record_of(RunFolder(folder), run)
        run, record = self._runs[folder]
        arrays = flatten(run.params, _PARAMS)
        leaves = [
            np.asarray(arrays.get(name, leaf), leaf.dtype)  # an empty one is not stored
            for name, leaf in flatten(template, _PARAMS).items()
        ]
        params = jax.tree.unflatten(jax.tree.structure(template), leaves)
        report(f"starts from {folder}, {run.origin}")
        return WarmStart(params, run.vocabularies, record)

    def _template(self, experiment: Experiment) -> Params:
        """The shapes of an experiment's parameters, which those of its start also have."""
        config, folder = experiment.config, _folder(experiment.config)
        kinds = {"source": config.data.source_vocabulary, "target": config.data.target_vocabulary}
        shared, model = config.data.shared_vocabulary, to_json(config.model.to_dict())
        about = json.dumps([str(folder), kinds, shared, model], sort_keys=True)
        if about not in self._templates:
            with naming_the_key(KEY):
                vocabularies, there = _stored(RunFolder(folder))
            for side, kind in kinds.items():
                found = getattr(vocabularies, side).kind
                if found != kind:
                    raise LabError(
                        f"{KEY}={folder}: the {side} vocabulary is of {found} there, and"
                        f" data.{side}_vocabulary is {kind} here; a run takes the vocabularies"
                        " along"
                    )
            if shared and not vocabularies.are_one:
                raise LabError(
                    f"{KEY}={folder}: source and target have different vocabularies there, and"
                    " data.shared_vocabulary is True here; a run takes the vocabularies along"
                )
            model = experiment.make_model(vocabularies)
            with own_errors_in_a_line("model.init", config_files(config).values()):
                template = jax.eval_shape(model.init, jax.random.key(0))
            here = {name: leaf.shape for name, leaf in flatten(template, _PARAMS).items()}
            _check_shapes(folder, there, here)
            if experiment.components["model"].is_built_in:
                _check_options(folder, RunFolder(folder).config().model, config.model)
            self._templates[about] = template
        return self._templates[about]


def check_vocabularies(experiment: Experiment, task: Task) -> None:
    """Checks that the vocabularies which a run takes along suit its data.

    Args:
      experiment: its `train.init_from` is not empty.
      task: its data, with those vocabularies.

    Raises:
      LabError: they do not know many of the training tokens.
    """
    tokens = task.training_tokens
    for side, some in (("source", tokens.source), ("target", tokens.target)):
        found = count_unknown(some)
        share = found["unknown"] / max(found["tokens"], 1)
        if share > _MOST_UNKNOWN:
            raise LabError(
                f"{KEY}={_folder(experiment.config)}: its vocabularies do not match the data:"
                f" {100 * share:.3g} % of the {side} tokens of training are unknown to them;"
                " start from a run that was trained on such data"
            )


def _folder(config: Config) -> Path:
    """The folder of the run that a config starts from."""
    return folder_of(config.train.init_from, config.seed, KEY)


def _stored(run: RunFolder) -> tuple[Vocabularies, dict[str, tuple[int, ...]]]:
    """The vocabularies of a run, and the shapes of the parameters in its best checkpoint."""
    run.config()  # raises if there is none
    vocabularies = run.vocabularies()
    if vocabularies is None:
        raise LabError(f"{run.folder} holds no trained run: its vocabularies are missing")
    with _opened(run) as checkpoints:
        _, stored = checkpoints.shapes("best", _PARAMS)
    return vocabularies, {name: shape for name, (shape, _) in stored.items()}


def _opened(run: RunFolder) -> Checkpoints:
    return Checkpoints(run.checkpoints, read_only=True, belongs_to=run.belongings())


def _check_shapes(
    folder: Path, there: dict[str, tuple[int, ...]], here: dict[str, tuple[int, ...]]
) -> None:
    """Compares the parameters of a run with those of the model; empty ones are not stored."""
    here = {name: shape for name, shape in here.items() if 0 not in shape}
    differing = [
        f"{name.removeprefix(f'{_PARAMS}.')} is {_shown(there.get(name))} there"
        f" and {_shown(here.get(name))} here"
        for name in sorted(there | here)
        if there.get(name) != here.get(name)
    ]
    _refuse(folder, differing, "; set the keys of model as that run did")


def _check_options(folder: Path, there: Config, here: Config) -> None:
    """Compares the options that may give parameters of the same shapes another meaning."""
    differing = [
        f"model.{name} is {there[name]!r} there and {value!r} here"
        for name, value in here.items()
        if name not in _MAY_DIFFER and there.get(name, value) != value
    ]
    _refuse(folder, differing)


def _refuse(folder: Path, differing: list[str], remedy: str = "") -> None:
    """Raises an error that names the first differences from the other run, if there are any."""
    if differing:
        more = f" (and {len(differing) - _SHOWN} more)" if len(differing) > _SHOWN else ""
        raise LabError(f"{KEY}={folder}: {', '.join(differing[:_SHOWN])}{more}{remedy}")


def _shown(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))


def record_of(folder: RunFolder, run: TrainedRun) -> dict[str, Any]:
    """Where parameters come from, and what was used up to the newest checkpoint there.

    That the best checkpoint is an earlier one was known only after the others had been trained.
    """
    with _opened(folder) as checkpoints:
        last = checkpoints.latest_step
    assert last is not None
    provenance = run.provenance
    before = distinct_records(provenance.started_from, provenance.teacher) if provenance else []
    tokens = [folder.target_tokens(last), *(one["target_tokens"] for one in before)]
    parameters = [
        part for name, one in sorted(flatten(run.params).items()) for part in (name, one.tobytes())
    ]
    return {
        "workdir": str(folder.folder),
        "step": run.step,
        "parameters": fingerprint(*parameters),
        "updates": last + sum(one["updates"] for one in before),
        "target_tokens": None if None in tokens else sum(tokens),
        "wall_seconds": round(folder.seconds(last) + sum(one["wall_seconds"] for one in before), 1),
    }
