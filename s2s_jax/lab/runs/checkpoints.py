"""Checkpoints: the newest and the best training state of a run, written atomically."""

import contextlib
import math
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from s2s_jax.data.json_shapes import check, parse
from s2s_jax.lab.base.errors import LabError, writing
from s2s_jax.lab.base.locks import FileLock
from s2s_jax.lab.runs.array_files import (
    Shapes,
    read_arrays,
    read_metadata,
    read_shapes,
    reason_of,
    write_arrays,
)
from s2s_jax.lab.runs.named_arrays import State, checksum, flatten, unflatten

_SCORE = "score"
_CHECKSUM = "crc32"
_UNNAMED = ".new"  # suffix of a checkpoint that has not been verified yet
_BELONGS_TO = "belongs_to"
_UNCOUNTED = ("code", "data")  # for messages: other data, but another config


class Checkpoints:
    """The checkpoints of one run, each a folder of arrays written by orbax.

    Two checkpoints are kept: the newest, to resume from, and the one with the lowest score (the
    latest of equal ones), to report. Saving happens in the background. A checkpoint gets its final
    name only after the names and shapes of its arrays have been read back from disk, and only then
    are others deleted, so a save that fails or is killed leaves nothing that could be mistaken for
    a checkpoint, and deletes none.

    Only one process at a time may write: the file `<folder>.lock` next to the folder is locked
    until `close`.

    A state is a pytree of arrays. Its leaves are stored flat under their paths
    ("params.encoder.kernel"), with typed PRNG keys replaced by their data, and are restored bit for
    bit.

    Args:
      folder: contains the checkpoints, each in a folder named after its step; it is created if
        missing, and remains of killed saves are removed.
      read_only: for reading while a run may still be training: nothing is created or removed.
      belongs_to: what the states depend on, as readable name -> fingerprint. It is stored with each
        checkpoint; a restored checkpoint must agree on the names that both have.

    Raises:
      LabError: the folder cannot be created, another process is writing there, it is missing with
        read_only, or a checkpoint in it is damaged.

    Example:
      with Checkpoints("runs/x/checkpoints") as checkpoints:
          if checkpoints.latest_step is not None:
              step, state = checkpoints.restore(state)
          checkpoints.save(step, state, score=per)
    """

    def __init__(
        self,
        folder: str | Path,
        read_only: bool = False,
        belongs_to: Mapping[str, str] | None = None,
    ):
        self._belongs_to = dict(belongs_to or {})
        self._folder = Path(folder).resolve()  # orbax refuses ".."
        if read_only and not self._folder.is_dir():
            raise self._none()
        # Step -> score: checkpoints in the folder, and those that this object has written or read.
        self._scores: dict[int, float | None] = {}
        self._known: dict[int, float | None] = {}
        self._saver = ThreadPoolExecutor(1, "save checkpoint")
        self._saving: Future[None] | None = None
        with contextlib.ExitStack() as stack:
            if not read_only:  # first, since clearing could remove what another process is saving
                lock = FileLock(self._folder.with_name(f"{self._folder.name}.lock"))
                stack.callback(lock.release)
                with writing(self._folder):
                    self._folder.mkdir(parents=True, exist_ok=True)
                    _clear(self._folder)
            self._scores = dict.fromkeys(_steps(self._folder))
            self._scores = {step: self._stored_score(step) for step in self._scores}
            self._held = stack.pop_all()

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint, after pending saves; None if there is none.

        Raises:
          LabError: a pending save failed.
        """
        self.wait()
        return max(self._scores, default=None)

    @property
    def best_step(self) -> int | None:
        """The step of the checkpoint with the lowest score; None if none has a score.

        Raises:
          LabError: a pending save failed.
        """
        self.wait()
        return _best(self._scores)

    def save(self, step: int, state: Any, score: float | None = None) -> None:
        """Starts saving a state; afterwards, only the newest and the best checkpoint are kept.

        The state is copied before this returns, since the next train step may donate its buffers. A
        checkpoint that this object has already saved or restored at that step is left unchanged,
        unless it had no score and now has one. One that an earlier process left there is replaced.

        Args:
          step: the training step.
          state: a pytree of arrays.
          score: lower is better; None, or a value that is not finite, for a state that was not
            evaluated, which is never the best.

        Raises:
          LabError: this save could not be started, or the previous one failed.
        """
        score = None if score is None or not math.isfinite(score) else float(score)
        self.wait()
        if step in self._known and (score is None or self._known[step] is not None):
            return
        arrays = {name: np.array(array) for name, array in flatten(state).items()}
        with self._writing():
            self._saving = self._saver.submit(self._write, step, arrays, score)

    def check(self) -> None:
        """Checks, without waiting, whether the last save has failed.

        Raises:
          LabError: it has failed, which has not been reported before.
        """
        if self._saving is not None and self._saving.done():
            self.wait()

    def restore(
        self,
        template: State,
        step: int | Literal["latest", "best"] | None = None,
        part: str = "",
    ) -> tuple[int, State]:
        """Reads a state, or a part of it.

        Args:
          template: a state with the same structure, shapes and dtypes, whose values do not matter:
            a newly initialised one, or its shapes from `jax.eval_shape`.
          step: which checkpoint; None or "latest" for the newest, "best" for the one with the
            lowest score (the newest if none has a score).
          part: the path of a part to restore, such as "state.params"; the template is then only of
            that part, and its dtypes may differ from the saved ones. "" for the whole state.

        Returns:
          The step, and the state.

        Raises:
          LabError: the checkpoint does not exist, is of another architecture, or is damaged.
        """
        chosen, shapes, metadata = self._look_into(step)
        folder, wanted = self._folder / str(chosen), flatten(template, part)
        self._check_architecture(chosen, shapes, wanted, part)
        try:
            # Read everything, for the checksum.
            stored = read_arrays(folder, {name: np.zeros(*one) for name, one in shapes.items()})
        except Exception as error:
            raise self._broken(chosen) from error
        if metadata.get(_CHECKSUM) != checksum(stored):
            raise self._broken(chosen)
        arrays = {
            name: np.asarray(stored.get(name, array), array.dtype) for name, array in wanted.items()
        }
        self._known[chosen] = self._scores[chosen]
        return chosen, unflatten(template, arrays)

    def shapes(
        self, step: int | Literal["latest", "best"] | None = None, part: str = ""
    ) -> tuple[int, Shapes]:
        """Reads the names, shapes and dtypes of a state's arrays, or of a part; see `restore`.

        Args:
          step: which checkpoint.
          part: the path of a part.

        Returns:
          The step, and the shapes and dtypes by the path within the whole state.

        Raises:
          LabError: the checkpoint does not exist, belongs to something else, or is damaged.
        """
        chosen, shapes, _ = self._look_into(step)
        return chosen, {name: one for name, one in shapes.items() if _is_in(name, part)}

    def wait(self) -> None:
        """Waits until the pending save is on disk.

        Raises:
          LabError: it failed; raised only once.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            with self._writing():
                saving.result()

    def close(self) -> None:
        """Waits for the pending save, ends the background thread and releases the lock.

        Raises:
          LabError: the save failed.
        """
        with self._held:
            try:
                self.wait()
            finally:
                self._saver.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, step: int, arrays: dict[str, np.ndarray], score: float | None) -> None:
        """Writes a checkpoint, gives it its final name, and deletes those no longer needed."""
        metadata = {
            _CHECKSUM: checksum(arrays),
            _SCORE: score,
            _BELONGS_TO: self._belongs_to,
        }
        unnamed, named = (self._folder / f"{step}{suffix}" for suffix in (_UNNAMED, ""))
        write_arrays(unnamed, {name: one for name, one in arrays.items() if one.size}, metadata)
        if named.exists():
            shutil.rmtree(named)
        unnamed.rename(named)
        self._known[step] = score
        scores = self._scores | {step: score}
        kept = {max(scores), _best(scores)}
        for other in scores.keys() - kept:
            shutil.rmtree(self._folder / str(other), ignore_errors=True)
        self._scores = {other: score for other, score in scores.items() if other in kept}

    def _stored_score(self, step: int) -> float | None:
        folder = self._folder / str(step)
        try:
            found = read_metadata(folder)
            if _SCORE not in found:  # the format of earlier versions
                found = parse((folder / "metrics" / "metrics").read_bytes())
            check(found, {_SCORE: (float, None)})
        except OSError:  # no score, or another process is deleting it
            return None
        except ValueError as error:
            raise self._broken(step) from error
        return found[_SCORE]

    def _look_into(self, step: int | str | None) -> tuple[int, Shapes, dict[str, Any]]:
        """The number of a checkpoint, its shapes and its metadata; checks what it belongs to."""
        self.wait()
        chosen = self._resolve(step)
        folder = self._folder / str(chosen)
        try:
            shapes, metadata = read_shapes(folder), read_metadata(folder)
        except Exception as error:
            raise self._broken(chosen) from error
        self._check_owner(chosen, metadata.get(_BELONGS_TO))
        return chosen, shapes, metadata

    def _resolve(self, step: int | str | None) -> int:
        steps = sorted(self._scores)
        if not steps:
            raise self._none()
        if step is None or step == "latest":
            return steps[-1]
        if step == "best":
            return steps[-1] if self.best_step is None else self.best_step
        if step not in steps:
            raise LabError(
                f"there is no checkpoint of step {step} in {self._folder}; available steps: "
                f"{_listed(steps)}"
            )
        return int(step)

    def _check_owner(self, step: int, belongs_to: Any) -> None:
        """Compares what the checkpoint depends on with what the run's folder has."""
        there = belongs_to if isinstance(belongs_to, dict) else {}
        known = [name for name in self._belongs_to if name in there]
        others = [name for name in known if there[name] != self._belongs_to[name]]
        if others:
            other = "other" if others[0] in _UNCOUNTED else "another"
            raise LabError(
                f"the checkpoint of step {step} in {self._folder} was saved with {other}"
                f" {' and '.join(others)} than the run's folder has now; restore what was there,"
                " or train again in another workdir"
            )

    def _check_architecture(
        self, step: int, shapes: Shapes, wanted: dict[str, np.ndarray], part: str
    ) -> None:
        """Compares names, shapes and, for a whole state, dtypes; reports the first difference."""
        expected = {name: (leaf.shape, leaf.dtype) for name, leaf in wanted.items() if leaf.size}
        if part:
            shapes = {
                name: (shape, expected[name][1] if name in expected else dtype)
                for name, (shape, dtype) in shapes.items()
                if _is_in(name, part)
            }
        for name in sorted(expected | shapes, key=_params_first):
            if shapes.get(name) != expected.get(name):
                raise LabError(
                    f"the checkpoint of step {step} in {self._folder} is of another architecture: "
                    f"at {name} it has {_described(shapes.get(name))}, the model has "
                    f"{_described(expected.get(name))}; use the config that it was trained with, "
                    f"or another workdir"
                )

    def _none(self) -> LabError:
        return LabError(f"there is no checkpoint in {self._folder}; train first")

    def _broken(self, step: int) -> LabError:
        others = [other for other in sorted(self._scores) if other != step]
        if others:
            remedy = f"delete that folder to continue from the checkpoint of step {_listed(others)}"
        else:
            remedy = "there is no other, so delete that folder and train again"
        return LabError(f"the checkpoint {self._folder / str(step)} is damaged; {remedy}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (
            Exception
        ) as error:  # a full disk raises many kinds in tensorstore, orbax and the system
            reason = reason_of(error)
            raise LabError(f"cannot write a checkpoint in {self._folder}: {reason}") from error


def _is_in(name: str, part: str) -> bool:
    """Whether a path is that of a part, or of something in it."""
    return not part or name == part or name.startswith(f"{part}.")


def _steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder."""
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def _clear(folder: Path) -> None:
    """Removes the remains of killed saves."""
    for path in folder.iterdir():
        if path.name.endswith(_UNNAMED) or ".orbax-checkpoint-tmp" in path.name:
            shutil.rmtree(path, ignore_errors=True)


def _best(scores: dict[int, float | None]) -> int | None:
    """The step with the lowest score; the latest of equal ones."""
    known = {step: score for step, score in scores.items() if score is not None}
    return min(known, key=lambda step: (known[step], -step), default=None)


def _params_first(name: str) -> tuple[bool, str]:
    """Sorts weights first: users know them best, and the optimiser's state mirrors them."""
    return ("params" not in name.split("."), name)


def _described(leaf: tuple[Any, Any] | None) -> str:
    if leaf is None:
        return "nothing"
    shape, dtype = leaf
    return f"{np.dtype(dtype).name}[{','.join(map(str, shape))}]"


def _listed(steps: list[int]) -> str:
    return " and ".join(map(str, steps))
