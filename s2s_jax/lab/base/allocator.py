"""The memory of a process: checks of its size, and an allocator that keeps what XLA frees."""

import ctypes
import math
import os
import resource
from typing import Any

from s2s_jax.lab.base.errors import LabError

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_KEPT = 256 << 20  # bytes: several times what a typical step allocates
_TO_COMPUTE = 5 << 29  # bytes: 2.5 GiB, a little more than the smallest run took
_TO_IMPORT = 5 << 28  # bytes: 1.25 GiB, a little more than the smallest comparison took
_SETTINGS_OF_THE_USER = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")


def keep_freed_memory() -> bool:
    """Keeps freed buffers in the process instead of giving their pages back to the kernel.

    XLA on the CPU allocates its temporary buffers again at every step. These are tens of megabytes,
    which glibc would map and the kernel would clear page by page each time: a fifth of the time of
    a training step on the g2p shape. Up to 256 MB at the end of each arena are kept. This has to be
    called before the first computation; it does nothing if the user has set the allocator's
    environment variables.

    Returns:
      Whether the allocator was set; False without glibc.
    """
    if any(name in os.environ for name in _SETTINGS_OF_THE_USER):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    choices = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _KEPT), (_TOP_PAD, 64 << 20))
    return all(mallopt(parameter, value) == 1 for parameter, value in choices)


def check_address_space(computes: bool = True) -> None:
    """Checks that `ulimit -v` leaves enough address space.

    The libraries used here reserve address space for threads and buffers. If they do not get it,
    array_record's readers and OpenBLAS hang in C++, where no Python signal handler can interrupt
    them.

    Args:
      computes: whether JAX is to compute, not only to be imported.

    Raises:
      LabError: the limit is below what the libraries need.
    """
    least = _TO_COMPUTE if computes else _TO_IMPORT
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < least:
        raise LabError(
            f"this process may have {limit >> 20:,} MiB of address space (ulimit -v), but JAX with"
            f" its libraries takes at least {least >> 20:,} MiB, most of it never used;"
            " raise the limit"
        )


def check_memory(state: Any, params: Any) -> None:
    """Checks that the memory can hold the training state and the gradient.

    Without this check, compilation takes minutes before the error is found, and a host that runs
    out of memory kills the process without a message.

    Args:
      state: the parameters, the optimiser's state and everything else that is kept between steps;
        arrays or their shapes.
      params: the parameters in the state; the gradient has their size.

    Raises:
      LabError: the device, or the host if the device has no memory of its own, has too little.
    """
    import jax

    needed = sum(_num_bytes(leaf) for tree in (state, params) for leaf in jax.tree.leaves(tree))
    device = jax.devices()[0]
    there = (device.memory_stats() or {}).get("bytes_limit") or _host_memory()
    if needed > there:
        raise LabError(
            f"the model's parameters, their gradient and the optimiser's state take"
            f" {needed / 1e9:,.1f} GB, and this machine's {device.platform} has"
            f" {there / 1e9:,.1f} GB; make the model smaller, for example model.hidden_size"
        )


def _num_bytes(leaf: Any) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def _host_memory() -> int:
    """The size of the host's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
