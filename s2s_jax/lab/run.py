"""A run's folder: what belongs to whom, and whether this run may go on there."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from s2s_jax.data.task import Vocabularies
from s2s_jax.lab.config import Config, Overrides, flat_keys
from s2s_jax.lab.errors import LabError, writing
from s2s_jax.lab.files import read_json, read_jsonl, to_json, why_not_writable, write_json
from s2s_jax.lab.tracking import METRICS_FILE
from s2s_jax.lab.versions import versions


class Run:
    """The files of one run.

        config.json              the resolved config
        source_vocabulary.json   ... target_vocabulary.json
        metrics.jsonl            one object a line: {"step": n, "train/loss": ..., ...}
        events.out.tfevents.*    the same for TensorBoard, with texts and pictures
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
        """Where the states are kept."""
        return self.folder / "checkpoints"

    def result(self) -> dict[str, Any] | None:
        """What `write_result` wrote; None before."""
        path = self.folder / "result.json"
        return read_json(path) if path.exists() else None

    def config(self) -> Config:
        """The config that the run was started with.

        Raises:
          LabError: there is none.
        """
        path = self.folder / "config.json"
        if not path.exists():
            raise LabError(f"{self.folder} holds no run: there is no {path.name}")
        return _from_json(read_json(path))

    def check(self, config: Config) -> None:
        """Refuses a folder that holds another run, or that cannot be one; writes nothing.

        Raises:
          LabError: the folder holds another config (the first keys that differ are named), or
            files that are no run's, or is a file.
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
        differing = [
            f"{key} is {there.get(key)!r} there and {here.get(key)!r} here"
            for key in sorted(there.keys() | here.keys())
            if there.get(key) != here.get(key)
        ]
        if differing:
            more = f" (and {len(differing) - 2} more)" if len(differing) > 2 else ""
            raise LabError(
                f"workdir {self.folder} holds another config: {', '.join(differing[:2])}{more};"
                " name another workdir"
            )

    def make_folder(self) -> None:
        """Makes the folder.

        Raises:
          LabError: it cannot be written.
        """
        with writing(f"to workdir {self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)

    def start(self, config: Config, vocabularies: Vocabularies) -> None:
        """Writes config and vocabularies into the folder; what is there already stays.

        Raises:
          LabError: the folder cannot be written, or holds another config by now.
        """
        with writing(f"to workdir {self.folder}"):
            if not (self.folder / "target_vocabulary.json").exists():
                vocabularies.save(self.folder)
            if not (self.folder / "config.json").exists():
                write_json(self.folder / "config.json", config.to_dict())
        self.check(config)  # another process may have come first, with another config

    def vocabularies(self) -> Vocabularies | None:
        """Those saved with the run; None before it started."""
        if not (self.folder / "target_vocabulary.json").exists():
            return None
        return Vocabularies.load(self.folder)

    def predictions(self, split: str) -> Path:
        """The file of a split's hypotheses."""
        return self.folder / f"predictions_{split}.jsonl"

    def seconds(self, step: int | None) -> float:
        """The wall time that the run had taken at a step's checkpoint; 0 for a new run."""
        if step is None:
            return 0.0
        earlier = (one for one in self._records() if one["step"] <= step)
        logged = max((one.get("train/seconds", 0.0) for one in earlier), default=0.0)
        result = self.result() or {}
        stopped_there = result.get("steps") == step
        return max(logged, result["wall_seconds"]) if stopped_there else logged

    def has_logged(self, metrics: Mapping[str, float]) -> bool:
        """Whether some line of `metrics.jsonl` has these metrics."""
        return any(metrics.keys() <= one.keys() for one in self._records())

    def _records(self) -> list[dict[str, Any]]:
        path = self.folder / METRICS_FILE
        return read_jsonl(path)[0] if path.exists() else []

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
        result = {
            "status": status,
            "config": config.to_dict(),
            "overrides": dict(overrides),
            "steps": steps,
            "metrics": dict(metrics or {}),
            "versions": versions(),
            "wall_seconds": round(wall_seconds, 1),
            **more,
        }
        write_json(self.folder / "result.json", result)
        return result


def _from_json(value: Any) -> Config:
    """The config that JSON holds. Its lists were tuples: no key of a config is a list."""

    def restored(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: restored(inner) for name, inner in value.items()}
        return tuple(map(restored, value)) if isinstance(value, list) else value

    return ConfigDict(restored(value)).lock()
