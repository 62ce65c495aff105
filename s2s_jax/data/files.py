"""Files that are written whole or not at all, and names that follow from contents."""

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a part.

    What is no file, such as /dev/stdout or a pipe, is written to and stays what it is; a link keeps
    pointing to what is written.

    Args:
      path: where to; its folder exists.
      content: all of the file.

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
    """Removes what writers that were killed have left in a folder: `write_whole`'s half files.

    Those of processes that live are left alone, and so is what cannot be removed.

    Args:
      folder: where.
      min_age: seconds; for folders where processes of other machines, whose numbers mean nothing
        here, may be writing.
    """
    for path in folder.glob(".*.tmp"):
        number = path.name.split(".")[-2]
        if number.isdecimal() and not _is_alive(int(number)):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime >= min_age:
                    path.unlink()


def _is_alive(process: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def fingerprint(*parts: object) -> str:
    """Sixteen hex digits that change when any part does: bytes by content, others by repr.

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
    """The fingerprint of the content of large files, which are read once.

    It is kept in a small file, under a name that their names, sizes and times make. A folder that
    cannot be written is no error.

    Args:
      paths: the files, in their order.
      kept_in: the folder of the small file, made where it is missing.

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
        pass  # the next one reads them again
    return found
