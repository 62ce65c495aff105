from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s2s_jax import schedules
from s2s_jax.batch import Batch
from s2s_jax.metrics import compute
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.objectives import make_cross_entropy
from s2s_jax.optimizers import schedule_free_adamw
from s2s_jax.training import TrainState, init_train_state, make_train_step

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.02))
TEACHER_PROBS = [1.0, 0.5, 0.0]


def at_any_teacher_prob(objective: Any) -> Any:
    """The train step with teacher_prob as an argument, as the lab compiles it."""

    def update(state, batch, teacher_prob):
        return make_train_step(objective, OPTIMIZER, lambda step: teacher_prob)(state, batch)

    return update


class Trainer(NamedTuple):
    init: Callable[[int], TrainState]
    update: Any
    jitted: Any


@pytest.fixture(scope="module")
def trainer(make_rnn) -> Trainer:
    """A recurrent model with dropout, and its update compiled once."""
    model, _ = make_rnn(attention="dot", cell="gru", bidirectional=False, dropout=0.2)

    def init(seed: int) -> TrainState:
        params = make_rnn(seed, attention="dot", cell="gru", bidirectional=False)[1]
        return TrainState(
            jnp.zeros((), jnp.int32), params, OPTIMIZER.init(params), jax.random.key(seed)
        )

    update = at_any_teacher_prob(make_cross_entropy(model))
    return Trainer(init, update, jax.jit(update))


def assert_identical(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_a_resumed_run_is_bit_identical_to_one_that_never_stopped(trainer, batch):
    uninterrupted, resumed = trainer.init(0), trainer.init(0)
    for step in range(4):
        if step == 2:  # to plain arrays and back, as a checkpoint keeps them
            saved = jax.device_get(resumed._replace(key=jax.random.key_data(resumed.key)))
            resumed = jax.device_put(saved._replace(key=jax.random.wrap_key_data(saved.key)))
        uninterrupted, metrics = trainer.jitted(uninterrupted, batch, 0.5)
        resumed, resumed_metrics = trainer.jitted(resumed, batch, 0.5)
        assert_identical(resumed_metrics, metrics)
    assert_identical(resumed, uninterrupted)
    assert int(resumed.step) == 4


def test_the_states_key_never_advances(trainer, batch):
    state = trainer.init(3)
    for _ in range(2):
        state, _ = trainer.jitted(state, batch, 0.5)
    assert state.key == jax.random.key(3)


def test_vmapped_lanes_equal_solo_runs(trainer, batch):
    teacher_probs = jnp.array(TEACHER_PROBS)
    solo = [trainer.init(seed) for seed in range(3)]
    lanes = jax.tree.map(lambda *leaves: jnp.stack(leaves), *solo)
    update_lanes = jax.jit(jax.vmap(trainer.update, in_axes=(0, None, 0)))
    for _ in range(3):
        lanes, metrics = update_lanes(lanes, batch, teacher_probs)
        runs = [
            trainer.jitted(state, batch, probability)
            for state, probability in zip(solo, teacher_probs, strict=True)
        ]
        solo = [state for state, _ in runs]
        for lane, (state, solo_metrics) in enumerate(runs):
            one = jax.tree.map(lambda leaf, lane=lane: leaf[lane], (lanes.params, metrics))
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
                one,
                (state.params, solo_metrics),
            )


# The rest is tested on a user's own model, a table of logits by the last token.

BATCH = Batch(
    np.full((16, 1), 4, np.int32),
    np.ones((16, 1), bool),
    np.random.default_rng(0).integers(4, 7, (16, 6)).astype(np.int32),
    np.ones((16, 6), bool),
)


@pytest.fixture(scope="module")
def table_model(make_table_model: Callable[[int], Seq2SeqModel]) -> Seq2SeqModel:
    return make_table_model(10)


def test_the_first_state_depends_on_the_key(table_model, make_rnn):
    state = init_train_state(table_model, OPTIMIZER, jax.random.key(1))
    assert int(state.step) == 0
    assert state.key == jax.random.key(1)
    model, _ = make_rnn(attention="none", cell="gru", bidirectional=False)

    @jax.jit
    def init(seed):
        return init_train_state(model, OPTIMIZER, jax.random.key(seed)).params

    assert_identical(init(0), init(0))
    assert not np.array_equal(init(0)["target_embedding"], init(1)["target_embedding"])


@pytest.mark.parametrize("optimizer", [optax.adam(0.1), schedule_free_adamw(0.1)])
def test_training_can_start_from_given_parameters(table_model, optimizer):
    """The state is new arrays: training donates them, and the given ones stay."""
    given = jax.random.normal(jax.random.key(7), (10, 10))
    state = init_train_state(table_model, optimizer, jax.random.key(1), given)
    assert_identical(state.params, given)
    assert_identical(state.opt_state, optimizer.init(given))
    assert (int(state.step), state.key) == (0, jax.random.key(1))
    step = make_train_step(make_cross_entropy(table_model), optimizer, schedules.teacher_forcing())
    jax.jit(step, donate_argnums=0)(state, BATCH)
    assert not given.is_deleted()


def test_one_program_serves_every_schedule_and_every_teacher_prob(table_model):
    num_traces = []
    objective = make_cross_entropy(table_model)

    def counted(*args):
        num_traces.append(1)
        return objective(*args)

    state = init_train_state(table_model, OPTIMIZER, jax.random.key(0))
    update = jax.jit(at_any_teacher_prob(counted))
    for schedule in (
        schedules.teacher_forcing(),
        schedules.constant(0.3),
        schedules.linear(c=0.25),
        schedules.exponential(0.5),
        schedules.inverse_sigmoid(2.0),
        schedules.free_running(),
    ):
        for _ in range(3):
            state, _ = update(state, BATCH, schedule(state.step))
    assert len(num_traces) == 1


@pytest.fixture(scope="module")
def linear_step(table_model) -> tuple[Any, list[int]]:
    """A jitted train step whose teacher_prob falls 1, .75, .5, .25, 0; and how often it traced."""
    num_traces: list[int] = []
    train_step = make_train_step(
        make_cross_entropy(table_model), optax.adam(0.1), schedules.linear(c=0.25)
    )

    def counted(state, batch):
        num_traces.append(1)
        return train_step(state, batch)

    return jax.jit(counted), num_traces


def first_state(table_model: Seq2SeqModel) -> TrainState:
    return init_train_state(table_model, optax.adam(0.1), jax.random.key(0))


def test_nothing_recompiles_while_the_schedule_moves(linear_step, table_model):
    train_step, num_traces = linear_step
    state, seen = first_state(table_model), []
    for _ in range(6):
        state, metrics = train_step(state, BATCH)
        seen.append(compute(metrics)["teacher_prob"])
    assert seen == [1, 0.75, 0.5, 0.25, 0, 0]  # the schedule of the step before the update
    assert int(state.step) == 6
    assert len(num_traces) == 1


def test_a_users_own_model_trains_without_changes(linear_step, table_model):
    train_step, _ = linear_step
    state, losses = first_state(table_model), []
    for _ in range(60):
        state, metrics = train_step(state, BATCH)
        losses.append(compute(metrics)["nll"])
    assert losses[0] == pytest.approx(np.log(10), abs=1e-5)
    assert losses[-1] < 1.3  # three tokens at random: log 3 = 1.10


@pytest.mark.parametrize("what", ["step", "key"])
def test_each_step_and_each_key_draw_differently(linear_step, table_model, what):
    train_step, _ = linear_step
    start = first_state(table_model)
    states = {  # at teacher_prob 0, each with the same parameters
        "step": [start._replace(step=jnp.int32(step)) for step in range(4, 10)],
        "key": [start._replace(step=jnp.int32(4), key=jax.random.key(n)) for n in range(6)],
    }[what]
    wrong = {float(train_step(state, BATCH)[1]["fed_error_rate"].total) for state in states}
    assert len(wrong) > 2


def test_the_gradient_norm_is_measured_before_clipping(table_model):
    objective = make_cross_entropy(table_model)
    optimizer = optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(1.0))
    state = init_train_state(table_model, optimizer, jax.random.key(0))
    train_step = make_train_step(objective, optimizer, schedules.teacher_forcing())
    new, metrics = jax.jit(train_step)(state, BATCH)
    gradient = np.zeros((10, 10))
    before = np.concatenate([np.ones((16, 1), int), BATCH.target[:, :-1]], 1)
    for fed, target in zip(before.ravel(), BATCH.target.ravel(), strict=True):
        gradient[fed] += (0.1 - np.eye(10)[target]) / BATCH.target.size
    norm = np.sqrt((gradient**2).sum())
    assert compute(metrics)["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    np.testing.assert_allclose(new.params, -1e-3 * gradient / norm, atol=1e-7)


def test_a_schedule_with_a_state_sees_the_metrics_of_every_update(table_model):
    """Its state is of the updates before, and their sums are those that the step returns."""
    schedule = schedules.accuracy(decay=0.5)
    objective = make_cross_entropy(table_model)
    step = jax.jit(make_train_step(objective, OPTIMIZER, schedule), donate_argnums=0)
    state = init_train_state(table_model, OPTIMIZER, jax.random.key(0), schedule=schedule)
    wanted, used = schedule.init(), []
    for number in range(4):
        used.append(float(schedule.teacher_prob(number, wanted)))
        state, sums = step(state, BATCH)
        assert compute(sums)["teacher_prob"] == pytest.approx(used[-1], abs=1e-6)
        wanted = schedule.update(wanted, sums)
    assert used[0] == 1.0
    assert len(set(used)) > 1
    assert_close = np.testing.assert_allclose
    jax.tree.map(lambda a, b: assert_close(a, b, rtol=1e-6), state.schedule_state, wanted)


def test_a_train_state_without_the_schedules_state_is_refused(table_model):
    objective = make_cross_entropy(table_model)
    step = make_train_step(objective, OPTIMIZER, schedules.accuracy())
    state = init_train_state(table_model, OPTIMIZER, jax.random.key(0))
    assert state.schedule_state == ()
    with pytest.raises(ValueError, match="give init_train_state the schedule"):
        step(state, BATCH)
