"""Writes, checks and reads arrays by name in a folder, in orbax's format."""

import contextlib
import functools
import glob
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from s2s_jax.data.json_shapes import parse

Shapes = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Name -> shape and dtype."""

_MAX_REMOVALS, _PAUSE_SECONDS = 40, 0.05  # of what a failed save leaves: up to two seconds

_one_at_a_time = threading.RLock()
"""A lock for saving and loading.

Orbax's threads identify their folders by a number that the whole process shares: if two saves run
at once, as for the lanes of a population, one fails or both hang."""


def write_arrays(
    folder: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Writes arrays to a new folder, then reads their names and shapes back from the disk.

    Args:
      folder: the folder; it is replaced if it exists.
      arrays: must not be empty arrays, which orbax rejects.
      metadata: JSON values; `read_metadata` returns them.

    Raises:
      Exception: from orbax, tensorstore or the system: the arrays cannot be written, or what is
        read back differs. The folder is then removed.
    """
    from orbax.checkpoint import v1 as ocp  # imported here because it takes half a second

    _remove(folder)
    try:
        with _one_at_a_time, _literal_paths(), _quiet():
            ocp.save(_literal(folder), dict(arrays), custom_metadata=dict(metadata))
        if read_shapes(folder) != {name: (one.shape, one.dtype) for name, one in arrays.items()}:
            raise OSError(f"not everything that was written to {folder} can be read back")
    except BaseException:
        # One array's error is raised while others are still being written into the folder.
        for _ in range(_MAX_REMOVALS):
            _remove(folder)
            time.sleep(_PAUSE_SECONDS)
            if not _versions(folder):
                break
        raise


def read_shapes(folder: Path) -> Shapes:
    """The names, shapes and dtypes of the stored arrays, without their values.

    Raises:
      Exception: from orbax, tensorstore or the system: the arrays are missing or damaged.
    """
    from orbax.checkpoint import v1 as ocp

    # Check this first, since orbax logs a traceback for each array that it does not find.
    _store(folder).list().result()
    with _one_at_a_time, _literal_paths(), _quiet():
        found: Any = ocp.metadata(_literal(folder)).metadata
    return {name: (tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in found.items()}


def read_metadata(folder: Path) -> dict[str, Any]:
    """The metadata that `write_arrays` was given.

    Raises:
      OSError: it is missing.
      ValueError: it is damaged.
    """
    content = (folder / "_CHECKPOINT_METADATA").read_bytes()
    return parse(content, {"custom_metadata": dict})["custom_metadata"]


def read_arrays(folder: Path, template: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The stored arrays that a template names, with its shapes and dtypes.

    Raises:
      Exception: as for `read_shapes`.
    """
    from orbax.checkpoint import v1 as ocp

    store = _store(folder)
    # Read one key after the other first: orbax reads all at once, and if one is broken, the others
    # print tracebacks on stderr.
    for name in store.list().result():
        store.read(name).result()
    with _one_at_a_time, _literal_paths(), _quiet():
        return ocp.load(_literal(folder), dict(template))


def reason_of(error: Exception) -> str:
    """Why something could not be written: the system's message if the error contains it."""
    code = re.search(r"os_error_code='(\d+)'", str(error))  # tensorstore's code, after many paths
    if code:
        return os.strerror(int(code[1]))
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _store(folder: Path) -> Any:
    """The database of a folder's arrays.

    Raises:
      ValueError: it is missing or empty.
    """
    import tensorstore

    path = folder / "state"
    base = {"driver": "file", "path": f"{path}/"}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    if not store.list().result():
        raise ValueError(f"{path} holds no data")
    return store


def _remove(folder: Path) -> None:
    """Removes a folder and orbax's temporary versions of it, if they exist."""
    for path in _versions(folder):
        shutil.rmtree(path, ignore_errors=True)


def _versions(folder: Path) -> list[Path]:
    """A folder and orbax's temporary versions of it, as far as they exist."""
    temporary = folder.parent.glob(f"{glob.escape(folder.name)}.orbax-*")
    return [path for path in (folder, *temporary) if path.exists()]


@functools.cache
def _path_class() -> type[Any]:
    """A path class for orbax whose folder is not treated as a pattern when it is searched.

    Otherwise orbax would not find checkpoints below a folder such as "exp [v2]", and all would be
    lost.
    """
    from etils import epath

    class LiteralPath(type(epath.Path("/"))):
        def glob(self, pattern: str) -> Iterator[Any]:
            escaped = type(self)(glob.escape(os.fspath(self)))
            return super(LiteralPath, escaped).glob(pattern)

    return LiteralPath


def _literal(folder: Path) -> Any:
    return _path_class()(folder)


def _literal_paths() -> contextlib.AbstractContextManager[Any]:
    """Makes orbax create its own paths of that class, too."""
    from orbax.checkpoint import v1 as ocp

    context = ocp.Context()
    context.file.path_class = _path_class()
    return context


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses what orbax and its threads log about a failure, which the exception reports."""

    def foreign(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname and record.name != "asyncio"

    _ignore_late_writes()
    loggers = [logging.getLogger(name) for name in (None, "absl", "asyncio")]
    for logger in loggers:
        logger.addFilter(foreign)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(foreign)


@functools.cache
def _ignore_late_writes() -> None:
    """Suppresses errors of writes that end after the first failure has closed the event loop.

    Each would print a traceback from tensorstore's threads, for the rest of the process.
    """
    shown = sys.unraisablehook

    def show(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            shown(unraisable)

    sys.unraisablehook = show
