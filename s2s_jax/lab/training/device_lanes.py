"""Runs in training, as the devices see them: where each of them is, and what moves them."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from s2s_jax.batch import PAD, Batch
from s2s_jax.branches import draws_tokens
from s2s_jax.data.batching import TrainingBatches
from s2s_jax.lab.training.optimizers import Scalars
from s2s_jax.lab.training.programs import Case, Layout, Programs, Progress, Shape, shape_of
from s2s_jax.metrics import MetricSums

_WORTH_COMPILING = 0.1
"""The share of the steps that are teacher-forced in every lane from which on a program of their
own, without the rollout, is compiled."""


class StepInput(NamedTuple):
    """What one run's next update takes."""

    batch: Batch
    teacher_prob: np.float32


Reading = Callable[[int], tuple[MetricSums, int]]
"""A run's number -> its sums, and its first step that is not finite (below 0: none). It waits."""


class DeviceLanes:
    """The devices' side of runs that train side by side, numbered from 0; one run is as good.

    All take a batch of one shape: the smallest of the buckets that holds the batch of each. Padding
    changes neither loss nor gradient, and coins and dropout are drawn independently of the length.
    Where all are fed gold the rollout is left out: in the program of one run that is a branch,
    several have a program of their own, if they are fed gold often enough.

    Metrics are added up on the device and fetched one step late, when the device is already at work
    on the next.

    Args:
      programs: of the runs' `group_key`.
      starts: where each run goes on.
      scalars: each run's.
      batches: one run's; the others' have the same shapes.
      teacher_probs: [num_steps] each run's from its next step on.
      report: takes a line of progress.
    """

    def __init__(
        self,
        programs: Programs,
        starts: Sequence[Progress],
        scalars: Sequence[Scalars],
        batches: TrainingBatches,
        teacher_probs: Sequence[np.ndarray],
        report: Callable[[str], None],
    ):
        self._compiled, self._report = programs.compiled, report
        self._waited_before = self._compiled.seconds_waited
        self._shapes, shapes = batches.shapes, batches.shapes_from(int(starts[0].state.step))
        if len(starts) > 1:  # of unequal batches the smallest common shape may be nobody's own
            shapes = list(dict.fromkeys((*shapes, *batches.shapes)))
        self._layout = Layout(len(starts))
        kinds = [True] if len(starts) == 1 else _kinds(teacher_probs)
        self._cases = [Case(len(starts), shape, one_prob) for shape in shapes for one_prob in kinds]
        self._state, self._sums = self._layout.stack(starts)
        self._scalars = self._layout.stack([_on_device(one) for one in scalars])
        self._bad_step = self._layout.stack([np.full((), -1, np.int32)] * len(starts))

    def compile(self) -> None:
        """Compiles for the first batch, and begins with the other cases.

        Raises:
          jax.errors.JaxRuntimeError: also where the device's memory does not suffice.
        """
        missing = self._compiled.begin(self._cases)
        if missing:
            layout = self._layout
            of_lanes = f" of {layout.num_lanes} lanes" if layout.num_lanes > 1 else ""
            devices = f" on {layout.num_devices} devices" if layout.num_devices > 1 else ""
            both = len({one.one_prob for one in missing}) > 1
            self._report(
                f"compiling the train step{of_lanes}{devices}"
                f" for {len({one.shape for one in missing})} batch shapes"
                f"{', with and without the rollout' if both else ''} ..."
            )
        self._compiled[self._cases[0]]  # waits; nothing can begin without it

    @property
    def compile_seconds(self) -> float:
        """How long was waited for the compiler so far."""
        return self._compiled.seconds_waited - self._waited_before

    def close(self) -> None:
        """No update follows."""
        self._compiled.close()

    def advance(self, inputs: Mapping[int, StepInput]) -> None:
        """Starts an update of the runs that have an input; the others repeat one of those."""
        any_input = next(iter(inputs.values()))
        if self._layout.num_lanes == 1:
            batch, teacher_prob = any_input
            case = Case(1, shape_of(batch))
        else:
            slots = range(self._layout.num_slots)
            every = [inputs.get(number, any_input) for number in slots]
            batch = stack_batches([one.batch for one in every], self._shapes)
            teacher_prob = np.asarray([one.teacher_prob for one in every], np.float32)
            case = Case(self._layout.num_lanes, shape_of(batch), one_prob=False)
            if not draws_tokens(teacher_prob).any() and case._replace(one_prob=True) in self._cases:
                case, teacher_prob = case._replace(one_prob=True), np.float32(1)
        self._state, self._sums, self._bad_step = self._compiled[case](
            self._state, self._sums, self._bad_step, batch, self._scalars, teacher_prob
        )

    def take_sums(self, numbers: Sequence[int]) -> Reading:
        """What these runs have added up, to be read later; they begin anew."""
        on_device, on_host = (self._sums, self._bad_step), []
        anew = [np.bool_(number in numbers) for number in range(self._layout.num_lanes)]
        self._sums = self._layout.put(_begun_anew(self._sums, self._layout.stack(anew)))

        def read(number: int) -> tuple[MetricSums, int]:
            if not on_host:  # once for all runs
                on_host.append(jax.device_get(on_device))
            sums, bad_step = on_host[0]
            if self._layout.num_lanes > 1:
                sums, bad_step = jax.tree.map(lambda leaf: leaf[number], (sums, bad_step))
            return sums, int(bad_step)

        return read

    def progress(self, number: int) -> Progress:
        """Where a run is, as it would be if it trained alone."""
        return Progress(*self._layout.one_of((self._state, self._sums), number))

    def first_bad_step(self, number: int) -> int:
        """The first step that was not finite, the next one where it would be; below 0: none."""
        state = self._state
        params, step, bad_step = self._layout.one_of(
            (state.params, state.step, self._bad_step), number
        )
        # The last update can leave parameters that only the next step would find out.
        if int(bad_step) >= 0 or _are_finite(params):
            return int(bad_step)
        return int(step)


@jax.jit
def _begun_anew(sums: MetricSums, anew: jax.Array) -> MetricSums:
    return jax.tree.map(lambda leaf: jnp.where(anew, 0, leaf), sums)


@jax.jit
def _are_finite(tree: optax.Params) -> jax.Array:
    """Whether no number of a tree is NaN or infinite, nor their norm."""
    return jnp.isfinite(optax.tree.norm(tree))


def _on_device(scalars: Scalars) -> Scalars:
    return jax.device_put(jax.tree.map(np.float32, scalars))


def _kinds(teacher_probs: Sequence[np.ndarray]) -> list[bool]:
    """Which values of `Case.one_prob` several runs need: False, True where that pays, or both.

    Args:
      teacher_probs: [num_steps] each run's, of the updates to come.
    """
    gold = np.ones(max(map(len, teacher_probs)), bool)
    for one in teacher_probs:
        gold[: len(one)] &= ~draws_tokens(one)
    share = gold.mean() if len(gold) else 0.0
    kinds = [*([False] if share < 1 else []), *([True] if share >= _WORTH_COMPILING else [])]
    return sorted(kinds, key=lambda one_prob: one_prob != gold[:1].all())  # the first needed first


def stack_batches(batches: Sequence[Batch], shapes: Sequence[Shape]) -> Batch:
    """Batches in one, with their number in front, padded to the first shape that holds each.

    Args:
      batches: of one number of rows.
      shapes: (source_time, time), smallest first; the last holds every batch.

    Example:
      >>> short, long = (
      ...     Batch(*[np.ones((1, time), kind) for time in times for kind in (np.int32, bool)])
      ...     for times in ((2, 1), (3, 4))
      ... )
      >>> stacked = stack_batches([short, long], [(2, 1), (3, 4)])
      >>> stacked.target.tolist()
      [[[1, 0, 0, 0]], [[1, 1, 1, 1]]]
      >>> stacked.source_mask[0].tolist()
      [[True, True, False]]
    """
    source_time = max(batch.source.shape[1] for batch in batches)
    target_time = max(batch.target.shape[1] for batch in batches)
    shape = next(one for one in shapes if one[0] >= source_time and one[1] >= target_time)

    def stack(arrays: Sequence[np.ndarray], time: int, filling: int | bool) -> np.ndarray:
        rows = len(arrays[0])
        stacked = np.full((len(arrays), rows, time), filling, arrays[0].dtype)
        for number, array in enumerate(arrays):
            stacked[number, :, : array.shape[1]] = array
        return stacked

    fillings = (PAD, False, PAD, False)
    times = (shape[0], shape[0], shape[1], shape[1])
    return Batch(*map(stack, zip(*batches, strict=True), times, fillings))
