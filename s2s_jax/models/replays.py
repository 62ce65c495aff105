"""Gradients of what somebody else has computed: right once, and refused a second time."""

from typing import Any, TypeVar

import jax

Gradients = TypeVar("Gradients")


def refuse_second_derivatives(gradients: Gradients, inputs: Any) -> Gradients:
    """The gradients as they are; to differentiate them again is an error.

    A replay's gradient starts from values that were computed elsewhere and that it takes for
    constants. What would be missing from a second derivative is not zero.

    Args:
      gradients: what is returned.
      inputs: all that they depend on, by way of those values too.

    Raises:
      NotImplementedError: where they are differentiated.

    Example:
      >>> float(refuse_second_derivatives(1.0, 2.0))
      1.0
    """
    return _once(gradients, inputs)


@jax.custom_jvp
def _once(gradients: Any, inputs: Any) -> Any:
    return gradients


@_once.defjvp
def _refuse(primals: Any, tangents: Any):
    raise NotImplementedError(
        "recurrent layers and replayed passes have first derivatives alone: what they start from"
        " was computed by another pass"
    )
