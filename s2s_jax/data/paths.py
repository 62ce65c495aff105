"""Paths as users write them: `~` is expanded, and paths that would fail later are refused early."""

import os
import sys
from pathlib import Path

from s2s_jax.data.pairs import DataError


def user_path(text: str, name: str) -> Path:
    """A path that a user has written, expanded and checked.

    Args:
      text: the path; `~` and `~user` stand for home folders.
      name: the option that it comes from, such as "--workdir".

    Raises:
      DataError: `expand` or `check_name` refuses it.
    """
    path = expand(text, name)
    check_name(path.absolute(), name)
    return path


def expand(text: str, name: str) -> Path:
    """The path with `~` and `~user` replaced by home folders.

    Raises:
      DataError: it is empty, or there is no such home folder.

    Example:
      >>> expand("", "--workdir")
      Traceback (most recent call last):
      s2s_jax.data.pairs.DataError: --workdir is empty; perhaps a variable is not set
    """
    if not text:
        raise DataError(f"{name} is empty; perhaps a variable is not set")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = text.partition("/")[0]
        raise DataError(
            f"{name} is {text}: {user} has no home folder; write the whole path"
        ) from None


def check_name(path: Path, name: str) -> None:
    """Refuses an absolute path that some library would fail on.

    The libraries that write checkpoints, logs and datasets expect UTF-8 paths.

    Raises:
      DataError: the path is not UTF-8, or a name in it is too long.
    """
    try:
        is_utf8 = str(path).encode() == os.fsencode(path)
    except UnicodeEncodeError:
        is_utf8 = False
    if not is_utf8:
        shown = ascii(str(path))[1:-1]
        if sys.getfilesystemencoding() == "utf-8":
            raise DataError(f"{name} is {shown}, which is not UTF-8; rename it")
        raise DataError(
            f"{name} is {shown}, which is not UTF-8 in this locale;"
            " rename it, or set LC_ALL=C.UTF-8"
        )
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # if it is an error, the code that uses the path reports it
    except (OSError, ValueError) as error:  # a name that is too long; a null character
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{name} is {path}: {reason}") from error


def data_folder(data_dir: str) -> Path:
    """TFDS's folder: data_dir, else TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises:
      DataError: it cannot be used, or there is no home folder.
    """
    if data_dir:
        return user_path(data_dir, "data.data_dir")
    if folder := os.environ.get("TFDS_DATA_DIR"):
        return user_path(folder, "TFDS_DATA_DIR")
    return user_path("~/tensorflow_datasets", "TFDS's folder")
