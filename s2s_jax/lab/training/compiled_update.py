"""The update of runs that train alone, compiled once for all of them, and what it carries."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from s2s_jax.batch import Batch
from s2s_jax.lab.training.compilation import CompiledInTurn, lowered_in_turn
from s2s_jax.lab.training.lane import Progress
from s2s_jax.lab.training.optimizers import Scalars
from s2s_jax.metrics import MetricSums, merge
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.objectives import Objective
from s2s_jax.training import TrainState, Update, init_train_state, make_update

Shape = tuple[int, int]
"""(source_time, time) of a batch."""


class CompiledUpdate:
    """One update of one run, a program for each batch shape.

        (state, sums, bad_step, batch, teacher_prob, scalars) -> (state, sums, bad_step)

    teacher_prob and the optimiser's scalars are arguments, so that one program serves every
    schedule and every learning rate. What was compiled for a run is there for the next.

    Args:
      model: the functions of `Seq2SeqModel`.
      objective: of `make_objective`.
      make_optimizer: scalars, which are traced -> an optax transformation; without them, one whose
        state is of the same structure.
      batch: the shapes of a batch, best of the first that is trained on: what is traced here is
        not traced again for that.

    Attributes:
      template: the shapes of a checkpoint's content.
    """

    def __init__(
        self,
        model: Seq2SeqModel,
        objective: Objective,
        make_optimizer: Callable[..., optax.GradientTransformation],
        batch: Batch,
    ):
        optimizer = make_optimizer()

        @jax.jit  # which keeps what it has traced
        def update(
            state: TrainState, batch: Batch, teacher_prob: jax.Array, scalars: Scalars
        ) -> tuple[TrainState, MetricSums]:
            return make_update(objective, make_optimizer(scalars))(state, batch, teacher_prob)

        def step(
            state: TrainState,
            sums: MetricSums,
            bad_step: jax.Array,
            batch: Batch,
            teacher_prob: jax.Array,
            scalars: Scalars,
        ) -> tuple[TrainState, MetricSums, jax.Array]:
            one = partial(update, scalars=scalars)
            return accumulate(one, state, sums, bad_step, batch, teacher_prob)

        self._num_rows = batch.target.shape[0]
        self._init = make_init(model, optimizer)
        self._step = jax.jit(step, donate_argnums=0)
        self.template = _template(
            model, optimizer, partial(update, scalars=scalars_template()), batch
        )
        self._programs: dict[Shape, Any] = {}
        self._compile = lowered_in_turn(self._lower)

    def start(self, key: jax.Array) -> Progress:
        """What a run begins with."""
        return Progress(self._init(key), zero_sums(self.template))

    def missing(self, shapes: Sequence[Shape]) -> list[Shape]:
        """Those that nothing was compiled for yet."""
        return [one for one in shapes if one not in self._programs]

    def compile(self, shapes: Sequence[Shape]) -> CompiledInTurn:
        """Begins with the programs for batches of these shapes, the first needed first."""
        return CompiledInTurn(self._program, shapes)

    def _program(self, shape: Shape) -> Any:
        if shape not in self._programs:
            self._programs[shape] = self._compile(shape)
        return self._programs[shape]

    def _lower(self, shape: Shape) -> jax.stages.Lowered:
        bad_step, scalar = jax.ShapeDtypeStruct((), jnp.int32), _scalar_template()
        batch = batch_template(self._num_rows, shape)
        return self._step.lower(*self.template, bad_step, batch, scalar, scalars_template())


def accumulate(
    update: Update,
    state: TrainState,
    sums: MetricSums,
    bad_step: jax.Array,
    batch: Batch,
    teacher_prob: jax.Array,
) -> tuple[TrainState, MetricSums, jax.Array]:
    """An update that adds its metrics up and notes the first step that is not finite."""
    new_state, new = update(state, batch, teacher_prob)
    finite = jnp.isfinite(new["loss"].total) & jnp.isfinite(new["gradient_norm"].total)
    bad_step = jnp.where((bad_step < 0) & ~finite, state.step, bad_step)
    return new_state, merge(sums, new), bad_step


@jax.jit
def are_finite(tree: optax.Params) -> jax.Array:
    """Whether no number of a tree is NaN or infinite, nor their norm."""
    return jnp.isfinite(optax.tree.norm(tree))


def make_init(
    model: Seq2SeqModel, optimizer: optax.GradientTransformation
) -> Callable[[jax.Array], TrainState]:
    """Makes the compiled function from a key to the state before the first step."""
    return jax.jit(partial(init_train_state, model, optimizer))


def progress_template(
    model: Seq2SeqModel, objective: Objective, optimizer: optax.GradientTransformation
) -> Progress:
    """The shapes of what a checkpoint of such a run holds."""
    update = make_update(objective, optimizer)
    return _template(model, optimizer, update, batch_template(1, (1, 1)))


def _template(
    model: Seq2SeqModel, optimizer: optax.GradientTransformation, update: Update, batch: Batch
) -> Progress:
    state = jax.eval_shape(partial(init_train_state, model, optimizer), jax.random.key(0))
    return Progress(state, jax.eval_shape(update, state, batch, _scalar_template())[1])


def zero_sums(template: Progress) -> MetricSums:
    """Sums before anything was added."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template.sums)


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


def scalars_template() -> Scalars:
    """The shapes of an optimiser's scalars."""
    return Scalars(*[_scalar_template()] * len(Scalars._fields))


def _scalar_template() -> Any:
    return jax.ShapeDtypeStruct((), jnp.float32)
