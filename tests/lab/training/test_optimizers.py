"""The learning rate of every update, by value."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.keys import base_config
from s2s_jax.lab.training.build import make_experiment
from s2s_jax.lab.training.optimizers import make_learning_rate

THIRDS = (1.0, 0.75, 0.25)  # of a cosine: (1 + cos(pi n / 3)) / 2


@pytest.mark.parametrize(
    ("schedule", "num_steps", "warmup_steps", "expected"),
    [
        ("constant", 4, 0, [1, 1, 1, 1]),
        ("constant", 4, 2, [0.5, 1, 1, 1]),
        ("constant", 4, 4, [0.25, 0.5, 0.75, 1]),
        ("constant", 4, 8, [0.125, 0.25, 0.375, 0.5]),
        ("constant", 6, 1000, [0.001, 0.002, 0.003, 0.004, 0.005, 0.006]),
        ("cosine", 3, 0, THIRDS),
        ("cosine", 3, 1, THIRDS),
        ("cosine", 4, 2, [0.5, *THIRDS]),
        ("cosine", 4, 3, [1 / 3, 2 / 3, 1, 0.5]),
        ("cosine", 4, 4, [0.25, 0.5, 0.75, 1]),
        ("cosine", 4, 5, [0.2, 0.4, 0.6, 0.8]),
        ("cosine", 6, 1000, [0.001, 0.002, 0.003, 0.004, 0.005, 0.006]),
        ("cosine", 1, 0, [1]),
        ("cosine", 1, 2, [0.5]),
        ("inverse_sqrt", 4, 1, [1, 2**-0.5, 3**-0.5, 0.5]),
        ("inverse_sqrt", 9, 2, [0.5, *((2 / n) ** 0.5 for n in range(2, 10))]),
        ("inverse_sqrt", 3, 4, [0.25, 0.5, 0.75]),
    ],
)
def test_the_rate_of_every_update(schedule, num_steps, warmup_steps, expected):
    rate = make_learning_rate(0.5, schedule, num_steps, warmup_steps)
    found = jax.vmap(rate)(jnp.arange(num_steps))
    np.testing.assert_allclose(found, 0.5 * np.asarray(expected), rtol=1e-6)


def test_updates_are_made_at_these_rates():
    """With a constant gradient, AdamW's updates equal the learning rate."""
    config = base_config("copy")
    config.train.update(learning_rate=0.5, num_steps=4, warmup_steps=2, clip_norm=0.0)
    optimizer, one = make_experiment(config).make_optimizer(), jnp.ones(())

    def step(state: optax.OptState, _: None) -> tuple[optax.OptState, jax.Array]:
        update, state = optimizer.update(one, state, one)
        return state, -jnp.asarray(update)

    _, applied = jax.lax.scan(step, optimizer.init(one), None, length=4)
    np.testing.assert_allclose(applied, [0.25, 0.5, 0.375, 0.125], rtol=1e-4)


def test_without_warm_up_the_cosine_equals_that_of_optax():
    rate = make_learning_rate(2e-3, "cosine", 100, 0)
    done = jnp.arange(100)
    own = optax.cosine_decay_schedule(2e-3, 100)
    np.testing.assert_array_equal(jax.vmap(rate)(done), jax.vmap(own)(done))


def test_the_inverse_square_root_is_that_of_the_transformer_paper():
    """lr(n) = d ** -0.5 * min(n ** -0.5, n * W ** -1.5), with d = 512 and W = 4000."""
    size, warmup = 512, 4000
    rate = make_learning_rate((size * warmup) ** -0.5, "inverse_sqrt", 1, warmup)
    n = np.array([1, 100, 4000, 4001, 100_000], np.float64)
    expected = size**-0.5 * np.minimum(n**-0.5, n * warmup**-1.5)
    np.testing.assert_allclose(jax.vmap(rate)(jnp.asarray(n - 1, int)), expected, rtol=1e-6)


def test_the_inverse_square_root_without_a_warm_up_is_refused():
    config = base_config("copy")
    config.train.update(learning_rate_schedule="inverse_sqrt", warmup_steps=0)
    with pytest.raises(LabError, match=r"^train.warmup_steps is 0; .*needs at least 1$"):
        make_experiment(config)


def test_an_unknown_schedule_is_rejected_with_the_nearest_name():
    with pytest.raises(LabError, match=r"learning_rate_schedule is 'cosin'.*cosine"):
        make_learning_rate(1.0, "cosin", 10, 0)
