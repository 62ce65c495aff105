"""Compiled train steps of runs that share a `group_key`, and the placement of their arrays."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from s2s_jax.batch import Batch
from s2s_jax.data.batching import BatchShape
from s2s_jax.lab.training.optimizers import Scalars
from s2s_jax.metrics import MetricSums, merge
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.objectives import Objective
from s2s_jax.schedules import FeedbackSchedule
from s2s_jax.training import TrainState, init_train_state, make_train_step

_AXIS = "lanes"


class Progress(NamedTuple):
    """The content of a checkpoint, from which a run continues as if it had never stopped.

    Attributes:
      state: the train state.
      sums: the sums of the metrics since they were last logged.
    """

    state: TrainState
    sums: MetricSums


class Layout:
    """The layout of runs' arrays; those of several runs have a leading lane axis.

    With several devices, each holds an equal share of the lanes. If the number of lanes is not a
    multiple of the number of devices, padding lanes are trained and discarded.

    Attributes:
      num_lanes: number of runs.
      num_slots: number of lanes including padding.
      num_devices: number of devices used for training.
      mesh: the mesh of these devices.
      sharding: the sharding of the lane axis; None for one run, which has no such axis.
    """

    def __init__(self, num_lanes: int):
        devices = jax.local_devices()[:num_lanes]
        self.num_lanes, self.num_devices = num_lanes, len(devices)
        self.num_slots = -(-num_lanes // len(devices)) * len(devices)
        self.mesh = Mesh(np.asarray(devices), (_AXIS,))
        self.sharding = NamedSharding(self.mesh, PartitionSpec(_AXIS)) if num_lanes > 1 else None

    def template(self, tree: Any) -> Any:
        """The shapes of all runs' arrays, from the shapes of one run's arrays."""
        if self.sharding is None:
            return tree
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                (self.num_slots, *leaf.shape), leaf.dtype, sharding=self.sharding
            ),
            tree,
        )

    def stack(self, trees: Sequence[Any]) -> Any:
        """Stacks the runs' arrays on the devices; padding lanes repeat those of the first run."""
        if self.sharding is None:
            return trees[0]

        def stack(*leaves: Any) -> Any:
            if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
                data = jnp.stack([jax.random.key_data(leaf) for leaf in leaves])
                return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaves[0]))
            return np.stack([np.asarray(one) for one in leaves])

        filling = [trees[0]] * (self.num_slots - self.num_lanes)
        return self.put(jax.tree.map(stack, *trees, *filling))

    def put(self, tree: Any) -> Any:
        """Puts all runs' arrays on their devices."""
        return tree if self.sharding is None else jax.device_put(tree, self.sharding)

    def one_of(self, tree: Any, number: int) -> Any:
        """Takes one run's arrays and puts them on the first device."""
        if self.sharding is None:
            return tree
        return jax.device_put(_one_of(tree, number), self.mesh.devices[0])


_one_of = jax.jit(lambda tree, number: jax.tree.map(lambda leaf: leaf[number], tree))


class Case(NamedTuple):
    """The case for which a program is compiled.

    Attributes:
      num_lanes: number of runs that train side by side.
      shape: the shape of their batches.
      one_prob: whether they share one teacher_prob, as a single run always does. With one value per
        lane, "is it below 1" has no single answer under vmap, so the rollout always runs.
    """

    num_lanes: int
    shape: BatchShape
    one_prob: bool = True


class ProgramCache:
    """A cache of programs by case, compiled in the background in the order they are needed.

    Most compilation is thus done before a program is requested; a request for a program that is not
    ready blocks. Lowering runs in Python, where threads slow each other down, so only one thread
    lowers at a time, and the program needed first is not delayed by the next. Compilation runs in
    parallel.

    Args:
      lower: case -> what `jax.jit(...).lower` returns; cases are hashable.

    Attributes:
      seconds_waited: total time spent waiting for requested programs.
    """

    def __init__(self, lower: Callable[[Any], Any]):
        self.seconds_waited = 0.0
        self._lower, self._lowering = lower, threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._programs: dict[Any, Future[Any]] = {}

    def begin(self, cases: Sequence[Any]) -> list[Any]:
        """Starts compiling the missing cases and returns them; `close` must be called later."""
        missing = [case for case in cases if case not in self._programs]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(os.cpu_count())
        self._programs |= {case: self._pool.submit(self._compile, case) for case in missing}
        return missing

    def __contains__(self, case: Any) -> bool:
        return case in self._programs

    def __getitem__(self, case: Any) -> Any:
        program = self._programs[case]
        if not program.done():
            begin = time.perf_counter()
            program.exception()  # waits; an error is raised below
            self.seconds_waited += time.perf_counter() - begin
        return program.result()

    def close(self) -> None:
        """Cancels compilations that have not started, and drops those that failed."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        failed = [case for case, one in self._programs.items() if one.done() and _failed(one)]
        for case in failed:
            del self._programs[case]

    def _compile(self, case: Any) -> Any:
        with self._lowering:
            lowered = self._lower(case)
        return lowered.compile()


def _failed(program: Future[Any]) -> bool:
    return program.cancelled() or program.exception() is not None


class Programs:
    """The train step as programs, one for each `Case`; later runs reuse what one run compiled.

        (state, sums, bad_step, batch, scalars, teacher_prob) -> (state, sums, bad_step)

    A single run uses the train step itself; several use it under vmap, sharded over the devices.
    teacher_prob and the optimiser's scalars are arguments, so that one program serves every
    schedule and every learning rate. Only a `FeedbackSchedule` is part of the programs, which then
    compute teacher_prob from its state and ignore the argument. Metrics are summed on the device,
    and bad_step is the first step whose loss or gradient was not finite, or below 0 if there is
    none.

    Args:
      model: the functions of `Seq2SeqModel`.
      objective: see `make_cross_entropy`.
      make_optimizer: traced scalars -> an optax transformation; without scalars, one whose state
        has the same structure.
      batch: the shapes of a batch; given those of the first training batch, they are traced only
        once.
      feedback: the runs' schedule if it has a state, else None.

    Attributes:
      template: the shapes of a run's `Progress`.
      compiled: the program of each case, `compiled[case]`.
    """

    def __init__(
        self,
        model: Seq2SeqModel,
        objective: Objective,
        make_optimizer: Callable[..., optax.GradientTransformation],
        batch: Batch,
        feedback: FeedbackSchedule | None = None,
    ):
        @jax.jit  # caches its traces
        def train_step(
            state: TrainState, batch: Batch, scalars: Scalars, teacher_prob: jax.Array
        ) -> tuple[TrainState, MetricSums]:
            optimizer = make_optimizer(scalars)
            schedule = feedback or (lambda step: teacher_prob)
            return make_train_step(objective, optimizer, schedule)(state, batch)

        def step(
            state: TrainState,
            sums: MetricSums,
            bad_step: jax.Array,
            batch: Batch,
            scalars: Scalars,
            teacher_prob: jax.Array,
        ) -> tuple[TrainState, MetricSums, jax.Array]:
            new_state, new = train_step(state, batch, scalars, teacher_prob)
            finite = jnp.isfinite(new["loss"].total) & jnp.isfinite(new["gradient_norm"].total)
            bad_step = jnp.where((bad_step < 0) & ~finite, state.step, bad_step)
            return new_state, merge(sums, new), bad_step

        self._step = step
        self._init = jax.jit(partial(init_train_state, model, make_optimizer(), schedule=feedback))
        state = jax.eval_shape(self._init, jax.random.key(0))
        _, sums = jax.eval_shape(train_step, state, batch, _SCALARS, _SCALAR)
        self.template = Progress(state, sums)
        self.compiled = ProgramCache(self._lower)

    def start(self, key: jax.Array, params: Params | None = None) -> Progress:
        """The progress of a new run.

        Args:
          key: the run's PRNG key.
          params: the parameters that it starts from; None draws them.
        """
        sums = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.template.sums)
        # Without the argument, the shapes that were traced for the template are used again.
        state = self._init(key) if params is None else self._init(key, params)
        return Progress(state, sums)

    def _lower(self, case: Case) -> jax.stages.Lowered:
        layout, bad_step = Layout(case.num_lanes), jax.ShapeDtypeStruct((), jnp.int32)
        batch = batch_template(case.shape)
        arguments = *self.template, bad_step, batch, _SCALARS
        if layout.sharding is None:
            return jax.jit(self._step, donate_argnums=0).lower(*arguments, _SCALAR)
        axes = (*[0] * len(arguments), None if case.one_prob else 0)
        step, lanes = jax.vmap(self._step, in_axes=axes), PartitionSpec(_AXIS)
        if layout.num_devices > 1:
            specs = tuple(PartitionSpec() if axis is None else lanes for axis in axes)
            step = jax.shard_map(
                step, mesh=layout.mesh, in_specs=specs, out_specs=lanes, check_vma=False
            )
        teacher_prob = layout.template(_SCALAR)
        if case.one_prob:
            everywhere = NamedSharding(layout.mesh, PartitionSpec())
            teacher_prob = jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere)
        jitted = jax.jit(step, donate_argnums=0, out_shardings=layout.sharding)
        return jitted.lower(*layout.template(arguments), teacher_prob)


def shape_of(batch: Batch) -> BatchShape:
    """The shape for which the program of a batch, or of lanes' batches, is compiled."""
    num_rows, source_time = batch.source.shape[-2:]
    return BatchShape(num_rows, source_time, batch.target.shape[-1])


def batch_template(shape: BatchShape) -> Batch:
    """The shapes of a batch's arrays."""
    num_rows, source_time, target_time = shape
    arrays: Any = (
        jax.ShapeDtypeStruct((num_rows, length), dtype)
        for length in (source_time, target_time)
        for dtype in (jnp.int32, jnp.bool_)
    )
    return Batch(*arrays)


_SCALAR: Any = jax.ShapeDtypeStruct((), jnp.float32)
_SCALARS = Scalars(*[_SCALAR] * len(Scalars._fields))
