"""The average of the parameters that `with_average` keeps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s2s_jax.optimizers import (
    AverageState,
    averages_params,
    evaluation_params,
    schedule_free_adamw,
    with_average,
)

START = {"a": jnp.array([1.0, -2.0, 3.0]), "b": jnp.ones((2, 2))}


def descend(optimizer: optax.GradientTransformation, num_steps: int) -> tuple[list[Any], Any]:
    """The parameters after each update with drawn gradients, and the last state."""

    @jax.jit
    def step(params: Any, state: Any, key: jax.Array) -> tuple[Any, Any]:
        gradients = jax.tree.map(lambda leaf: jax.random.normal(key, leaf.shape), params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    params, state, seen = START, optimizer.init(START), []
    for number in range(num_steps):
        params, state = step(params, state, jax.random.key(number))
        seen.append(params)
    return seen, state


@pytest.mark.parametrize(("decay", "num_steps"), [(0.5, 1), (0.5, 7), (0.999, 40), (0.999999, 9)])
def test_it_is_the_weighted_mean_of_the_parameters_after_each_update(decay, num_steps):
    seen, state = descend(with_average(optax.adam(0.1), decay), num_steps)
    weights = decay ** np.arange(num_steps)[::-1]
    found: Any = evaluation_params(state, seen[-1])
    for name in START:
        every = np.stack([np.asarray(one[name], np.float64) for one in seen])
        wanted = np.average(every, axis=0, weights=weights)
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-6)
    if num_steps == 1:
        np.testing.assert_array_equal(found["a"], seen[0]["a"])


def test_training_is_not_changed_and_clipping_is_a_part_of_it():
    plain = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1))
    apart, _ = descend(plain, 6)
    averaged, state = descend(with_average(plain, 0.9), 6)
    jax.tree.map(np.testing.assert_array_equal, apart, averaged)
    assert averages_params(state)
    assert not averages_params(plain.init(START))
    assert evaluation_params(plain.init(START), START) is START


def test_before_any_update_it_is_what_was_given():
    state: Any = with_average(optax.sgd(0.1), 0.9).init(START)
    jax.tree.map(np.testing.assert_array_equal, evaluation_params(state, START), START)


def test_parameters_of_half_precision_are_averaged_in_float32():
    """In bfloat16, a weight of 0.001 would be lost beside the average."""
    optimizer, params = with_average(optax.sgd(1.0), 0.999), jnp.zeros((), jnp.bfloat16)
    state: Any = optimizer.init(params)
    for _ in range(320):  # the parameter goes through 0.5, 1, ... 4, whose mean is 2.25
        updates, state = optimizer.update(jnp.full((), -0.5, jnp.bfloat16), state, params)
        params = jnp.asarray(optax.apply_updates(params, updates)) % 4
    assert isinstance(state, AverageState)
    average: Any = state.average
    assert average.dtype == jnp.float32
    assert float(average) == pytest.approx(2.25, abs=0.01)
    found: Any = evaluation_params(state, params)
    assert found.dtype == jnp.bfloat16


def test_it_comes_before_the_average_of_a_schedule_free_optimiser():
    seen, state = descend(with_average(schedule_free_adamw(0.1), 0.5), 3)
    wanted = sum(weight * one["a"] for weight, one in zip((1 / 7, 2 / 7, 4 / 7), seen, strict=True))
    found: Any = evaluation_params(state, seen[-1])
    np.testing.assert_allclose(found["a"], wanted, rtol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5])
def test_a_decay_outside_0_and_1_is_refused(decay):
    with pytest.raises(ValueError, match=rf"^decay is {decay}; it must be in \(0, 1\)$"):
        with_average(optax.sgd(0.1), decay)


def test_an_update_without_parameters_is_refused():
    optimizer = with_average(optax.sgd(0.1), 0.9)
    with pytest.raises(ValueError, match="params is None"):
        optimizer.update(START, optimizer.init(START))
