"""Training states on disk: the newest and the best of a run, each whole or not there."""

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
_UNNAMED = ".new"  # of a checkpoint that is not yet known to be whole
_BELONGS_TO = "belongs_to"


class Checkpoints:
    """The checkpoints of one run, each a folder of arrays that orbax writes.

    The newest is kept, to resume from, and the one of the lowest score, to report; of equal scores
    the latest. Saving goes on in the background; a checkpoint gets its name when it has been read
    back from the disk, and only then are others deleted: a save that is killed or fails leaves none
    that could be taken for one, and takes none away.

    One process at a time writes: a file beside the folder, `<folder>.lock`, is locked until
    `close`.

    A state is a pytree of arrays. Its leaves are stored flat, under their paths
    ("params.encoder.kernel"), with the data of typed PRNG keys in place of the keys, and come back
    bit for bit.

    Args:
      folder: where the checkpoints are, each in a folder called by its step; made where it is
        missing, and cleared of what killed saves have left.
      read_only: for a reader beside a run that may still be going on: nothing is made or cleared.
      belongs_to: what the states depend on, a name for people -> fingerprint; kept beside each, and
        one that is restored must agree in what both know.

    Raises:
      LabError: the folder cannot be made or another process writes there, or it is missing where it
        is only read; or a checkpoint in it is damaged.

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
        # Step -> score, of those in the folder, and of those that this object has written or read.
        self._scores: dict[int, float | None] = {}
        self._known: dict[int, float | None] = {}
        self._saver = ThreadPoolExecutor(1, "save checkpoint")
        self._saving: Future[None] | None = None
        with contextlib.ExitStack() as stack:
            if not read_only:  # first, since clearing away would spoil what another saves there
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
        """The step of the newest checkpoint, once what is being saved is whole; None for none.

        Raises:
          LabError: what is being saved cannot be written.
        """
        self.wait()
        return max(self._scores, default=None)

    @property
    def best_step(self) -> int | None:
        """The step of the checkpoint of the lowest score; None where none has a score.

        Raises:
          LabError: what is being saved cannot be written.
        """
        self.wait()
        return _best(self._scores)

    def save(self, step: int, state: Any, score: float | None = None) -> None:
        """Starts to save a state, and drops what is neither the newest nor the best then.

        The state is copied before this returns: the next train step may donate its buffers. A
        checkpoint that this object has saved or restored at that step is left as it is, unless it
        had no score and has one now; one that an earlier run has left there is written anew.

        Args:
          step: the training step.
          state: a pytree of arrays.
          score: the lower, the better; None, or what is not finite, for a state that was not
            evaluated, which is never the best.

        Raises:
          LabError: this save, or the one before it, cannot be written.
        """
        score = None if score is None or not math.isfinite(score) else float(score)
        self.wait()
        if step in self._known and (score is None or self._known[step] is not None):
            return
        arrays = {name: np.array(array) for name, array in flatten(state).items()}
        with self._writing():
            self._saving = self._saver.submit(self._write, step, arrays, score)

    def check(self) -> None:
        """Returns at once, whether a save is under way or not.

        Raises:
          LabError: a save has failed since it was last asked.
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
          template: a state of the same structure, shapes and dtypes, whose values do not matter:
            one just initialised, or `jax.eval_shape`'s of it.
          step: which one; None or "latest" for the newest, "best" for that of the lowest score (the
            newest where none has a score).
          part: the path of what alone is wanted, such as "state.params"; the template is of that,
            and its dtypes need not be those that were saved. "" for all.

        Returns:
          Its step, and the state.

        Raises:
          LabError: there is no such checkpoint, it is of another architecture, or broken.
        """
        self.wait()
        chosen = self._resolve(step)
        folder = self._folder / str(chosen)
        wanted = flatten(template, part)
        try:
            shapes, metadata = read_shapes(folder), read_metadata(folder)
        except Exception as error:
            raise self._broken(chosen) from error
        self._check_owner(chosen, metadata.get(_BELONGS_TO))
        self._check_architecture(chosen, shapes, wanted, part)
        try:
            # All of it, for the checksum.
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

    def wait(self) -> None:
        """Returns when what was saved is on the disk.

        Raises:
          LabError: it cannot be written; said once.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            with self._writing():
                saving.result()

    def close(self) -> None:
        """Waits for what was saved, ends the background thread and lets the next process in.

        Raises:
          LabError: it cannot be written.
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
        """Writes a checkpoint, gives it its name, and deletes those that are kept no longer."""
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
            if _SCORE not in found:  # as the runs of earlier versions have it
                found = parse((folder / "metrics" / "metrics").read_bytes())
            check(found, {_SCORE: (float, None)})
        except OSError:  # no score, or a writer is just deleting it
            return None
        except ValueError as error:
            raise self._broken(step) from error
        return found[_SCORE]

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
                f"there is no checkpoint of step {step} in {self._folder}; there are those of "
                f"{_listed(steps)}"
            )
        return int(step)

    def _check_owner(self, step: int, belongs_to: Any) -> None:
        """Compares what the checkpoint depends on with what is here."""
        there = belongs_to if isinstance(belongs_to, dict) else {}
        known = [name for name in self._belongs_to if name in there]
        others = [name for name in known if there[name] != self._belongs_to[name]]
        if others:
            raise LabError(
                f"the checkpoint of step {step} in {self._folder} was saved with another"
                f" {' and '.join(others)} than the run's folder has now; put back what was there,"
                " or train anew in another workdir"
            )

    def _check_architecture(
        self, step: int, shapes: Shapes, wanted: dict[str, np.ndarray], part: str
    ) -> None:
        """Compares names, shapes and, of a whole state, dtypes; the first that differs is said."""
        expected = {name: (leaf.shape, leaf.dtype) for name, leaf in wanted.items() if leaf.size}
        if part:
            shapes = {
                name: (shape, expected[name][1] if name in expected else dtype)
                for name, (shape, dtype) in shapes.items()
                if name.startswith(f"{part}.")
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
            remedy = f"delete that folder to go on from the checkpoint of step {_listed(others)}"
        else:
            remedy = "there is no other, so delete that folder and train anew"
        return LabError(f"the checkpoint {self._folder / str(step)} is damaged; {remedy}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # tensorstore, orbax and the system have many for a full disk
            reason = reason_of(error)
            raise LabError(f"cannot write a checkpoint in {self._folder}: {reason}") from error


def _steps(folder: Path) -> list[int]:
    """The checkpoints in a folder, which are called by their steps."""
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def _clear(folder: Path) -> None:
    """Removes what killed saves have left."""
    for path in folder.iterdir():
        if path.name.endswith(_UNNAMED) or ".orbax-checkpoint-tmp" in path.name:
            shutil.rmtree(path, ignore_errors=True)


def _best(scores: dict[int, float | None]) -> int | None:
    """The step of the lowest score, of equal ones the latest."""
    known = {step: score for step, score in scores.items() if score is not None}
    return min(known, key=lambda step: (known[step], -step), default=None)


def _params_first(name: str) -> tuple[bool, str]:
    """Of what differs, a user knows the weights best, and the optimiser's mirror them."""
    return ("params" not in name.split("."), name)


def _described(leaf: tuple[Any, Any] | None) -> str:
    if leaf is None:
        return "nothing"
    shape, dtype = leaf
    return f"{np.dtype(dtype).name}[{','.join(map(str, shape))}]"


def _listed(steps: list[int]) -> str:
    return " and ".join(map(str, steps))
