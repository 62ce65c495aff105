"""An optimiser of one's own: the sign of a running mean of the gradient."""

import jax
import jax.numpy as jnp
import optax


def make(learning_rate, *, memory=0.9):
    """An optax.GradientTransformation."""

    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(gradients, state, params=None):
        state = jax.tree.map(lambda m, g: memory * m + (1 - memory) * g, state, gradients)
        return jax.tree.map(jnp.sign, state), state

    return optax.chain(
        optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate)
    )
