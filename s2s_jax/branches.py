"""Branches on a value that may differ between lanes under `jax.vmap`."""

from collections.abc import Callable
from typing import Any

import jax
from jax.custom_batching import custom_vmap


def vmapped_as(
    replacement: Callable[..., Any], deciding: int, function: Callable[..., Any]
) -> Callable[..., Any]:
    """`function`, but under `jax.vmap` an equivalent `replacement` without branches.

    Under vmap, a branch whose condition differs between lanes computes both sides. The replacement
    is used only in that case, when the argument number `deciding` differs between lanes; if the
    lanes share the condition, it stays a branch.

    No gradient passes into any of the arguments: the derivative is 0.
    """
    wrapped = custom_vmap(function)

    @wrapped.def_vmap
    def _(axis_size: int, in_batched: Any, *args: Any):
        axes = jax.tree.map(lambda batched: 0 if batched else None, in_batched)
        taken = replacement if jax.tree.leaves(in_batched[deciding])[0] else function
        outputs = jax.vmap(taken, in_axes=tuple(axes), axis_size=axis_size)(*args)
        return outputs, jax.tree.map(lambda _: True, outputs)

    return lambda *args: wrapped(*jax.lax.stop_gradient(args))
