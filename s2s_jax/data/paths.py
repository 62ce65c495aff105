"""Paths as users write them: `~` is expanded, and what would fail later is refused at once."""

import os
import sys
from pathlib import Path

from s2s_jax.data.pairs import DataError


def user_path(text: str, name: str) -> Path:
    """A path that a user has written, ready to be handed to anybody.

    Args:
      text: the path; `~` and `~user` stand for home folders.
      name: what the user calls it, such as "--workdir".

    Raises:
      DataError: what `expand` and `check_name` refuse.
    """
    path = expand(text, name)
    check_name(path.absolute(), name)
    return path


def expand(text: str, name: str) -> Path:
    """The path with home folders in the place of `~` and `~user`.

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
    """Refuses an absolute path that some library would fail at.

    Those that write checkpoints, logs and datasets take paths as UTF-8.

    Raises:
      DataError: the path is not UTF-8, or longer than a name can be.
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
        pass  # whoever uses it says so, if it is an error
    except (OSError, ValueError) as error:  # too long a name; a null character
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{name} is {path}: {reason}") from error


def data_folder(data_dir: str) -> Path:
    """TFDS's folder: data_dir, else TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises:
      DataError: it cannot be used, or there is no home folder for it to be in.
    """
    if data_dir:
        return user_path(data_dir, "data.data_dir")
    if folder := os.environ.get("TFDS_DATA_DIR"):
        return user_path(folder, "TFDS_DATA_DIR")
    return user_path("~/tensorflow_datasets", "TFDS's folder")
