"""What a process has of memory: enough addresses, and an allocator that keeps what XLA frees."""

import ctypes
import os
import resource

from s2s_jax.lab.errors import LabError

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_KEPT = 256 << 20  # bytes: several times what a step of a usual size asks for
_LEAST_ADDRESSES = 5 << 29  # bytes: 2.5 GiB, a little more than the smallest run took
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


def check_address_space() -> None:
    """Refuses to train where `ulimit -v` leaves too little.

    The libraries below reserve address space for threads and buffers. Where they do not get it,
    array_record's readers and OpenBLAS wait for ever in C++, which no signal handler of Python
    interrupts.

    Raises:
      LabError: the limit is below what the smallest run takes.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESSES:
        raise LabError(
            f"this process may have {limit >> 20:,} MiB of address space (ulimit -v), and training"
            f" takes at least {_LEAST_ADDRESSES >> 20:,} MiB, most of it never used; raise it"
        )
