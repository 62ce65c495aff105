import threading
import time

import pytest

from s2s_jax.lab.training.compilation import CompiledInTurn, compile_all, lowered_in_turn


def test_a_program_is_waited_for_only_where_it_is_not_there_yet():
    may_end = threading.Event()
    compiled = CompiledInTurn(lambda case: may_end.wait(60) if case else "the first", [0, 1])
    assert compiled[0] == "the first"
    waited = compiled.seconds_waited
    threading.Timer(0.05, may_end.set).start()
    assert compiled[1] is True
    assert compiled.seconds_waited >= waited + 0.04
    waited = compiled.seconds_waited
    assert compiled[1] is True
    assert compiled.seconds_waited == waited
    compiled.close()


def test_what_goes_wrong_is_raised_where_the_program_is_asked_for():
    def fail(case: int) -> str:
        if case:
            raise MemoryError("no room")
        return "there"

    compiled = CompiledInTurn(fail, [0, 1])
    assert compiled[0] == "there"
    with pytest.raises(MemoryError, match="no room"):
        compiled[1]
    compiled.close()


def test_behind_the_end_nothing_is_begun(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    goes_on, begun = threading.Event(), []

    def compile_one(case: int) -> int:
        begun.append(case)
        goes_on.wait(60)
        return case

    compiled = CompiledInTurn(compile_one, [0, 1, 2])
    compiled.close()
    goes_on.set()
    assert compiled[0] == 0
    assert begun == [0]


def test_one_is_lowered_at_a_time_and_several_are_compiled():
    lowering, most, together = [0], [0], threading.Barrier(2, timeout=60)

    class Lowered:
        def __init__(self, case: int):
            self.case = case

        def compile(self) -> int:
            together.wait()  # for ever, were they compiled one after the other
            return self.case

    def lower(case: int) -> Lowered:
        lowering[0] += 1
        most[0] = max(most[0], lowering[0])
        time.sleep(0.02)
        lowering[0] -= 1
        return Lowered(case)

    compiled, seconds = compile_all(lowered_in_turn(lower), [3, 4])
    assert compiled == {3: 3, 4: 4}
    assert most == [1]
    assert seconds > 0.03
