"""A lock on a file, which ends with the process that holds it."""

import contextlib
import fcntl
import os
import socket
from pathlib import Path

from s2s_jax.lab.base.errors import LabError, writing


class FileLock:
    """Lets one process at a time write where a file is.

    The system gives the lock back when its process ends, killed or not, so there is no stale one to
    clear away. The file stays; it says who has the lock, for the message alone. A file system
    without locks gives none, and then nobody is kept out.

    Args:
      path: the file, made where it is missing.

    Raises:
      LabError: another process, or another lock of this one, has it; or it cannot be written.
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
        with contextlib.suppress(OSError):  # a full disk is said by whoever writes what counts
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, owner.encode())

    def release(self) -> None:
        """Gives the lock back; once is enough."""
        os.close(self._descriptor)


def lock_owner(path: str | Path) -> str | None:
    """Who has the lock of a file, "process N on HOST"; None where nobody has it."""
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
