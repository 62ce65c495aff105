"""The device side of runs in training: their states and the updates that advance them."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from s2s_jax.batch import EOS, PAD, Batch
from s2s_jax.branches import draws_tokens
from s2s_jax.data.batching import BatchShape, TrainingBatches
from s2s_jax.lab.training.optimizers import Scalars
from s2s_jax.lab.training.programs import Case, Layout, Programs, Progress, shape_of
from s2s_jax.metrics import MetricSums

_WORTH_COMPILING = 0.1
"""The minimum share of steps that are teacher-forced in every lane for which a separate program,
without the rollout, is compiled."""


class StepInput(NamedTuple):
    """The input of one run's next update."""

    batch: Batch
    teacher_prob: np.float32


Reading = Callable[[int], tuple[MetricSums, int]]
"""A run's number -> its sums and its first non-finite step (below 0 if none). It blocks until the
device has computed them."""


class DeviceLanes:
    """The device side of one or more runs that train side by side, numbered from 0.

    At each step, all lanes take batches of the same shape: the smallest bucket shape that holds
    every lane's batch. Batches by number of tokens have one shape at the same step; those of lanes
    at different steps may fit into no bucket, and take the largest number in each place, for which
    a program is compiled when it is needed. Padding changes neither loss nor gradient, and coins
    and dropout are drawn independently of the length and of the rows that follow. If all lanes are
    fed gold, the rollout is skipped. For one run this is a branch within its program; for several
    it is a separate program, which is compiled only if this happens often enough.

    Metrics are summed on the device and fetched one step late, while the device already computes
    the next step.

    Args:
      programs: the programs of the runs' `group_key`.
      starts: the progress from which each run continues.
      scalars: each run's optimiser scalars.
      batches: the batches of one run; those of the others have the same shapes.
      teacher_probs: [num_steps] for each run, its teacher_prob from its next step on.
      report: called with each line of progress.
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
        if len(starts) > 1:  # the smallest common shape may be no lane's own
            shapes = list(dict.fromkeys((*shapes, *batches.shapes)))
        self._layout = Layout(len(starts))
        self._kinds = kinds = [True] if len(starts) == 1 else _kinds(teacher_probs)
        self._cases = [Case(len(starts), shape, one_prob) for shape in shapes for one_prob in kinds]
        self._state, self._sums = self._layout.stack(starts)
        self._scalars = self._layout.stack([_on_device(one) for one in scalars])
        self._bad_step = self._layout.stack([np.full((), -1, np.int32)] * len(starts))

    def compile(self) -> None:
        """Compiles the program of the first batch, and starts compiling the others.

        Raises:
          jax.errors.JaxRuntimeError: compilation fails, for example for lack of device memory.
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
        self._compiled[self._cases[0]]  # waits: training cannot start without it

    @property
    def compile_seconds(self) -> float:
        """The time spent waiting for the compiler so far."""
        return self._compiled.seconds_waited - self._waited_before

    def close(self) -> None:
        """Ends the compilations; no more updates may follow."""
        self._compiled.close()

    def advance(self, inputs: Mapping[int, StepInput]) -> None:
        """Starts an update of the runs that have an input; other lanes repeat one of the inputs."""
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
            if not draws_tokens(teacher_prob).any() and True in self._kinds:
                case, teacher_prob = case._replace(one_prob=True), np.float32(1)
        self._compiled.begin([case])  # only a shape that no batch has by itself is not begun yet
        self._state, self._sums, self._bad_step = self._compiled[case](
            self._state, self._sums, self._bad_step, batch, self._scalars, teacher_prob
        )

    def take_sums(self, numbers: Sequence[int]) -> Reading:
        """Takes the sums of these runs, to be read later, and resets them to zero."""
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
        """The progress of a run, in the form that it has when the run trains alone."""
        return Progress(*self._layout.one_of((self._state, self._sums), number))

    def first_bad_step(self, number: int) -> int:
        """The first non-finite step, which may be the next one; below 0 if there is none."""
        state = self._state
        params, step, bad_step = self._layout.one_of(
            (state.params, state.step, self._bad_step), number
        )
        # The last update can leave non-finite parameters, which only the next step would detect.
        if int(bad_step) >= 0 or _are_finite(params):
            return int(bad_step)
        return int(step)


@jax.jit
def _begun_anew(sums: MetricSums, anew: jax.Array) -> MetricSums:
    return jax.tree.map(lambda leaf: jnp.where(anew, 0, leaf), sums)


@jax.jit
def _are_finite(tree: optax.Params) -> jax.Array:
    """Whether all numbers in a tree, and their norm, are finite."""
    return jnp.isfinite(optax.tree.norm(tree))


def _on_device(scalars: Scalars) -> Scalars:
    return jax.device_put(jax.tree.map(np.float32, scalars))


def _kinds(teacher_probs: Sequence[np.ndarray]) -> list[bool]:
    """The values of `Case.one_prob` that several runs need; that of the first step comes first.

    True is included only if compiling it pays.

    Args:
      teacher_probs: [num_steps] for each run, its teacher_prob in the remaining updates.
    """
    gold = np.ones(max(map(len, teacher_probs)), bool)
    for one in teacher_probs:
        gold[: len(one)] &= ~draws_tokens(one)
    share = gold.mean() if len(gold) else 0.0
    kinds = [*([False] if share < 1 else []), *([True] if share >= _WORTH_COMPILING else [])]
    return sorted(kinds, key=lambda one_prob: one_prob != gold[:1].all())


def stack_batches(batches: Sequence[Batch], shapes: Sequence[BatchShape]) -> Batch:
    """Stacks batches along a new first axis, padded to the first shape that holds all of them.

    Rows that are added have no target, and one EOS as their source, as `TokenPairs.batch` has them.

    Args:
      batches: the batches.
      shapes: smallest first. If none holds every batch, that of the largest number in each place is
        taken.

    Example:
      >>> short, long = (
      ...     Batch(*[np.ones((1, time), kind) for time in times for kind in (np.int32, bool)])
      ...     for times in ((2, 1), (3, 4))
      ... )
      >>> stacked = stack_batches([short, long], [BatchShape(1, 2, 1), BatchShape(1, 3, 4)])
      >>> stacked.target.tolist()
      [[[1, 0, 0, 0]], [[1, 1, 1, 1]]]
      >>> stacked.source_mask[0].tolist()
      [[True, True, False]]
    """
    largest = BatchShape(*map(max, zip(*map(shape_of, batches), strict=True)))
    shape = next((one for one in shapes if one.holds(largest)), largest)

    def stack(
        arrays: Sequence[np.ndarray], time: int, filling: int | bool, first: int | bool
    ) -> np.ndarray:
        stacked = np.full((len(arrays), shape.num_rows, time), filling, arrays[0].dtype)
        for number, array in enumerate(arrays):
            rows, own_time = array.shape
            stacked[number, :rows, :own_time] = array
            stacked[number, rows:, 0] = first
        return stacked

    times = (shape.source_time, shape.source_time, shape.time, shape.time)
    fillings, firsts = (PAD, False, PAD, False), (EOS, True, PAD, False)
    return Batch(*map(stack, zip(*batches, strict=True), times, fillings, firsts))
