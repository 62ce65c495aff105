"""Writes files atomically, and reads files with clear errors for damaged ones."""

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

from s2s_jax.data.files import write_whole
from s2s_jax.data.json_shapes import check, parse
from s2s_jax.lab.base.errors import LabError, writing


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Writes a file so that a reader sees either the old or the new file, never a part of one.

    Args:
      path: the file; its folder must exist.
      data: the whole content; text is written as UTF-8.

    Raises:
      LabError: the file cannot be written there.
    """
    path = Path(path)
    with writing(path):
        write_whole(path, data.encode() if isinstance(data, str) else data)


def check_writable(path: str | Path) -> None:
    """Checks before the work starts that a file can be written; writes nothing.

    Args:
      path: the file, which may exist.

    Raises:
      LabError: its folder is missing or cannot be written, or it is a folder itself.
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        code = errno.EISDIR
    elif not path.parent.exists():
        code = errno.ENOENT
    elif not path.parent.is_dir():
        code = errno.ENOTDIR
    elif path.exists() and not path.is_file():  # a device or a pipe is opened directly
        code = 0 if os.access(path, os.W_OK) else errno.EACCES
    else:
        code = why_not_writable(path.parent)
    if code:
        raise LabError(f"cannot write {path}: {os.strerror(code)}")


def check_folder(path: str | Path) -> None:
    """Checks before the work starts that a folder can be created or written to.

    Args:
      path: the folder; its parent must exist.

    Raises:
      LabError: it is a file, its parent is missing, or one of them cannot be written to.
    """
    path = Path(os.path.realpath(path))
    check_writable(path / "file" if path.exists() else path)


def why_not_writable(folder: Path) -> int:
    """The error number that explains why a folder cannot be written to; 0 if it can."""
    if os.access(folder, os.W_OK | os.X_OK):
        return 0
    try:
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    except OSError:
        read_only = False
    return errno.EROFS if read_only else errno.EACCES


def to_json(value: Any) -> Any:
    """Converts a value to JSON types; NaN and the infinities, which JSON lacks, become null.

    A metric without a value (such as the share of gold tokens if no coin was tossed) is thus null
    in every file that the lab writes, and readers take null for "no value".

    Args:
      value: dicts, lists, tuples, strings, numbers, booleans, None, paths, and the scalars and
        arrays of numpy and JAX, nested.

    Returns:
      The same value, consisting only of dict, list, str, int, float, bool and None.

    Raises:
      TypeError: it contains something else.
    """
    if isinstance(value, dict):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written as JSON.")


def write_json(path: str | Path, value: Any) -> None:
    """Writes a value as JSON, atomically and with the keys in their order.

    Args:
      path: the file.
      value: a value that `to_json` takes; NaN and the infinities become null.
    """
    text = json.dumps(to_json(value), indent=2, allow_nan=False, ensure_ascii=False)
    write_atomic(path, text + "\n")


def read_json(path: str | Path, shape: Any = object) -> Any:
    """Reads a JSON file.

    Args:
      path: the file.
      shape: the shape that the content must have; see `s2s_jax.data.json_shapes`.

    Returns:
      The content.

    Raises:
      LabError: the file is missing, truncated, not JSON, or has another shape.
    """
    content = _read(path)
    try:
        value = parse(content)
    except ValueError as error:
        raise LabError(
            f"{path} is not complete JSON ({error}); delete it or recreate it"
        ) from error
    try:
        check(value, shape)
    except ValueError as error:
        raise LabError(f"{path} is damaged: {error}; delete it or recreate it") from error
    return value


def read_jsonl(path: str | Path, shape: Any = dict) -> tuple[list[dict[str, Any]], int]:
    """Reads the valid lines of a file with one JSON object per line.

    Args:
      path: the file.
      shape: the shape that each line must have; see `s2s_jax.data.json_shapes`.

    Returns:
      The objects, and the number of lines that are invalid or of another shape: if a run is killed
      while writing, the last line is truncated.

    Raises:
      LabError: the file cannot be read.
    """
    records, num_bad = [], 0
    for line in _read(path).split(b"\n"):
        if not line.strip():
            continue
        try:
            records.append(parse(line, shape))
        except ValueError:
            num_bad += 1
    return records, num_bad


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror or error}") from error
