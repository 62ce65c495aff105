"""The C library's allocator, told to keep what XLA frees."""

import ctypes
import os

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_KEPT = 256 << 20  # bytes: several times what a step of a usual size asks for
_SETTINGS_OF_THE_USER = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")


def keep_freed_memory() -> bool:
    """Keeps freed buffers in the process instead of giving their pages back to the kernel.

    XLA on the CPU asks for its temporary buffers anew at every step, tens of megabytes that glibc
    would map, and the kernel clear page by page, each time: a fifth of a training step's time on
    the g2p shape. Up to 256 MB at the end of each arena are kept. To be called before the
    first computation; a user who has set the allocator by its environment variables is left alone.

    Returns:
      Whether anything was set: False without glibc.
    """
    if any(name in os.environ for name in _SETTINGS_OF_THE_USER):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    choices = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _KEPT), (_TOP_PAD, 64 << 20))
    return all(mallopt(parameter, value) == 1 for parameter, value in choices)
