"""The training loop, for one run or several side by side."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from s2s_jax.batch import Batch
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.training.device_lanes import DeviceLanes, StepInput
from s2s_jax.lab.training.lane import Lane


def train_lanes(
    lanes: Sequence[Lane],
    device: DeviceLanes,
    should_stop: Callable[[], bool] = lambda: False,
    ended: Callable[[int], None] = lambda number: None,
) -> None:
    """Trains runs side by side to their last steps, or until they should stop.

    The runs may be at different steps: each continues with its own next step. If a run fails, its
    `error` is set and the others continue.

    Args:
      lanes: the runs.
      device: the device side of the runs, in the same order.
      should_stop: called after every step; True stops the training.
      ended: called with the number of each run as soon as it has finished, failed or stopped.
    """
    # A run that was stopped between its last step and its result has no updates left.
    going = [number for number, lane in enumerate(lanes) if lane.trains]
    for number, lane in enumerate(lanes):
        if not lane.trains:
            ended(number)
    if not going:
        return
    try:
        _train(lanes, going, device, should_stop, ended)
    finally:
        device.close()


def _train(
    lanes: Sequence[Lane],
    going: list[int],
    device: DeviceLanes,
    should_stop: Callable[[], bool],
    ended: Callable[[int], None],
) -> None:
    device.compile()
    for number in going:
        lanes[number].begin(device.compile_seconds)

    while going:
        inputs = _inputs(lanes, going)
        waited_before = device.compile_seconds
        device.advance(inputs)
        waited = device.compile_seconds - waited_before
        for number in going:
            lanes[number].advanced(inputs[number].batch)
            if waited:
                lanes[number].waited_for_compiler(waited)
        for number in going:
            _attempt(lanes[number], Lane.log_waiting, number)
        due = [number for number in going if lanes[number].error is None and lanes[number].logs]
        if due:
            reading = device.take_sums(due)
            for number in due:
                lanes[number].log_later(reading)
        stops = any(lanes[number].trains for number in going) and should_stop()
        kept = [number for number in going if stops or lanes[number].evaluates]
        for number in kept:
            # This waits for steps still under way, which is training time and no part of the pause.
            _attempt(lanes[number], Lane.log_waiting, number)
        begin = time.perf_counter()
        for number in kept:
            _attempt(lanes[number], Lane.keep, number, device)
        over = [number for number in going if stops or not lanes[number].trains]
        for number in over:
            ended(number)
        going = [number for number in going if number not in over]
        if kept or over:
            for number in going:
                lanes[number].pause(time.perf_counter() - begin)


def _attempt(lane: Lane, act: Callable[..., None], *arguments: Any) -> None:
    """Calls a method of a lane unless it has failed; a LabError becomes the lane's own error."""
    if lane.error is None:
        try:
            act(lane, *arguments)
        except LabError as error:
            lane.error = error.with_traceback(None)  # its frames hold the state of every lane


def _inputs(lanes: Sequence[Lane], going: Sequence[int]) -> dict[int, StepInput]:
    """The inputs of the next updates; runs with the same seed at the same step share a batch."""
    batches: dict[tuple[int, int], Batch] = {}
    inputs = {}
    for number in going:
        lane = lanes[number]
        place = id(lane.batches), lane.step
        if place not in batches:
            batches[place] = lane.batches[lane.step]
        inputs[number] = StepInput(batches[place], lane.teacher_probs[lane.step])
    return inputs
