"""The branch of teacher forcing: which side is computed, and its derivative."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.branches import draws_tokens, unless_all_gold


@pytest.fixture
def choose() -> Any:
    """(x, teacher_prob) -> x + 2 where tokens can be drawn, x + 1 where all is gold."""
    return unless_all_gold(lambda x, teacher_prob: x + 2, lambda x, teacher_prob: x + 1)


X, PROBS = jnp.array([0.0, 0.5]), jnp.array([0.2, 1.0])


def test_tokens_are_drawn_unless_teacher_prob_is_1():
    assert draws_tokens(np.array([0.0, 0.999, 1.0])).tolist() == [True, True, False]
    assert bool(draws_tokens(jnp.float32(0.5)))


def test_where_teacher_prob_differs_between_lanes_the_question_is_not_asked(choose):
    assert choose(X, PROBS[0]).tolist() == [2, 2.5]
    assert choose(X, PROBS[1]).tolist() == [1, 1.5]
    for prob, expected in zip(PROBS, ([2, 2.5], [1, 1.5]), strict=True):
        assert jax.vmap(choose, (0, None))(X, prob).tolist() == expected
    assert jax.vmap(choose)(X, PROBS).tolist() == [2, 2.5]
    assert jax.jit(jax.vmap(choose, (None, 0)))(X[0], PROBS).tolist() == [2, 2]


@pytest.mark.parametrize("in_axes", [(0, None), (None, 0), (0, 0)])
def test_the_derivative_is_0_and_does_not_change_the_branch(choose, in_axes):
    """So the fed tokens may depend on parameters, through a schedule that is computed from them."""
    x, prob = X if in_axes[0] == 0 else X[0], PROBS if in_axes[1] == 0 else PROBS[0]
    for transformed in (lambda f: f, jax.jit):
        lanes = transformed(jax.vmap(jax.value_and_grad(choose, argnums=(0, 1)), in_axes))
        values, gradients = lanes(x, prob)
        assert values.tolist() == jax.vmap(choose, in_axes)(x, prob).tolist()
        assert [gradient.tolist() for gradient in gradients] == [[0, 0], [0, 0]]
