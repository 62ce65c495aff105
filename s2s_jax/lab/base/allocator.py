"""What a process has of memory: is it enough, and an allocator that keeps what XLA frees."""

import ctypes
import math
import os
import resource
from typing import Any

from s2s_jax.lab.base.errors import LabError

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
    """Refuses to go on where `ulimit -v` leaves too little.

    The libraries below reserve address space for threads and buffers. Where they do not get it,
    array_record's readers and OpenBLAS wait for ever in C++, which no signal handler of Python
    interrupts.

    Raises:
      LabError: the limit is below what the smallest run takes.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESSES:
        raise LabError(
            f"this process may have {limit >> 20:,} MiB of address space (ulimit -v), and JAX with"
            f" its libraries takes at least {_LEAST_ADDRESSES >> 20:,} MiB, most of it never used;"
            " raise it"
        )


def check_memory(state: Any, params: Any) -> None:
    """Refuses a model whose parameters alone are too large to be trained here.

    bytes = those of the training state, and of the gradient

    Where there is too little for that, compiling takes minutes before the system says so, and a
    host that runs out of memory kills the process without a word.

    Args:
      state: the parameters, the optimiser's state and whatever else stays for all steps; arrays or
        their shapes.
      params: the parameters among them, whose size the gradient has.

    Raises:
      LabError: the device, or the host where the device has no memory of its own, has less.
    """
    import jax

    needed = sum(_num_bytes(leaf) for tree in (state, params) for leaf in jax.tree.leaves(tree))
    device = jax.devices()[0]
    there = (device.memory_stats() or {}).get("bytes_limit") or _host_memory()
    if needed > there:
        raise LabError(
            f"the model's parameters, their gradient and the optimiser's state take"
            f" {needed / 1e9:,.1f} GB, and this machine's {device.platform} has"
            f" {there / 1e9:,.1f} GB; make the model smaller, model.hidden_size say"
        )


def _num_bytes(leaf: Any) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def _host_memory() -> int:
    """Bytes of the host's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
