"""What the lab's processes share: exit codes, how a signal stops them, how JAX is prepared."""

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
EXIT_STOPPED = 75  # EX_TEMPFAIL: the same command goes on
EXIT_INTERRUPTED = 130  # as shells say it of SIGINT

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_GRACE_SECONDS = 1.0


class StopSignals:
    """What SIGTERM, SIGINT (Ctrl-C) and SIGHUP (the terminal has gone) do to a process that trains.

    While nothing would be lost, which is until `is_set` is first asked, a signal ends the process
    at once with exit code 75: its main thread unwinds, and where that is held up, by a compiler
    say, the process ends all the same. From then on the first signal asks for the end of the step
    and a checkpoint, and a second SIGTERM or SIGINT ends the process at once, also with 75. A
    terminal that goes away may send SIGHUP several times, so that one is never a second. A SIGHUP
    that was ignored at the start, as `nohup` has it, stays ignored.

    A thread hears the signals, since Python's own handlers wait for the main thread to leave a call
    into C++, and says at once on standard error what follows.

    Only the main thread can make one; `close` gives the signals back.
    """

    def __init__(self):
        # Plain values: a handler that is interrupted by another would wait for an event's lock.
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
        """Whether to stop; whoever trains asks after every step, and leaves a checkpoint then."""
        self._at_work = True
        if self._requested:  # the process may end soon: what follows is said before
            self._has_said.wait(_GRACE_SECONDS)
        return self._requested

    def begin_anew(self) -> None:
        """Nothing would be lost from here on: until the next `is_set` a signal ends the process."""
        self._at_work = False

    def interrupt_from_now_on(self) -> None:
        """From here on a signal raises KeyboardInterrupt in the main thread, and no more."""

        def interrupt(number: int, frame: object) -> None:
            if number == signal.SIGHUP:
                signal.signal(number, signal.SIG_IGN)
            raise KeyboardInterrupt

        for number in self._before:
            signal.signal(number, interrupt)
        signal.set_wakeup_fd(self._wakeup_before)

    def end(self) -> NoReturn:
        """Ends the process by what `StoppedBySignal` asks, without waiting for other threads."""
        self._has_said.wait(_GRACE_SECONDS)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(EXIT_STOPPED)

    def close(self) -> None:
        """Gives the signals back to whoever had them before."""
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._writer)  # ends the thread

    def _handle(self, number: int, frame: object) -> None:
        """Runs in the main thread, as soon as that is in Python."""
        if self._at_work:
            self._requested = True
        elif not self._raised:
            self._raised = True
            # Where the collector of garbage was running, this is printed as ignored, and is.
            sys.unraisablehook = lambda unraisable: None
            raise StoppedBySignal

    def _listen(self) -> None:
        asked = False
        while heard := os.read(self._heard, 1):
            number = heard[0]
            if number not in self._before:  # a signal for somebody else's handler
                continue
            name = signal.Signals(number).name
            if not self._at_work:
                _say(f"stopped by {name}; no update would be lost, and the same command goes on")
                self._has_said.set()
                time.sleep(_GRACE_SECONDS)
                os._exit(EXIT_STOPPED)
            self._requested = True
            if not asked:
                asked = True
                _say(
                    f"{name}: stopping with a checkpoint after the step or compilation that is"
                    " under way; a second one ends at once"
                )
                self._has_said.set()
            elif number != signal.SIGHUP:
                _say(f"{name} again: ended at once; the same command goes on from the checkpoint")
                os._exit(EXIT_STOPPED)
        os.close(self._heard)


class StoppedBySignal(BaseException):
    """The process is to end by a signal, and nothing is lost; see `StopSignals`."""


def stop_on_signals() -> StopSignals:
    """Hears SIGTERM, SIGINT and SIGHUP from now on; an uncaught `StoppedBySignal` is no error."""
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
    """Says a line on standard error, whatever stands in the place of Python's stream just now."""
    with contextlib.suppress(OSError):
        os.write(2, f"s2s: {line}\n".encode())


def tolerate_garbage() -> None:
    """Has Python look for objects that nobody needs less often than by default.

    Imports and tracing leave a million objects that stay: looking through them as often as that is
    a twentieth of a start. To be called before them.
    """
    gc.set_threshold(100_000, 50, 100)


def provide_home() -> None:
    """Gives a user without a home folder a temporary one, for all that is kept in a home; says so.

    In a container a process can have a number for a user that no account has.
    """
    if not os.path.expanduser("~").startswith("~"):  # noqa: PTH111, Path's raises
        return
    folder = Path(os.environ.get("TMPDIR") or "/tmp") / f"s2s_jax-{os.getuid()}"
    with writing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():  # compiled programs of others are not run
            raise LabError(f"{folder} belongs to another user; set HOME to a folder of your own")
    os.environ["HOME"] = str(folder)
    warn(f"there is no home folder; {folder} takes its place (set HOME to choose another)")


def import_jax() -> None:
    """Imports JAX; to be called before what needs it.

    Raises:
      LabError: one of its environment variables, such as JAX_ENABLE_X64, has a wrong value.
    """
    try:
        import jax  # noqa: F401
    except ValueError as error:
        raise LabError(f"JAX cannot use its environment variables: {error}") from error


def prepare_jax() -> None:
    """Opens the platform that the user has asked for, with a cache of compiled programs.

    The cache is where the user has said, nowhere if so, or else in the user's own cache folder.

    Raises:
      LabError: the platform is not there, there are too few addresses to use it, or a variable for
        JAX has a wrong value.
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
            # Else the cache's own path is part of what a program is found by, and a cache that was
            # moved or copied is lost.
            jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    check_platforms()


def check_platforms() -> None:
    """Opens JAX's devices.

    Raises:
      LabError: a platform was asked for by JAX_PLATFORMS that JAX cannot open here.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter of a plugin that is half there
        config: Any = jax.config  # its options are attributes that no type checker knows
        asked = config.jax_platforms or ""
        if not asked:
            raise LabError(f"JAX finds no device: {error}") from error
        there = _platforms()
        raise LabError(
            f"JAX_PLATFORMS is {asked}, and JAX cannot open that here;"
            f" there is {' and '.join(there)}; {_remedy(asked)}"
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
    """What to do about a platform that is not there."""
    packages = {"cuda": "jax[cuda13]", "gpu": "jax[cuda13]", "tpu": "jax[tpu]"}
    wanted = [packages[one] for one in asked.split(",") if one in packages]
    if not wanted:
        return "unset it, or set it to cpu, cuda or tpu"
    return f"install {wanted[0]} where there is such a device, or unset it"
