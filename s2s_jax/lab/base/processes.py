"""What the lab's processes share: exit codes, stopping by signals, preparing JAX."""

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from s2s_jax.lab.base.errors import LabError, writing
from s2s_jax.lab.base.streams import warn

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_OUT_OF_MEMORY = 71  # EX_OSERR
EXIT_STOPPED = 75  # EX_TEMPFAIL: the same command continues
EXIT_INTERRUPTED = 130  # as shells do for SIGINT

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_GRACE_SECONDS = 1.0


class StopSignals:
    """Handles SIGTERM, SIGINT (Ctrl-C) and SIGHUP (closed terminal) in a process that trains.

    Until `is_set` is first called, nothing would be lost, so a signal ends the process immediately
    with exit code 75: its main thread unwinds, and if that is delayed, for example by a compiler,
    the process exits anyway. After that, the first signal requests a checkpoint at the end of the
    step, and a second SIGTERM or SIGINT ends the process immediately, also with 75. Closing a
    terminal may send SIGHUP several times, so SIGHUP never counts as a second signal. If SIGHUP was
    ignored at the start, as with `nohup`, it stays ignored.

    A thread receives the signals, since Python's own handlers wait until the main thread returns
    from C++ code, and immediately prints on standard error what will happen.

    Only the main thread can create one; `close` restores the previous handlers.
    """

    def __init__(self):
        # Plain values: with an event, a handler interrupted by another could deadlock on its lock.
        self._requested = self._raised = False
        self._has_said = threading.Event()
        self._at_work = False
        self._heard, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._before = {
            number: signal.signal(number, self._handle)
            for number in _STOPPING
            if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP
        }
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, daemon=True).start()

    def is_set(self) -> bool:
        """Whether to save a checkpoint and stop; the training loop asks after every step."""
        self._at_work = True
        if self._requested:  # the process may end soon: wait for the message
            self._has_said.wait(_GRACE_SECONDS)
        return self._requested

    def begin_anew(self) -> None:
        """Lets a signal end the process until the next `is_set`, since nothing would be lost."""
        self._at_work = False

    def interrupt_from_now_on(self) -> None:
        """From here on, a signal only raises KeyboardInterrupt in the main thread."""

        def interrupt(number: int, frame: object) -> None:
            if number == signal.SIGHUP:
                signal.signal(number, signal.SIG_IGN)
            raise KeyboardInterrupt

        for number in self._before:
            signal.signal(number, interrupt)
        signal.set_wakeup_fd(self._wakeup_before)

    def end(self) -> NoReturn:
        """Ends the process after a `StoppedBySignal`, without waiting for other threads."""
        self._has_said.wait(_GRACE_SECONDS)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(EXIT_STOPPED)

    def close(self) -> None:
        """Restores the previous signal handlers."""
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._writer)  # ends the thread

    def _handle(self, number: int, frame: object) -> None:
        """Runs in the main thread, as soon as it executes Python code."""
        if self._at_work:
            self._requested = True
        elif not self._raised:
            self._raised = True
            # If raised during garbage collection, the exception is ignored and would be printed.
            sys.unraisablehook = lambda unraisable: None
            raise StoppedBySignal

    def _listen(self) -> None:
        asked = False
        while heard := os.read(self._heard, 1):
            number = heard[0]
            if number not in self._before:  # a signal with another handler
                continue
            name = signal.Signals(number).name
            if not self._at_work:
                _say(f"stopped by {name}; no update is lost, and the same command will continue")
                self._has_said.set()
                time.sleep(_GRACE_SECONDS)
                os._exit(EXIT_STOPPED)
            self._requested = True
            if not asked:
                asked = True
                _say(
                    f"{name}: stopping with a checkpoint after the current step or compilation;"
                    " a second signal stops immediately"
                )
                self._has_said.set()
            elif number != signal.SIGHUP:
                _say(f"{name} again: stopped; the same command continues from the last checkpoint")
                os._exit(EXIT_STOPPED)
        os.close(self._heard)


class StoppedBySignal(BaseException):
    """A signal ends the process, and nothing is lost; see `StopSignals`."""


def stop_on_signals() -> StopSignals:
    """Handles SIGTERM, SIGINT and SIGHUP from now on; `StoppedBySignal` may stay uncaught."""
    signals = StopSignals()

    def last_words(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        if issubclass(kind, StoppedBySignal):
            signals.end()
        sys.__excepthook__(kind, error, traceback)

    sys.excepthook = last_words
    return signals


def _say(line: str) -> None:
    """Prints a line on descriptor 2, even if Python's stream has been replaced."""
    with contextlib.suppress(OSError):
        os.write(2, f"s2s: {line}\n".encode())


def tolerate_garbage() -> None:
    """Makes Python collect garbage less often than by default.

    Imports and tracing create a million permanent objects; checking them at the default rate takes
    a twentieth of the startup time. This has to be called before them.
    """
    gc.set_threshold(100_000, 50, 100)


def provide_home() -> None:
    """Sets HOME to a temporary folder, with a warning, for a user without a home folder.

    In a container a process can run with a user id that has no account.
    """
    if not os.path.expanduser("~").startswith("~"):  # noqa: PTH111, Path's raises
        return
    folder = Path(os.environ.get("TMPDIR") or "/tmp") / f"s2s_jax-{os.getuid()}"
    with writing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():  # never run programs compiled by another user
            raise LabError(f"{folder} belongs to another user; set HOME to a folder of your own")
    os.environ["HOME"] = str(folder)
    warn(f"there is no home folder; {folder} takes its place (set HOME to choose another)")


def import_jax() -> None:
    """Imports JAX; to be called before what needs it.

    Raises:
      LabError: one of its environment variables, such as JAX_ENABLE_X64, has a wrong value, or the
        address space is too small for its libraries.
    """
    from s2s_jax.lab.base.allocator import check_address_space

    check_address_space(computes=False)
    try:
        import jax  # noqa: F401
    except ValueError as error:
        raise LabError(f"JAX cannot use its environment variables: {error}") from error


def prepare_jax() -> None:
    """Opens the platform that the user has chosen, with a cache of compiled programs.

    The cache is where JAX_COMPILATION_CACHE_DIR says, or nowhere if that is empty; if it is not
    set, the cache is in the user's cache folder.

    Raises:
      LabError: the platform is not available, the address space is too small, or an environment
        variable for JAX has a wrong value.
    """
    from s2s_jax.lab.base.allocator import check_address_space, keep_freed_memory

    check_address_space()
    keep_freed_memory()
    import_jax()
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "s2s_jax" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        if "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES" not in os.environ:
            # Otherwise the cache's path is part of its keys, and a moved or copied cache is lost.
            jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    check_platforms()


def check_platforms() -> None:
    """Opens JAX's devices.

    Raises:
      LabError: JAX finds no device, or cannot open the platform that JAX_PLATFORMS names.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter comes from an incomplete plugin
        config: Any = jax.config  # type checkers do not know its options
        asked = config.jax_platforms or ""
        if not asked:
            raise LabError(f"JAX finds no device: {error}") from error
        there = _platforms()
        raise LabError(
            f"JAX_PLATFORMS is {asked}, which JAX cannot open here;"
            f" available: {' and '.join(there)}; {_remedy(asked)}"
        ) from error


def _platforms() -> list[str]:
    """The platforms that can be opened here."""
    import jax

    jax.config.update("jax_platforms", "")
    try:
        return sorted({device.platform for device in jax.devices()})
    except (RuntimeError, AssertionError):
        return ["none"]


def _remedy(asked: str) -> str:
    """What to do about a platform that is not available."""
    packages = {"cuda": "jax[cuda13]", "gpu": "jax[cuda13]", "tpu": "jax[tpu]"}
    wanted = [packages[one] for one in asked.split(",") if one in packages]
    if not wanted:
        return "unset it, or set it to cpu, cuda or tpu"
    return f"install {wanted[0]} on a machine with such a device, or unset it"
