"""The compiled train steps of runs that share a `group_key`, and their arrays on the devices."""

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
from s2s_jax.lab.training.optimizers import Scalars
from s2s_jax.metrics import MetricSums, merge
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.objectives import Objective
from s2s_jax.training import TrainState, init_train_state, make_train_step

Shape = tuple[int, int]
"""(source_time, time) of a batch."""

_AXIS = "lanes"


class Progress(NamedTuple):
    """What a checkpoint holds: a run goes on from it as if it had never stopped.

    Attributes:
      state: the train state.
      sums: the metrics added up since they were last logged.
    """

    state: TrainState
    sums: MetricSums


class Layout:
    """Where the arrays of runs are: one run as it is, several with a lane axis in front.

    With several devices each holds an equal share of the lanes; where the number of lanes is no
    multiple, what fills up is trained and thrown away.

    Attributes:
      num_lanes: runs.
      num_slots: the same with what fills up.
      num_devices: of those that train.
      mesh: over the devices.
      sharding: of the lane axis; None for one run, which has none.
    """

    def __init__(self, num_lanes: int):
        devices = jax.local_devices()[:num_lanes]
        self.num_lanes, self.num_devices = num_lanes, len(devices)
        self.num_slots = -(-num_lanes // len(devices)) * len(devices)
        self.mesh = Mesh(np.asarray(devices), (_AXIS,))
        self.sharding = NamedSharding(self.mesh, PartitionSpec(_AXIS)) if num_lanes > 1 else None

    def template(self, tree: Any) -> Any:
        """The shapes of all runs' arrays, from those of one run's."""
        if self.sharding is None:
            return tree
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                (self.num_slots, *leaf.shape), leaf.dtype, sharding=self.sharding
            ),
            tree,
        )

    def stack(self, trees: Sequence[Any]) -> Any:
        """One tree of all runs' arrays, on the devices; the first run's fill up."""
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
        """All runs' arrays, on their devices."""
        return tree if self.sharding is None else jax.device_put(tree, self.sharding)

    def one_of(self, tree: Any, number: int) -> Any:
        """One run's arrays, on the first device."""
        if self.sharding is None:
            return tree
        return jax.device_put(_one_of(tree, number), self.mesh.devices[0])


_one_of = jax.jit(lambda tree, number: jax.tree.map(lambda leaf: leaf[number], tree))


class Case(NamedTuple):
    """What a program is compiled for.

    Attributes:
      num_lanes: runs that train side by side.
      shape: of their batches.
      one_prob: whether they share their teacher_prob. With a value for each "is it below 1" has no
        one answer under vmap, and the rollout always runs; one run has one value.
    """

    num_lanes: int
    shape: Shape
    one_prob: bool = True


class ProgramCache:
    """Case -> program, compiled in the background, the first needed first, and kept.

    Most of the wait is thus over before a program is asked for; who asks earlier, waits. Threads
    that lower, which is Python, hold each other up: one does at a time, and the program that is
    needed first is not late for the sake of the next. Compilers run side by side.

    Args:
      lower: case -> what `jax.jit(...).lower` returns; cases are hashable.

    Attributes:
      seconds_waited: for programs that were asked for, in all.
    """

    def __init__(self, lower: Callable[[Any], Any]):
        self.seconds_waited = 0.0
        self._lower, self._lowering = lower, threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._programs: dict[Any, Future[Any]] = {}

    def begin(self, cases: Sequence[Any]) -> list[Any]:
        """Begins with the cases that are not there yet, and returns them; to be closed."""
        missing = [case for case in cases if case not in self._programs]
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._programs |= {case: self._pool.submit(self._compile, case) for case in missing}
        return missing

    def __contains__(self, case: Any) -> bool:
        return case in self._programs

    def __getitem__(self, case: Any) -> Any:
        program = self._programs[case]
        if not program.done():
            begin = time.perf_counter()
            program.exception()  # waits; what went wrong is raised below
            self.seconds_waited += time.perf_counter() - begin
        return program.result()

    def close(self) -> None:
        """Lets go of what was not begun yet, and of what failed."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
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
    """The train step as programs, one for each `Case`; what one run compiled is there for the next.

        (state, sums, bad_step, batch, scalars, teacher_prob) -> (state, sums, bad_step)

    A run alone has the train step itself; several have it under vmap, sharded over the devices.
    teacher_prob and the optimiser's scalars are arguments, so that one program serves every
    schedule and every learning rate. Metrics are added up on the device, and bad_step is the first
    step whose loss or gradient was not finite; below 0: none.

    Args:
      model: the functions of `Seq2SeqModel`.
      objective: of `make_objective`.
      make_optimizer: scalars, which are traced -> an optax transformation; without them, one whose
        state is of the same structure.
      batch: the shapes of a batch; those of the first that is trained on are traced only once.

    Attributes:
      template: the shapes of a run's `Progress`.
      compiled: `compiled[case]`.
    """

    def __init__(
        self,
        model: Seq2SeqModel,
        objective: Objective,
        make_optimizer: Callable[..., optax.GradientTransformation],
        batch: Batch,
    ):
        @jax.jit  # which keeps what it has traced
        def train_step(
            state: TrainState, batch: Batch, scalars: Scalars, teacher_prob: jax.Array
        ) -> tuple[TrainState, MetricSums]:
            optimizer = make_optimizer(scalars)
            return make_train_step(objective, optimizer, lambda step: teacher_prob)(state, batch)

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

        self._step, self._num_rows = step, batch.target.shape[0]
        self._init = jax.jit(partial(init_train_state, model, make_optimizer()))
        state = jax.eval_shape(self._init, jax.random.key(0))
        _, sums = jax.eval_shape(train_step, state, batch, _SCALARS, _SCALAR)
        self.template = Progress(state, sums)
        self.compiled = ProgramCache(self._lower)

    def start(self, key: jax.Array) -> Progress:
        """What a run begins with."""
        sums = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.template.sums)
        return Progress(self._init(key), sums)

    def _lower(self, case: Case) -> jax.stages.Lowered:
        layout, bad_step = Layout(case.num_lanes), jax.ShapeDtypeStruct((), jnp.int32)
        batch = batch_template(self._num_rows, case.shape)
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


def shape_of(batch: Batch) -> Shape:
    """The shape that a batch is compiled for."""
    return batch.source.shape[-1], batch.target.shape[-1]


def batch_template(num_rows: int, shape: Shape) -> Batch:
    """The shapes of a batch's arrays."""
    source_time, target_time = shape
    arrays: Any = (
        jax.ShapeDtypeStruct((num_rows, length), dtype)
        for length in (source_time, target_time)
        for dtype in (jnp.int32, jnp.bool_)
    )
    return Batch(*arrays)


_SCALAR: Any = jax.ShapeDtypeStruct((), jnp.float32)
_SCALARS = Scalars(*[_SCALAR] * len(Scalars._fields))
