import threading
import time

import jax
import numpy as np
import pytest

from s2s_jax.lab.training.programs import Layout, ProgramCache


class Lowered:
    """Stands in for the result of `jax.jit(...).lower`; `compile_one` makes the program."""

    def __init__(self, compile_one, case):
        self.compile = lambda: compile_one(case)


def cache_of(compile_one) -> ProgramCache:
    return ProgramCache(lambda case: Lowered(compile_one, case))


def test_only_a_program_that_is_not_ready_is_waited_for():
    may_end = threading.Event()
    cache = cache_of(lambda case: may_end.wait(60) if case else "the first")
    assert cache.begin([0, 1]) == [0, 1]
    assert cache[0] == "the first"
    waited = cache.seconds_waited
    threading.Timer(0.05, may_end.set).start()
    assert cache[1] is True
    assert cache.seconds_waited >= waited + 0.04
    waited = cache.seconds_waited
    assert cache[1] is True
    assert cache.seconds_waited == waited
    cache.close()


def test_compiled_programs_are_kept_and_failed_ones_are_retried():
    compiled, room = [], []

    def compile_one(case: int) -> int:
        compiled.append(case)
        if case and not room:
            raise MemoryError("no room")
        return case

    cache = cache_of(compile_one)
    cache.begin([0, 1])
    assert cache[0] == 0
    with pytest.raises(MemoryError, match="no room"):
        cache[1]
    cache.close()
    room.append("enough")
    assert cache.begin([0, 1]) == [1]
    assert cache[1] == 1
    cache.close()
    assert compiled == [0, 1, 1]


def test_no_compilation_starts_after_close(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    goes_on, begun = threading.Event(), []

    def compile_one(case: int) -> int:
        begun.append(case)
        goes_on.wait(60)
        return case

    cache = cache_of(compile_one)
    cache.begin([0, 1, 2])
    while not begun:
        time.sleep(0.01)
    cache.close()
    goes_on.set()
    assert cache[0] == 0
    assert begun == [0]
    assert cache.begin([0, 1, 2]) == [1, 2]
    assert [cache[case] for case in range(3)] == [0, 1, 2]
    cache.close()


def test_lowering_is_serial_and_compilation_is_parallel():
    lowering, most, together = [0], [0], threading.Barrier(2, timeout=60)

    def compile_one(case: int) -> int:
        together.wait()  # would wait forever if they were compiled one after the other
        return case

    def lower(case: int) -> Lowered:
        lowering[0] += 1
        most[0] = max(most[0], lowering[0])
        time.sleep(0.02)
        lowering[0] -= 1
        return Lowered(compile_one, case)

    cache = ProgramCache(lower)
    cache.begin([3, 4])
    assert [cache[3], cache[4]] == [3, 4]
    assert most == [1]
    cache.close()


@pytest.mark.parametrize("num_lanes", [1, 3])
def test_stacked_runs_are_recovered(num_lanes):
    layout = Layout(num_lanes)
    runs = [{"key": jax.random.key(number), "x": np.full(2, number)} for number in range(num_lanes)]
    stacked = layout.stack(runs)
    assert stacked["x"].shape == ((2,) if num_lanes == 1 else (3, 2))
    shapes = layout.template({"x": jax.ShapeDtypeStruct((2,), np.int32)})
    assert shapes["x"].shape == stacked["x"].shape
    for number, run in enumerate(runs):
        one = layout.one_of(stacked, number)
        assert one["key"] == run["key"]
        np.testing.assert_array_equal(one["x"], run["x"])
