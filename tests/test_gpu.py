"""Tests that need a GPU; run them with `pytest -m gpu`. They need only the core."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s2s_jax.batch import EOS, Batch
from s2s_jax.models.rnn.functions import make_rnn_model
from s2s_jax.objectives import make_cross_entropy
from s2s_jax.training import init_train_state, make_train_step

pytestmark = pytest.mark.gpu
VOCAB_SIZE = 40
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def gpu() -> Any:
    try:
        return jax.devices("gpu")[0]
    except RuntimeError:
        pytest.skip("there is no GPU here")


def copies(seed: int, num_rows: int = 32, time: int = 9) -> Batch:
    """Sequences to be copied."""
    numbers = np.random.default_rng(seed)
    ids = numbers.integers(4, VOCAB_SIZE, (num_rows, time)).astype(np.int32)
    lengths = numbers.integers(2, time + 1, num_rows)
    ids[np.arange(num_rows), lengths - 1] = EOS
    mask = np.arange(time) < lengths[:, None]
    ids = np.where(mask, ids, 0)
    return Batch(ids, mask, ids, mask)


def make_training(**options: Any):
    """The state before the first step, and (state, batch, teacher_prob) -> that after it."""
    sizes: dict[str, Any] = {"hidden_size": 64, "embedding_size": 32, "dropout": 0.2} | options
    model = make_rnn_model(VOCAB_SIZE, VOCAB_SIZE, **sizes)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))
    state = init_train_state(model, optimizer, KEY)
    objective = make_cross_entropy(model)

    @jax.jit
    def update(state, batch, teacher_prob):
        return make_train_step(objective, optimizer, lambda step: teacher_prob)(state, batch)

    return state, update


@pytest.mark.parametrize("teacher_prob", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_an_update_is_that_of_the_cpu(gpu, cell, teacher_prob):
    state, update = make_training(cell=cell)
    found = []
    with jax.default_matmul_precision("highest"):
        for device in (gpu, jax.devices("cpu")[0]):
            arguments = jax.device_put((state, copies(0), np.float32(teacher_prob)), device)
            found.append(jax.device_get(update(*arguments)))
    (on_gpu, its_sums), (on_cpu, sums) = found
    assert its_sums["gold_share"] == sums["gold_share"]
    assert its_sums["fed_error_rate"] == sums["fed_error_rate"]  # so the same tokens were drawn
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), its_sums, sums)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), on_gpu.params, on_cpu.params
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_copying_is_learnt_from_own_tokens_too(gpu, dtype):
    state, update = make_training(dtype=dtype, dropout=0.0)
    state = jax.device_put(state, gpu)
    sums = {}
    for step in range(600):
        state, sums = update(state, copies(step % 50), np.float32(max(0.5, 1 - step / 600)))
    accuracy = sums["token_accuracy"]
    assert float(accuracy.total / accuracy.weight) > 0.9


def test_steps_are_queued_without_waiting_for_what_they_compute(gpu):
    state, update = make_training()
    state, batches = jax.device_put((state, [copies(seed) for seed in range(3)]), gpu)
    probs = jax.device_put(jnp.linspace(1.0, 0.0, 3), gpu)
    state, _ = update(state, batches[0], probs[0])
    one_by_one = list(probs)
    with jax.transfer_guard("disallow"):
        for batch, teacher_prob in zip(batches, one_by_one, strict=True):
            state, _ = update(state, batch, teacher_prob)
    assert int(state.step) == 4


def test_lanes_train_as_each_would_alone(gpu):
    state, update = make_training(dropout=0.0)
    probs = jnp.array([1.0, 0.6, 0.0])
    lanes = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), jax.device_put(state, gpu))
    vmapped = jax.jit(jax.vmap(update, in_axes=(0, None, 0)))
    alone = [jax.device_put(state, gpu)] * 3
    with jax.default_matmul_precision("highest"):
        for seed in range(5):
            batch = copies(seed)
            lanes, sums = vmapped(lanes, batch, probs)
            for lane in range(3):
                alone[lane], solo = update(alone[lane], batch, probs[lane])
                for name, mean in solo.items():
                    assert float(sums[name].total[lane]) == pytest.approx(
                        float(mean.total), rel=1e-4, abs=1e-4
                    )
