"""A schedule of one's own: falls again and again."""

import jax.numpy as jnp


def make(*, period=100, lowest=0.5):
    """Step -> teacher_prob; the step is traced, so no `if`."""
    if not 0 <= lowest <= 1:
        raise ValueError(f"lowest is {lowest}; it must be in [0, 1]")

    def schedule(step):
        return jnp.float32(1.0 - (1.0 - lowest) * (step % period) / period)

    return schedule
