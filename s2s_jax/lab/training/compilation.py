"""Programs that are compiled several at a time: all before they are used, or in turn meanwhile."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def lowered_in_turn(lower: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Case -> program, from case -> what `jax.jit(...).lower` returns.

    Threads that lower, which is Python, hold each other up: one does at a time, and the program
    that is needed first is not late for the sake of the next. Compilers run side by side.
    """
    lock = threading.Lock()

    def compile_one(case: Any) -> Any:
        with lock:
            lowered = lower(case)
        return lowered.compile()

    return compile_one


class CompiledInTurn:
    """Compiles one program a case in the background, in the order given.

    Most of the wait is thus over before a program is asked for; who asks earlier, waits.

    Args:
      compile_one: case -> program.
      cases: hashable, the first needed first.

    Attributes:
      seconds_waited: how long was waited so far.
    """

    def __init__(self, compile_one: Callable[[Any], Any], cases: Sequence[Any]):
        self.seconds_waited = 0.0
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._programs = {case: self._pool.submit(compile_one, case) for case in cases}

    def __getitem__(self, case: Any) -> Any:
        program = self._programs[case]
        if not program.done():
            begin = time.perf_counter()
            program.exception()  # waits; what went wrong is raised below
            self.seconds_waited += time.perf_counter() - begin
        return program.result()

    def close(self) -> None:
        """Lets go of what was not begun yet."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def compile_all(
    compile_one: Callable[[Any], Any], cases: Sequence[Any]
) -> tuple[dict[Any, Any], float]:
    """Compiles every case, several at a time; and the seconds that it took."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = dict(zip(cases, pool.map(compile_one, cases), strict=True))
    return compiled, time.perf_counter() - begin
