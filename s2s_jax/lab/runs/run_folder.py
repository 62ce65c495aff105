"""A run's folder: its files, and checks that a run may start or continue there."""

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from s2s_jax.data.files import fingerprint, write_whole
from s2s_jax.data.task import Vocabularies
from s2s_jax.lab.base.errors import LabError, writing
from s2s_jax.lab.base.files import read_json, read_jsonl, to_json, why_not_writable, write_json
from s2s_jax.lab.base.locks import lock_owner
from s2s_jax.lab.base.versions import versions
from s2s_jax.lab.config.keys import Config, Overrides, config_files, flat_keys
from s2s_jax.lab.config.user_code import (
    CODE_FOLDER,
    ENVIRONMENT,
    Modules,
    content_of,
    copied_files,
    fingerprints,
)
from s2s_jax.lab.runs.provenance import (
    PROVENANCE,
    PROVENANCE_FILE,
    Provenance,
    belongings,
    differing_code,
    differing_data,
    differing_switches,
    switches,
    vocabulary_fingerprints,
)
from s2s_jax.lab.runs.result_shapes import CONFIG, METRICS_FILE, METRICS_LINE, RESULT

_TARGET = "target_vocabulary"


class RunFolder:
    """The files of one run.

        config.json              the resolved config
        provenance.json          what else its result depends on; see `Provenance`
        code/                    copies of the user's own modules, if the config names any
        source_vocabulary.json   and target_vocabulary.json
        metrics.jsonl            one object per line: {"step": n, "train/loss": ..., ...}
        events.out.tfevents.*    the same for TensorBoard, with texts and images
        checkpoints/             the newest and the best state
        checkpoints.lock         locked by the process that trains; see `FileLock`
        predictions_*.jsonl      the hypotheses of each test split
        result.json              how it ended

    Args:
      workdir: the folder.
    """

    def __init__(self, workdir: str | Path):
        self.folder = Path(workdir)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint from which the run would continue."""
        return any(path.name.isdecimal() for path in self.checkpoints.glob("*"))

    def trained_by(self) -> str | None:
        """The process that is training the run, as "process N on HOST"; None if there is none."""
        return lock_owner(self.folder / "checkpoints.lock")

    def result(self) -> dict[str, Any] | None:
        """The content of `result.json`; None if it does not exist."""
        path = self.folder / "result.json"
        return read_json(path, RESULT) if path.exists() else None

    def config(self) -> Config:
        """The config that the run was started with.

        Raises:
          LabError: it is missing or damaged.
        """
        path = self.folder / "config.json"
        if not path.exists():
            raise LabError(f"{self.folder} holds no run: there is no {path.name}")
        config = read_json(path, CONFIG)
        try:
            return _from_json(config)
        except (
            TypeError,
            ValueError,
            AttributeError,
        ) as error:  # values that ConfigDict cannot hold
            raise LabError(f"{path} is damaged: {error}; delete it or recreate it") from error

    def provenance(self) -> Provenance | None:
        """What its result depends on besides its config; None if that was not recorded."""
        path = self.folder / PROVENANCE_FILE
        if not path.exists():
            return None
        return Provenance.from_dict(read_json(path, PROVENANCE))

    def finished(self, config: Config) -> dict[str, Any] | None:
        """The `result.json` of a run that has made all its updates; None for any other run.

        It is not enough that it says "finished": the checkpoint of the last update must also exist,
        unless all checkpoints have been deleted.
        """
        result, last = self.result(), config.train.num_steps
        if result is None or result["status"] != "finished" or result["steps"] != last:
            return None
        there = (self.checkpoints / str(last)).is_dir() or not self.checkpoints.exists()
        return result if there else None

    def check(self, config: Config) -> None:
        """Checks that the folder is free or holds a run with this config; writes nothing.

        Raises:
          LabError: the folder holds a run with another config (the message has the first keys that
            differ), other code, other JAX switches or replaced vocabularies; it holds a result
            without a config; it cannot be written to; or it is a file.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise LabError(f"workdir {self.folder} is a file; name a folder")
        there = next(one for one in (self.folder, *self.folder.absolute().parents) if one.exists())
        code = why_not_writable(there) if there.is_dir() else errno.ENOTDIR
        if code:
            raise LabError(f"cannot write to workdir {self.folder}: {os.strerror(code)}: {there}")
        if not (self.folder / "config.json").exists():
            if self.folder.is_dir() and (self.folder / "result.json").exists():
                raise LabError(
                    f"workdir {self.folder} holds a result without its config.json;"
                    " name another workdir"
                )
            return
        there, here = flat_keys(self.config()), flat_keys(_from_json(to_json(config.to_dict())))
        keys = [
            key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)
        ]
        # The options of another component are other keys; its name says it all.
        renamed = [key.removesuffix("name") for key in keys if key.endswith(".name")]
        differing = [
            f"{key} is {there.get(key)!r} there and {here.get(key)!r} here"
            for key in keys
            if key.endswith(".name") or not any(key.startswith(section) for section in renamed)
        ]
        if differing:
            more = f" (and {len(differing) - 2} more)" if len(differing) > 2 else ""
            raise LabError(
                f"workdir {self.folder} holds another config: {', '.join(differing[:2])}{more};"
                " name another workdir"
            )
        provenance = self.provenance()
        if provenance is not None:
            changed = differing_code(provenance.code, fingerprints(config_files(config)))
            if changed:
                raise LabError(
                    f"workdir {self.folder} holds a run of other code: {', '.join(changed)} has"
                    " changed since it was started; restore it, or name another workdir"
                )
            differing = differing_switches(provenance.switches, switches())
            if differing:
                raise LabError(
                    f"workdir {self.folder} holds a run with other JAX switches:"
                    f" {', '.join(differing)}; set them as they were, or name another workdir"
                )
        self.vocabularies()  # raises if they have been replaced

    def check_data(self, fingerprints: Mapping[str, str]) -> None:
        """Checks that the data are those which the run was started with.

        Args:
          fingerprints: of the current data.

        Raises:
          LabError: they differ; the message says which.
        """
        provenance = self.provenance()
        differing = differing_data(provenance.data, fingerprints) if provenance else ""
        if differing:
            raise LabError(
                f"workdir {self.folder} holds a run of other {differing}: the content has changed"
                " since it was started; restore it, or name another workdir"
            )

    def make_folder(self) -> None:
        """Creates the folder.

        Raises:
          LabError: it cannot be created.
        """
        with writing(f"to workdir {self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)

    def modules(self, report: Callable[[str], None] = lambda line: None) -> Modules:
        """Finds the run's components in its copies of the user's own modules.

        Args:
          report: takes a line for each of the user's files that has changed since.

        Raises:
          LabError: the copies are not what the run was started with.
        """
        provenance = self.provenance()
        if provenance is None or not provenance.code:
            return ENVIRONMENT
        altered = differing_code(provenance.code, fingerprints(copied_files(self.folder)))
        if altered:
            raise LabError(
                f"{self.folder / CODE_FOLDER / altered[0]} is not what the run was started with;"
                " restore it"
            )
        there = {name: Path(about["file"]) for name, about in provenance.code.items()}
        here = {
            name: fingerprint(path.read_bytes()) for name, path in there.items() if path.is_file()
        }
        for name in differing_code(provenance.code, here):
            if name in here:
                report(
                    f"{there[name]} has changed since {self.folder} was started; its copy is used"
                )
        return Modules(self.folder / CODE_FOLDER)

    def start(
        self,
        config: Config,
        vocabularies: Vocabularies,
        provenance: Provenance,
        files: Mapping[str, Path] | None = None,
    ) -> None:
        """Writes the files that a run starts with; keeps those of an earlier start of the same run.

        Args:
          config: the run's config.
          vocabularies: the run's vocabularies.
          provenance: the run's current provenance.
          files: the user's own files, from `user_files`.

        Raises:
          LabError: the folder cannot be written to, or it now holds a run with another config or
            other data.
        """
        new = not (self.folder / "config.json").exists()
        with writing(f"to workdir {self.folder}"):
            if new or not (self.folder / "target_vocabulary.json").exists():
                vocabularies.save(self.folder)
            if new:
                for name, path in (files or {}).items():
                    copy = self.folder / CODE_FOLDER / name
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    write_whole(copy, content_of(path))
                write_json(self.folder / PROVENANCE_FILE, provenance.to_dict())
                write_json(self.folder / "config.json", config.to_dict())
        self.check(config)  # another process may have started a run here in the meantime
        self.check_data(provenance.data)

    def vocabularies(self) -> Vocabularies | None:
        """The vocabularies saved with the run; None before it is started.

        Raises:
          LabError: they are not those which the run was started with.
          DataError: they are damaged.
        """
        if not all((self.folder / f"{one}.json").exists() for one in ("config", _TARGET)):
            return None
        vocabularies, provenance = Vocabularies.load(self.folder), self.provenance()
        if provenance is not None:
            for side, found in vocabulary_fingerprints(vocabularies).items():
                if provenance.vocabularies.get(side) != found:
                    raise LabError(
                        f"{self.folder / f'{side}_vocabulary.json'} is not the vocabulary that the"
                        " run was started with; restore that, or train again in another workdir"
                    )
        return vocabularies

    def belongings(self) -> dict[str, str]:
        """What the run's checkpoints depend on; see `provenance.belongings`."""
        vocabularies, provenance = self.vocabularies(), self.provenance()
        known = {} if vocabularies is None else vocabulary_fingerprints(vocabularies)
        return belongings(
            self.config(),
            known,
            provenance.data if provenance else None,
            provenance.code if provenance else {},
        )

    def predictions(self, split: str) -> Path:
        """The file of a split's hypotheses."""
        return self.folder / f"predictions_{split}.jsonl"

    def seconds(self, step: int | None) -> float:
        """The wall-clock time that the run had taken at a step's checkpoint; 0 for a new run."""
        if step is None:
            return 0.0
        earlier = (one for one in self._records() if one["step"] <= step)
        logged = max((one.get("train/seconds") or 0.0 for one in earlier), default=0.0)
        result = self.result() or {}
        stopped_there = result.get("steps") == step
        return max(logged, result["wall_seconds"]) if stopped_there else logged

    def target_tokens(self, step: int) -> int | None:
        """The target tokens that the run was trained on up to a step; None if none were counted.

        If they were last counted at an earlier step, the rest is estimated from the mean.
        """
        counted = [
            (one["step"], tokens)
            for one in self._records()
            if one["step"] <= step and (tokens := one.get("train/target_tokens"))
        ]
        if not counted:
            return None
        last, tokens = counted[-1]
        return round(tokens * step / last)

    def lost_lines(self, step: int, *, log_every: int, evaluate_every: int) -> str:
        """Which lines up to a step are missing in `metrics.jsonl`, in words; "" if it is complete.

        Args:
          step: the step of the checkpoint from which the run continues.
          log_every: number of steps between lines of metrics.
          evaluate_every: number of steps between evaluations.
        """
        records = self._records()
        evaluated = {one["step"] for one in records if "eval/gold/nll" in one}
        logged = {one["step"] for one in records if "train/loss" in one}
        due = range(1, step + 1)
        lost = {one for one in due if one % evaluate_every == 0} - evaluated
        lost |= {one for one in due if one % log_every == 0} - logged
        if not lost:
            return ""
        plural = "s" if len(lost) > 1 else ""
        some = ", ".join(map(str, sorted(lost)[:3])) + (", ..." if len(lost) > 3 else "")
        return f"{self.folder / METRICS_FILE} lacks what was logged at step{plural} {some}"

    def has_logged(self, metrics: Mapping[str, float]) -> bool:
        """Whether any line of `metrics.jsonl` has these metrics."""
        return any(metrics.keys() <= one.keys() for one in self._records())

    def _records(self) -> list[dict[str, Any]]:
        path = self.folder / METRICS_FILE
        return read_jsonl(path, METRICS_LINE)[0] if path.exists() else []

    def write_result(
        self,
        status: str,
        config: Config,
        overrides: Overrides,
        steps: int,
        wall_seconds: float,
        metrics: Mapping[str, float] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Writes and returns `result.json`."""
        provenance = self.provenance()
        if provenance and provenance.started_from:
            more["started_from"] = dict(provenance.started_from)
        if provenance and provenance.teacher:
            more["teacher"] = dict(provenance.teacher)
        result = {
            "status": status,
            "config": config.to_dict(),
            "overrides": dict(overrides),
            "steps": steps,
            "metrics": dict(metrics or {}),
            "versions": versions(),
            "provenance": provenance.to_dict() if provenance else None,
            "wall_seconds": round(wall_seconds, 1),
            **more,
        }
        write_json(self.folder / "result.json", result)
        return result


def _from_json(value: Any) -> Config:
    """The config in a JSON value; lists become tuples, since no key of a config is a list."""

    def restored(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: restored(inner) for name, inner in value.items()}
        return tuple(map(restored, value)) if isinstance(value, list) else value

    return ConfigDict(restored(value)).lock()
