"""The training loop on a fake clock."""

import re
import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import Batch
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.metric_catalog import CATALOG
from s2s_jax.lab.training.device_lanes import DeviceLanes, Reading, StepInput
from s2s_jax.lab.training.lane import Lane, schedule_values
from s2s_jax.lab.training.loop import train_lanes
from s2s_jax.metrics import Mean

STEP_SECONDS, EVALUATION_SECONDS, TOKENS = 0.25, 100.0, 12


class FakeClock:
    now = 0.0


class FakeDevice(DeviceLanes):
    """Queues updates immediately; time passes only when something waits for them."""

    def __init__(self, clock: FakeClock, steps_in_sums: int = 0):
        self._clock, self._free_at, self._steps = clock, 0.0, steps_in_sums

    def compile(self) -> None: ...

    @property
    def compile_seconds(self) -> float:
        return 0.0

    def close(self) -> None: ...

    def advance(self, inputs: Mapping[int, StepInput]) -> None:
        self._free_at = max(self._free_at, self._clock.now) + STEP_SECONDS
        self._steps += 1

    def take_sums(self, numbers: Sequence[int]) -> Reading:
        ready, tokens = self._free_at, float(self._steps * TOKENS)
        self._steps = 0

        def read(number: int):
            self._wait_until(ready)
            return {
                "loss": Mean(tokens, tokens),
                "teacher_prob": Mean(1.0, 1.0),
            }, -1

        return read

    def progress(self, number: int) -> Any:
        return SimpleNamespace(state=SimpleNamespace(params=None, opt_state=()))

    def first_bad_step(self, number: int) -> int:
        self._wait_until(self._free_at)
        return -1

    def _wait_until(self, second: float) -> None:
        self._clock.now = max(self._clock.now, second)


class FakeEvaluator:
    catalog = CATALOG

    def __init__(self, clock: FakeClock):
        self._clock = clock

    def dev(self, params: Any) -> dict[str, float]:
        self._clock.now += EVALUATION_SECONDS
        return {}

    def show(self, params: Any, tracker: Any, step: int, attempt: Any) -> None: ...

    def summary(self, metrics: Any) -> str:
        return "evaluated"

    def cost(self, metrics: Any) -> float:
        return 0.0


class FakeTracker:
    def __init__(self):
        self.rates: dict[int, float] = {}

    def scalars(self, step: int, metrics: Mapping[str, float], catalog: Any = CATALOG) -> None:
        if "train/tokens_per_second" in metrics:
            self.rates[step] = metrics["train/tokens_per_second"]

    def flush(self) -> None: ...


class FakeCheckpoints:
    latest_step = None

    def check(self) -> None: ...

    def save(self, step: int, state: Any, score: float | None = None) -> None: ...


class FakeBatches:
    num_batches = 8

    def __getitem__(self, step: int) -> Batch:
        tokens = np.ones((3, TOKENS // 3), np.int32)
        return Batch(tokens, tokens > 0, tokens, tokens > 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    return clock


def make_lane(clock: FakeClock, tracker: Any, evaluate_every: int, first_step: int = 0) -> Lane:
    parts: Any = FakeBatches(), FakeEvaluator(clock), FakeCheckpoints()
    batches, evaluator, checkpoints = parts
    return Lane(
        batches,
        np.ones(16, np.float32),
        evaluator,
        tracker,
        checkpoints,
        first_step=first_step,
        log_every=2,
        evaluate_every=evaluate_every,
        report=lambda line: None,
    )


@pytest.mark.parametrize("evaluate_every", [(4,), (4, 8)])
def test_the_rate_excludes_evaluations(clock: FakeClock, evaluate_every: tuple[int, ...]):
    trackers = [FakeTracker() for _ in evaluate_every]
    lanes = [
        make_lane(clock, tracker, every)
        for every, tracker in zip(evaluate_every, trackers, strict=True)
    ]
    train_lanes(lanes, FakeDevice(clock))
    for tracker in trackers:
        assert list(tracker.rates) == [2, 4, 6, 8, 10, 12, 14, 16]
        assert list(tracker.rates.values()) == pytest.approx([TOKENS / STEP_SECONDS] * 8)


def test_the_rate_of_a_resumed_run_excludes_earlier_tokens(clock: FakeClock):
    tracker = FakeTracker()
    lane = make_lane(clock, tracker, evaluate_every=16, first_step=3)
    train_lanes([lane], FakeDevice(clock, steps_in_sums=1))
    assert tracker.rates == pytest.approx(
        dict.fromkeys((4, 6, 8, 10, 12, 14, 16), TOKENS / STEP_SECONDS)
    )


@pytest.mark.parametrize(("wrong", "said"), [(1.5, "1.5"), (-0.25, "-0.25"), (float("nan"), "nan")])
def test_a_schedule_outside_0_to_1_is_rejected_with_step_and_value(wrong, said):
    expected = f"the schedule gives teacher_prob {said} at step 3; it must be in [0, 1]"
    with pytest.raises(LabError, match=re.escape(expected)):
        schedule_values(lambda step: jnp.where(jnp.less(step, 3), 1.0, wrong), 5)
    right = schedule_values(lambda step: jnp.divide(step, 4), 5)
    np.testing.assert_array_equal(right, np.arange(5) / 4)


def test_a_failing_picture_does_not_cost_the_checkpoint(clock: FakeClock):
    done: list[Any] = []

    class Checkpoints(FakeCheckpoints):
        def save(self, step: int, state: Any, score: float | None = None) -> None:
            done.append(step)

    class Evaluator(FakeEvaluator):
        def show(self, params: Any, tracker: Any, step: int, attempt: Any) -> None:
            for kind in ("examples", "picture"):
                with attempt(kind):
                    done.append(kind)
                    raise RecursionError(f"of step\n{step}")

    parts: Any = FakeBatches(), Evaluator(clock), FakeTracker(), Checkpoints()
    batches, evaluator, tracker, checkpoints = parts
    lines: list[str] = []
    lane = Lane(
        batches,
        np.ones(8, np.float32),
        evaluator,
        tracker,
        checkpoints,
        first_step=0,
        log_every=4,
        evaluate_every=4,
        report=lines.append,
    )
    train_lanes([lane], FakeDevice(clock))
    assert lane.error is None
    assert done == [4, "examples", "picture", 8, "examples", "picture"]
    assert [line for line in lines if "left out" in line] == [
        "left out: examples (RecursionError: of step 4)",
        "left out: picture (RecursionError: of step 4)",
    ]


def test_a_failed_save_is_noticed_at_the_next_step(clock: FakeClock):
    class Checkpoints(FakeCheckpoints):
        failed = False

        def save(self, step: int, state: Any, score: float | None = None) -> None:
            self.failed = True

        def check(self) -> None:
            if self.failed:
                raise LabError("no space")

    lane = make_lane(clock, FakeTracker(), evaluate_every=4)
    lane._checkpoints = cast(Any, Checkpoints())
    train_lanes([lane], FakeDevice(clock))
    assert (lane.step, str(lane.error)) == (5, "no space")
