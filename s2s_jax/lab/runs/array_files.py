"""Arrays by name in a folder, as orbax stores them: written, checked, read."""

import contextlib
import functools
import glob
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from s2s_jax.data.json_shapes import parse

Shapes = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Name -> shape and dtype."""

_one_at_a_time = threading.RLock()
"""Orbax's threads tell each other of their folders by a number that the whole process shares: of
two saves side by side, as of a population's lanes, one fails or both wait for ever."""


def write_arrays(
    folder: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Writes arrays to a new folder, then reads their names and shapes back from the disk.

    Args:
      folder: where to; replaced where it is there already.
      arrays: none of them empty, as orbax refuses those.
      metadata: what JSON can hold; `read_metadata` gives it back.

    Raises:
      Exception: of orbax, tensorstore or the system: it cannot be written, or what came back is
        not what was written. Nothing is left in the folder's place then.
    """
    from orbax.checkpoint import v1 as ocp  # here, since it costs half a second

    _remove(folder)
    try:
        with _one_at_a_time, _literal_paths(), _quiet():
            ocp.save(_literal(folder), dict(arrays), custom_metadata=dict(metadata))
        if read_shapes(folder) != {name: (one.shape, one.dtype) for name, one in arrays.items()}:
            raise OSError(f"not everything that was written to {folder} can be read back")
    except BaseException:
        _remove(folder)
        raise


def read_shapes(folder: Path) -> Shapes:
    """The names, shapes and dtypes that the stored arrays have themselves, without their values.

    Raises:
      Exception: of orbax, tensorstore or the system: there are none, or they are damaged.
    """
    from orbax.checkpoint import v1 as ocp

    # First, since orbax logs a traceback for each array that it does not find.
    _store(folder).list().result()
    with _one_at_a_time, _literal_paths(), _quiet():
        found: Any = ocp.metadata(_literal(folder)).metadata
    return {name: (tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in found.items()}


def read_metadata(folder: Path) -> dict[str, Any]:
    """What `write_arrays` was given beside the arrays.

    Raises:
      OSError: it is missing.
      ValueError: it is damaged.
    """
    content = (folder / "_CHECKPOINT_METADATA").read_bytes()
    return parse(content, {"custom_metadata": dict})["custom_metadata"]


def read_arrays(folder: Path, template: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The stored arrays that a template names, of its shapes and dtypes.

    Raises:
      Exception: as for `read_shapes`.
    """
    from orbax.checkpoint import v1 as ocp

    store = _store(folder)
    # One key after the other: where orbax, which reads all at once, meets a broken one, the others
    # end in tracebacks on stderr.
    for name in store.list().result():
        store.read(name).result()
    with _one_at_a_time, _literal_paths(), _quiet():
        return ocp.load(_literal(folder), dict(template))


def reason_of(error: Exception) -> str:
    """Why something could not be written: what the system says, where an error holds that."""
    code = re.search(r"os_error_code='(\d+)'", str(error))  # tensorstore's, after a page of paths
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
    """Removes a folder, and what orbax calls it until it is whole, as far as they are there."""
    for path in (folder, *folder.parent.glob(f"{glob.escape(folder.name)}.orbax-*")):
        shutil.rmtree(path, ignore_errors=True)


@functools.cache
def _path_class() -> type[Any]:
    """A path as orbax takes it, whose folder is no pattern when it is searched.

    Else nothing of a checkpoint below a folder such as "exp [v2]" is found, and all of it is lost.
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
    """Has orbax make its own paths of that kind, too."""
    from orbax.checkpoint import v1 as ocp

    context = ocp.Context()
    context.file.path_class = _path_class()
    return context


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what orbax and its threads print of a failure: the exception says it once."""

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
    """Has nothing printed of writes that end when the first to fail has closed the event loop.

    Each would be a traceback of tensorstore's own threads, for the rest of the process.
    """
    shown = sys.unraisablehook

    def show(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            shown(unraisable)

    sys.unraisablehook = show
