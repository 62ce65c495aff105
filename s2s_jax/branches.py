"""The teacher-forcing branch: while teacher_prob is 1, no coin is tossed and no token drawn."""

from collections.abc import Callable
from typing import Any

import jax
from jax.custom_batching import custom_vmap


def draws_tokens(teacher_prob: Any) -> Any:
    """Whether the model's own tokens can be fed: teacher_prob, a scalar or an array, is below 1."""
    return teacher_prob < 1.0


def unless_all_gold(
    own_or_gold: Callable[..., Any], gold: Callable[..., Any]
) -> Callable[..., Any]:
    """(..., teacher_prob) -> `gold` of them at teacher_prob 1, else `own_or_gold`.

    Both give the same at teacher_prob 1. Under `jax.vmap`, a branch whose condition differs between
    lanes computes both sides; so if each lane has its own teacher_prob, only `own_or_gold` is
    computed. If the lanes share one teacher_prob, it stays a branch.

    No gradient flows into any of the arguments: the derivatives are 0.
    """

    def ask(*args: Any) -> Any:
        return jax.lax.cond(draws_tokens(args[-1]), own_or_gold, gold, *args)

    asked = custom_vmap(ask)

    @asked.def_vmap
    def _(axis_size: int, in_batched: Any, *args: Any):
        axes = jax.tree.map(lambda batched: 0 if batched else None, in_batched)
        taken = own_or_gold if jax.tree.leaves(in_batched[-1])[0] else ask
        outputs = jax.vmap(taken, in_axes=tuple(axes), axis_size=axis_size)(*args)
        return outputs, jax.tree.map(lambda _: True, outputs)

    return lambda *args: asked(*jax.lax.stop_gradient(args))
