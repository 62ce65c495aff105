"""Other runs that a config names by their folders: the one to start from, and the teacher."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s2s_jax.data.paths import user_path
from s2s_jax.lab.base.errors import LabError, is_for_the_user
from s2s_jax.lab.runs.run_folder import RunFolder

SEED = "{seed}"
"""Stands for the run's seed in such a key, so that each run of a sweep can name its own."""


def folder_of(name: str, seed: int, key: str) -> Path:
    """The folder of a run that a config names; its folder of checkpoints also names it.

    Args:
      name: the value of the key; `~` is the home folder, and see `SEED`.
      seed: the seed of the config.
      key: the key, for messages.

    Raises:
      LabError: there is no such home folder.

    Example:
      >>> folder_of("runs/g2p/seed_{seed}/checkpoints", 3, "train.init_from").as_posix()
      'runs/g2p/seed_3'
    """
    path = user_path(name.replace(SEED, str(seed)), key)
    is_inside = path.name == "checkpoints" and not (path / "config.json").exists()
    return path.parent if is_inside else path


@contextlib.contextmanager
def naming_the_key(key: str) -> Iterator[None]:
    """Puts a config key before the message of an error about the other run."""
    try:
        yield
    except ValueError as error:
        if not is_for_the_user(error):
            raise
        raise LabError(f"{key}: {error}") from error


def check_unchanged(what: str, folder: RunFolder, before: Any, now: Any) -> None:
    """Checks that another run still has the parameters with which a run was begun.

    Args:
      what: how it was begun, such as "from step".
      folder: the run that was begun.
      before: the record of the other run at that time, see `STARTED_FROM`; None if there is none.
      now: its record now.

    Raises:
      LabError: it has other parameters.
    """
    if before is not None and before["parameters"] != now["parameters"]:
        raise LabError(
            f"workdir {folder.folder} was begun {what} {before['step']:,} of"
            f" {before['workdir']}; the parameters there (step {now['step']:,}) are now"
            " others; name another workdir"
        )
