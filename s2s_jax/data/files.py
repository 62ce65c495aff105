"""Files that are written completely or not at all, and fingerprints of contents."""

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file atomically: a reader sees the old file or the new one, never a part.

    Something that is not a regular file, such as /dev/stdout or a pipe, is written to directly, not
    replaced. A link is kept, and the file that it points to is written.

    Args:
      path: of the file; its folder exists.
      content: of the whole file.

    Raises:
      OSError: the file cannot be written there.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            file.write(content)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def clear_abandoned(folder: Path, min_age: float = 0.0) -> None:
    """Removes the temporary files that killed processes have left behind in `write_whole`.

    Files of running processes are kept, and so are files that cannot be removed.

    Args:
      folder: where to look.
      min_age: minimum age in seconds; for folders that processes on other machines may be writing
        to, whose process ids mean nothing here.
    """
    for path in folder.glob(".*.tmp"):
        number = path.name.split(".")[-2]
        if number.isdecimal() and not _is_alive(int(number)):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime >= min_age:
                    path.unlink()


def _is_alive(process: int) -> bool:
    """Whether a process with this id is running on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def fingerprint(*parts: object) -> str:
    """Sixteen hex digits that change if any part does: bytes by content, others by repr.

    Example:
      >>> fingerprint("a", 1) == fingerprint("a", 1), fingerprint("a", 1) == fingerprint("a1")
      (True, False)
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        content = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def files_fingerprint(paths: Sequence[Path], kept_in: Path) -> str:
    """The fingerprint of the content of large files, which are read only once.

    It is cached in a small file, whose name depends on their names, sizes and times. It is not an
    error if the folder cannot be written.

    Args:
      paths: the files, in their order.
      kept_in: the folder of the small file; it is created if it is missing.

    Raises:
      OSError: a file cannot be read.
    """
    stats = [(path.name, path.stat()) for path in paths]
    seen = fingerprint(*((name, one.st_size, one.st_mtime_ns) for name, one in stats))
    small = kept_in / f"content-{seen}.txt"
    try:
        known = small.read_text(encoding="ascii")
        if re.fullmatch("[0-9a-f]{16}", known):
            return known
    except (OSError, ValueError):
        pass
    digests = []
    for path in paths:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "blake2b").hexdigest())
    found = fingerprint(*digests)
    try:
        kept_in.mkdir(exist_ok=True)
        write_whole(small, found.encode())
    except OSError:
        pass  # the next call reads them again
    return found
