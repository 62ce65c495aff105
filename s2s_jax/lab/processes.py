"""What the lab's processes share: exit codes, how a signal stops them, how JAX is prepared."""

import gc
import os
import signal
import threading
from pathlib import Path

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_OUT_OF_MEMORY = 71  # EX_OSERR
EXIT_STOPPED = 75  # EX_TEMPFAIL: the same command goes on
EXIT_INTERRUPTED = 130  # as shells say it of SIGINT


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set, once; a second one ends the process.

    Whoever trains asks it after every step, and leaves a checkpoint.
    """
    stopped = threading.Event()

    def stop(number: int, frame: object) -> None:
        stopped.set()
        signal.signal(number, signal.SIG_DFL)  # a second one does not wait for the step's end

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return stopped


def tolerate_garbage() -> None:
    """Has Python look for objects that nobody needs less often than by default.

    Imports and tracing leave a million objects that stay: looking through them as often as that is
    a twentieth of a start. To be called before them.
    """
    gc.set_threshold(100_000, 50, 100)


def prepare_jax() -> None:
    """Compiled programs are kept between runs, unless the user has said where or not at all."""
    from s2s_jax.lab.allocator import keep_freed_memory

    keep_freed_memory()
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "s2s_jax" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        if "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES" not in os.environ:
            # Else the cache's own path is part of what a program is found by, and a cache that was
            # moved or copied is lost.
            jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
