"""Training states on disk: the newest and the best of a run, each whole or not there."""

# orbax's own policies do not meet the types that its Checkpointer asks for.
# pyright: reportArgumentType=false

import contextlib
import json
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from s2s_jax.data.json_shapes import check
from s2s_jax.lab.errors import LabError
from s2s_jax.lab.locks import FileLock
from s2s_jax.lab.named_arrays import State, checksum, flatten, unflatten

_SCORE = "score"
_CHECKSUM = "crc32"
_BELONGS_TO = "belongs_to"


class Checkpoints:
    """The checkpoints of one run, over orbax's `training.Checkpointer`.

    The newest is kept, to resume from, and the one of the lowest score, to report; of equal scores
    the latest. Saving goes on in the background; a checkpoint gets its name when it is whole, so
    that a killed save leaves none that could be taken for one.

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
        is only read.

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
        from orbax.checkpoint import v1 as ocp  # here, since it costs half a second

        self._belongs_to = dict(belongs_to or {})
        self._folder = Path(folder).absolute()
        if read_only and not self._folder.is_dir():
            raise self._none()
        policies = ocp.training.preservation_policies
        newest = policies.LatestN(1)
        best = policies.BestN(
            get_metric_fn=_score,
            reverse=True,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        always = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
        self._whole: dict[int, float | None] = {}
        with contextlib.ExitStack() as stack:
            if not read_only:  # first, since clearing away would spoil what another saves there
                lock = FileLock(self._folder.with_name(f"{self._folder.name}.lock"))
                stack.callback(lock.release)
            with self._writing(), _quiet():
                self._checkpointer = ocp.training.Checkpointer(
                    self._folder,
                    preservation_policy=policies.AnyPreservationPolicy([newest, best]),
                    save_decision_policy=always,
                    cleanup_tmp_directories=not read_only,
                )
            self._held = stack.pop_all()

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint; None where there is none."""
        return max(self._scores(), default=None)

    @property
    def best_step(self) -> int | None:
        """The step of the checkpoint of the lowest score; None where none has a score."""
        scores = {step: score for step, score in self._scores().items() if score is not None}
        return min(scores, key=lambda step: (scores[step], -step), default=None)

    def save(self, step: int, state: Any, score: float | None = None) -> None:
        """Starts to save a state, and drops what is neither the newest nor the best then.

        The state is copied before this returns: the next train step may donate its buffers. A
        checkpoint that this object has saved or restored at that step is left as it is, unless it
        had no score and has one now; one that an earlier run has left there is written anew.

        Args:
          step: the training step.
          state: a pytree of arrays.
          score: the lower, the better; None or NaN for a state that was not evaluated, which is
            never the best.

        Raises:
          LabError: this save, or the one before it, cannot be written.
        """
        score = None if score is None or math.isnan(score) else float(score)
        if step in self._whole and (score is None or self._whole[step] is not None):
            return
        overwrite = step in self._whole or step in self._scores()
        if overwrite:
            self.wait()
        arrays = flatten(state)
        with self._writing():
            self._checkpointer.save_async(
                step,
                {name: array for name, array in arrays.items() if array.size},
                overwrite=overwrite,
                force=True,
                metrics=None if score is None else {_SCORE: score},
                custom_metadata={_CHECKSUM: checksum(arrays), _BELONGS_TO: self._belongs_to},
            )
        self._whole[step] = score

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
        wanted = flatten(template, part)
        try:
            with _quiet():
                _read_through(self._folder / str(chosen) / "state")
                metadata = self._checkpointer.metadata(chosen)
                shapes = {
                    name: (leaf.shape, leaf.dtype) for name, leaf in metadata.metadata.items()
                }
        except Exception as error:
            raise self._broken(chosen) from error
        self._check_owner(chosen, _entry(metadata.custom_metadata, _BELONGS_TO))
        self._check_architecture(chosen, shapes, wanted, part)
        try:
            with _quiet():  # all of it, for the checksum
                empty = {name: np.zeros(*one) for name, one in shapes.items()}
                stored = self._checkpointer.load(chosen, empty)
        except Exception as error:
            raise self._broken(chosen) from error
        if _entry(metadata.custom_metadata, _CHECKSUM) != checksum(stored):
            raise self._broken(chosen)
        arrays = {
            name: np.asarray(stored.get(name, array), array.dtype) for name, array in wanted.items()
        }
        self._whole[chosen] = self._scores()[chosen]
        return chosen, unflatten(template, arrays)

    def wait(self) -> None:
        """Returns when what was saved is on the disk.

        Raises:
          LabError: it cannot be written.
        """
        with self._writing():
            self._checkpointer.wait()

    def close(self) -> None:
        """Waits for what was saved, ends the background threads and lets the next process in.

        Raises:
          LabError: it cannot be written.
        """
        with self._held, self._writing():
            self._checkpointer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _scores(self) -> dict[int, float | None]:
        """Step -> score, None where it has none, of every whole checkpoint."""
        scores: dict[int, float | None] = {}
        for checkpoint in self._checkpointer.checkpoints:
            found = checkpoint.metrics
            try:
                scores[checkpoint.step] = None if found is None else _score(found)
            except ValueError as error:
                raise LabError(
                    f"the checkpoint {self._folder / str(checkpoint.step)} is damaged: among its"
                    f" metrics {error}; delete that folder"
                ) from error
        return scores

    def _resolve(self, step: int | str | None) -> int:
        steps = sorted(self._scores())
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
        self,
        step: int,
        shapes: dict[str, tuple[Any, Any]],
        wanted: dict[str, np.ndarray],
        part: str,
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
        others = [other for other in sorted(self._scores()) if other != step]
        if others:
            remedy = f"delete that folder to go on from the checkpoint of step {_listed(others)}"
        else:
            remedy = "there is no other, so delete that folder and train anew"
        return LabError(f"the checkpoint {self._folder / str(step)} is damaged; {remedy}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (json.JSONDecodeError, RecursionError) as error:
            raise LabError(
                f"a checkpoint in {self._folder} is damaged: the score of one of them is no JSON "
                f"({error}); delete the folder of the step whose metrics/metrics is cut short"
            ) from error
        except (OSError, ValueError) as error:  # ValueError: what tensorstore makes of a full disk
            raise LabError(f"cannot write a checkpoint in {self._folder}: {error}") from error


def _read_through(folder: Path) -> None:
    """Raises ValueError where a data file is cut short or gone.

    One key after the other: where orbax, which reads all at once, meets a broken one, the others
    end in tracebacks on stderr.
    """
    import tensorstore

    base = {"driver": "file", "path": f"{folder}/"}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    names = store.list().result()
    if not names:
        raise ValueError(f"{folder} holds no data")
    for name in names:
        store.read(name).result()


def _score(metrics: Any) -> float:
    """The score among a checkpoint's metrics; ValueError where they are not ours."""
    check(metrics, {_SCORE: float})
    return float(metrics[_SCORE])


def _entry(record: Any, name: str) -> Any:
    """An entry of what orbax keeps beside a checkpoint, None where there is none."""
    return record.get(name) if isinstance(record, dict) else None


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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what orbax logs of a damaged checkpoint: the exception says it in one line."""

    def foreign(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    loggers = [logging.getLogger(), logging.getLogger("absl")]
    for logger in loggers:
        logger.addFilter(foreign)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(foreign)
