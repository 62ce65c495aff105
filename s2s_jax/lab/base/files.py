"""Files that are written whole or not at all, and read with a word about what is broken."""

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
    """Writes a file so that a reader sees the old one or the new one, never a part.

    Args:
      path: where to; its folder exists.
      data: all of the file; text is written as UTF-8.

    Raises:
      LabError: the file cannot be written there.
    """
    path = Path(path)
    with writing(path):
        write_whole(path, data.encode() if isinstance(data, str) else data)


def check_writable(path: str | Path) -> None:
    """Refuses, before the work, a file that could not be written after it; writes nothing.

    Args:
      path: of a file, which may be there.

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
    elif path.exists() and not path.is_file():  # a device or a pipe is opened as it is
        code = 0 if os.access(path, os.W_OK) else errno.EACCES
    else:
        code = why_not_writable(path.parent)
    if code:
        raise LabError(f"cannot write {path}: {os.strerror(code)}")


def check_folder(path: str | Path) -> None:
    """Refuses, before the work, a folder that could not be made or written after it.

    Args:
      path: of a folder; what it is in has to be there.

    Raises:
      LabError: it is a file, or the folder that it is in is missing, or one cannot be written.
    """
    path = Path(os.path.realpath(path))
    check_writable(path / "file" if path.exists() else path)


def why_not_writable(folder: Path) -> int:
    """The error number of what keeps a folder from being written; 0 for nothing."""
    if os.access(folder, os.W_OK | os.X_OK):
        return 0
    try:
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    except OSError:
        read_only = False
    return errno.EROFS if read_only else errno.EACCES


def to_json(value: Any) -> Any:
    """A value as JSON has it; NaN and the infinities, which JSON has not, become null.

    A metric without a value (the share of gold tokens where no coin fell) is thus null in every
    file that the lab writes, and a reader takes null for "no value".

    Args:
      value: dicts, lists, tuples, strings, numbers, booleans, None, paths, and the scalars and
        arrays of numpy and JAX, nested.

    Returns:
      The same of dict, list, str, int, float, bool and None alone.

    Raises:
      TypeError: something else is in it.
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
    raise TypeError(f"{value!r} of type {type(value).__name__} has no form in JSON.")


def write_json(path: str | Path, value: Any) -> None:
    """Writes a value as JSON, whole or not at all, keys in the order in which they stand.

    Args:
      path: where to.
      value: what `to_json` takes; NaN and infinities become null.
    """
    text = json.dumps(to_json(value), indent=2, allow_nan=False, ensure_ascii=False)
    write_atomic(path, text + "\n")


def read_json(path: str | Path, shape: Any = object) -> Any:
    """Reads a JSON file.

    Args:
      path: the file.
      shape: what it must be; see `s2s_jax.data.json_shapes`.

    Returns:
      What is in it.

    Raises:
      LabError: the file is missing, cut short, no JSON, or of another shape.
    """
    content = _read(path)
    try:
        value = parse(content)
    except ValueError as error:
        raise LabError(f"{path} is not whole JSON ({error}); delete it or write it anew") from error
    try:
        check(value, shape)
    except ValueError as error:
        raise LabError(f"{path} is damaged: {error}; delete it or write it anew") from error
    return value


def read_jsonl(path: str | Path, shape: Any = dict) -> tuple[list[dict[str, Any]], int]:
    """Reads a file of one JSON object a line, as far as it is whole.

    Args:
      path: the file.
      shape: what each line must be; see `s2s_jax.data.json_shapes`.

    Returns:
      The objects, and the number of lines that are none of that shape: a run that was killed while
      it wrote leaves its last line cut short.

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
