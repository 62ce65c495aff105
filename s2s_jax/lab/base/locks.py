"""A file lock that is released when the process that holds it ends."""

import contextlib
import fcntl
import os
import socket
from pathlib import Path

from s2s_jax.lab.base.errors import LabError, writing


class FileLock:
    """Allows one process at a time to write to the folder of a file.

    The system releases the lock when its process ends, even if it is killed, so locks never become
    stale. The file is kept; its content names the owner of the lock, for messages only. On a file
    system without locks there is no protection.

    Args:
      path: the file, which is created if it is missing.

    Raises:
      LabError: another process or another `FileLock` of this process holds the lock, or the file
        cannot be written.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._descriptor, 200).decode(errors="replace").strip()
            self.release()
            raise LabError(
                f"{path.parent} is in use by {owner or 'another process'};"
                " wait until it ends, or name another workdir"
            ) from None
        except OSError:  # the file system has no locks
            return
        owner = f"process {os.getpid()} on {socket.gethostname()}\n"
        with contextlib.suppress(
            OSError
        ):  # a full disk is reported when something important is written
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, owner.encode())

    def release(self) -> None:
        """Releases the lock; to be called only once."""
        os.close(self._descriptor)


def lock_owner(path: str | Path) -> str | None:
    """Who holds the lock of a file, as "process N on HOST"; None if it is not locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 200).decode(errors="replace").strip()
        return owner or "another process"
    except OSError:  # the file system has no locks
        return None
    finally:
        os.close(descriptor)
    return None
