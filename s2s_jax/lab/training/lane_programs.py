"""Runs as lanes of one program: the update of one run, vmapped, and sharded over devices."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from s2s_jax.batch import PAD, Batch
from s2s_jax.lab.training.compilation import compile_all, lowered_in_turn
from s2s_jax.lab.training.compiled_update import (
    Shape,
    accumulate,
    are_finite,
    batch_template,
    scalars_template,
    shape_of,
)
from s2s_jax.lab.training.lane import Lane, Progress, Reading, StepInput
from s2s_jax.lab.training.optimizers import Scalars
from s2s_jax.metrics import MetricSums
from s2s_jax.objectives import Objective
from s2s_jax.training import TrainState, make_update

_AXIS = "lanes"

_WORTH_COMPILING = 0.1
"""The share of the steps that are teacher-forced in every lane from which on a program of their
own, without the rollout, is compiled."""


class LanePrograms:
    """The device's side of runs that train as lanes of one program; see `Programs`.

    All lanes take a batch of one shape: the smallest of the buckets that holds the batch of each.
    Padding changes neither loss nor gradient, and coins and dropout are drawn independently of the
    length. Where all lanes are fed gold the rollout is left out, if that is so often enough.

    With several devices each trains an equal share of the lanes; where the number of lanes is no
    multiple, what fills up is trained and thrown away.

    Args:
      objective: of `make_objective`.
      make_optimizer: scalars, which are traced -> an optax transformation.
      template: of `progress_template`, the shapes of one run.
      starts: where each run goes on.
      scalars: each run's.
      lanes: each run's host side.
      report: takes a line of progress.
    """

    def __init__(
        self,
        objective: Objective,
        make_optimizer: Callable[[Scalars], optax.GradientTransformation],
        template: Progress,
        starts: Sequence[Progress],
        scalars: Sequence[Scalars],
        lanes: Sequence[Lane],
        report: Callable[[str], None],
    ):
        self._template, self._lanes, self._report = template, lanes, report
        self._shapes = lanes[0].batches.shapes
        devices = jax.local_devices()[: len(lanes)]
        share = -(-len(lanes) // len(devices))
        self._num_filling = share * len(devices) - len(lanes)
        self._device = devices[0]
        mesh = Mesh(np.asarray(devices), (_AXIS,))
        self._sharding = NamedSharding(mesh, PartitionSpec(_AXIS))
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._state, self._sums = self._stacked(starts)
        self._scalars = self._stacked([jax.tree.map(np.float32, one) for one in scalars])
        self._bad_step = self._stacked([np.full((), -1, np.int32)] * len(lanes))
        self._begins_anew = np.zeros(len(lanes) + self._num_filling, bool)

        def update(
            state: TrainState,
            sums: MetricSums,
            bad_step: jax.Array,
            begins_anew: jax.Array,
            batch: Batch,
            scalars: Scalars,
            teacher_prob: jax.Array,
        ) -> tuple[TrainState, MetricSums, jax.Array]:
            sums = jax.tree.map(lambda leaf: jnp.where(begins_anew, 0, leaf), sums)
            one = make_update(objective, make_optimizer(scalars))
            return accumulate(one, state, sums, bad_step, batch, teacher_prob)

        def program(teacher_prob_axis: int | None) -> Any:
            vmapped = jax.vmap(update, in_axes=(0, 0, 0, 0, 0, 0, teacher_prob_axis))
            of_lanes, of_all = PartitionSpec(_AXIS), PartitionSpec()
            if len(devices) > 1:
                specs = (of_lanes,) * 6 + (of_all if teacher_prob_axis is None else of_lanes,)
                vmapped = jax.shard_map(
                    vmapped, mesh=mesh, in_specs=specs, out_specs=of_lanes, check_vma=False
                )
            return jax.jit(vmapped, donate_argnums=0, out_shardings=self._sharding)

        # With one teacher_prob for all, "is it below 1" stays one question under vmap, and only one
        # of its two branches runs.
        self._mixed, self._all_gold = program(0), program(None)
        self._lane = jax.jit(lambda tree, number: jax.tree.map(lambda leaf: leaf[number], tree))
        self._compiled: dict[tuple[Shape, bool], Callable[..., Any]] = {}
        self.compile_seconds = 0.0

    def compile(self) -> None:
        """Compiles the step for every shape, with and without the rollout where each is worth it.

        Raises:
          jax.errors.JaxRuntimeError: also where the device's memory does not suffice.
        """
        gold = _share_of_gold_steps(self._lanes)
        kinds = [
            *([False] if gold < 1 else []),
            *([True] if gold >= _WORTH_COMPILING else []),
        ]
        devices = self._sharding.num_devices
        self._report(
            f"compiling the train step of {len(self._lanes)} lanes"
            f"{f' on {devices} devices' if devices > 1 else ''}"
            f" for {len(self._shapes)} batch shapes"
            f"{', with and without the rollout' if len(kinds) > 1 else ''} ..."
        )
        num_slots = len(self._begins_anew)

        def stacked(tree: Any) -> Any:
            return jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(
                    (num_slots, *leaf.shape), leaf.dtype, sharding=self._sharding
                ),
                tree,
            )

        def lower(case: tuple[Shape, bool]) -> jax.stages.Lowered:
            shape, all_gold = case
            arguments = (
                *self._template,
                jax.ShapeDtypeStruct((), jnp.int32),
                jax.ShapeDtypeStruct((), jnp.bool_),
                batch_template(self._lanes[0].batches.batch_size, shape),
                scalars_template(),
            )
            scalar = jax.ShapeDtypeStruct((), jnp.float32)
            teacher_prob = (
                jax.ShapeDtypeStruct((), jnp.float32, sharding=self._everywhere)
                if all_gold
                else stacked(scalar)
            )
            program = self._all_gold if all_gold else self._mixed
            return program.lower(*stacked(arguments), teacher_prob)

        cases = [(shape, kind) for shape in self._shapes for kind in kinds]
        self._compiled, self.compile_seconds = compile_all(lowered_in_turn(lower), cases)

    def close(self) -> None:
        """Nothing is left to do: all has been compiled at the beginning."""

    def advance(self, inputs: Mapping[int, StepInput]) -> None:
        """Starts an update of the lanes that have an input; the others repeat one of those."""
        any_input = next(iter(inputs.values()))
        every = [inputs.get(number, any_input) for number in range(len(self._begins_anew))]
        batch = stack_batches([one.batch for one in every], self._shapes)
        teacher_prob = np.asarray([one.teacher_prob for one in every], np.float32)
        shape, all_gold = shape_of(batch), bool((teacher_prob == 1).all())
        all_gold = all_gold and (shape, True) in self._compiled
        self._state, self._sums, self._bad_step = self._compiled[shape, all_gold](
            self._state,
            self._sums,
            self._bad_step,
            self._begins_anew.copy(),  # the program may still read it when it is changed here
            batch,
            self._scalars,
            np.float32(1) if all_gold else teacher_prob,
        )
        self._begins_anew[:] = False

    def take_sums(self, numbers: Sequence[int]) -> Reading:
        """What these lanes have added up; the next update begins them anew."""
        self._begins_anew[list(numbers)] = True
        on_device, on_host = (self._sums, self._bad_step), []

        def read(number: int) -> tuple[MetricSums, int]:
            if not on_host:  # once for all lanes
                on_host.append(jax.device_get(on_device))
            sums, bad_step = jax.tree.map(lambda leaf: leaf[number], on_host[0])
            return sums, int(bad_step)

        return read

    def progress(self, number: int) -> Progress:
        """Where a run is, as it would be if it trained alone, on the first device."""
        state, sums = self._lane((self._state, self._sums), number)
        if self._begins_anew[number]:
            sums = jax.tree.map(jnp.zeros_like, sums)
        return Progress(*jax.device_put((state, sums), self._device))

    def first_bad_step(self, number: int) -> int:
        """The first step that was not finite."""
        state = self._state
        params, step, bad_step = self._lane((state.params, state.step, self._bad_step), number)
        # The last update can leave parameters that only the next step would find out.
        if int(bad_step) >= 0 or are_finite(params):
            return int(bad_step)
        return int(step)

    def _stacked(self, trees: Sequence[Any]) -> Any:
        """Trees with the lanes in front, on the devices; the first once more where some fill up."""
        trees = [*trees, *[trees[0]] * self._num_filling]

        def stack(*leaves: Any) -> jax.Array:
            if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
                data = jnp.stack([jax.random.key_data(leaf) for leaf in leaves])
                keys = jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaves[0]))
                return jax.device_put(keys, self._sharding)
            return jax.device_put(np.stack([np.asarray(one) for one in leaves]), self._sharding)

        return jax.tree.map(stack, *trees)


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


def _share_of_gold_steps(lanes: Sequence[Lane]) -> float:
    """Of the updates to come, the share at which every lane is fed gold alone."""
    left = [lane.teacher_probs[lane.step :] == 1 for lane in lanes]
    gold = np.ones(max(map(len, left)), bool)
    for one in left:
        gold[: len(one)] &= one
    return float(gold.mean()) if len(gold) else 0.0
