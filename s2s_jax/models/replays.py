"""A guard for replayed gradients, which can be taken once but not differentiated again."""

from typing import Any, TypeVar

import jax

Gradients = TypeVar("Gradients")


def refuse_second_derivatives(gradients: Gradients, inputs: Any) -> Gradients:
    """Returns the gradients unchanged; differentiating them again is an error.

    A replay's gradient starts from values that were computed elsewhere and that it treats as
    constants. The terms that a second derivative would therefore miss are not zero.

    Args:
      gradients: returned unchanged.
      inputs: everything that they depend on, including through those values.

    Raises:
      NotImplementedError: the gradients are differentiated.

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
        "recurrent layers and replayed passes have only first derivatives: the values that they"
        " start from were computed by another pass"
    )
