"""What networks written as flax modules share: their use as pure functions, checks of options."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import jax
from flax import nnx

from s2s_jax.models.initial_values import InitialValues, uniform_draw
from s2s_jax.models.interface import Params
from s2s_jax.names import check_known

Network = TypeVar("Network", bound=nnx.Module)


class NetworkFunctions(Generic[Network]):
    """A module as functions of its parameters, the functional subset of nnx.

    Args:
      make: the numbers to draw parameters from -> the module.

    Attributes:
      init: key -> params, a dict of dicts of arrays.

    Example:
      >>> class Scale(nnx.Module):
      ...     def __init__(self, values):
      ...         self.factor = nnx.Param(values.uniform(3))
      ...
      ...     def __call__(self, inputs):
      ...         return inputs * self.factor[...]
      >>> functions = NetworkFunctions(Scale)
      >>> params = functions.init(jax.random.key(0))
      >>> functions.of(Scale.__call__)(params, 2.0).shape
      (3,)
    """

    def __init__(self, make: Callable[[InitialValues], Network]):
        @functools.cache  # at the first use: checking options needs no network
        def structure() -> tuple[Any, int]:
            """The network without its parameters, and how many numbers those are drawn from."""
            counting = InitialValues()
            network = nnx.eval_shape(lambda: make(counting))
            return nnx.split(network)[0], counting.size

        @jax.jit  # a single program compiles faster than its operations one by one
        def init(key: jax.Array) -> Params:
            values = InitialValues(uniform_draw(key, structure()[1]))
            return nnx.to_pure_dict(nnx.split(make(values))[1])

        self.init: Callable[[jax.Array], Params] = init
        self._structure = structure

    def of(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method of the module as a function: (params, *args) -> method(module, *args)."""

        def on_params(params: Params, *args: Any) -> Any:
            return method(nnx.merge(self._structure()[0], params), *args)

        return on_params


def check_options(options: Any, known: Mapping[str, Iterable[str]], sizes: Iterable[str]) -> None:
    """Checks the options that networks have in common, in this order.

    Args:
      options: has them, and `dropout`, as attributes.
      known: the valid values of the options that are names.
      sizes: the options that must be at least 1.

    Raises:
      ValueError: a value is unknown or out of range.
    """
    for name, values in known.items():
        check_known(name, getattr(options, name), tuple(values))
    for name in sizes:
        if getattr(options, name) < 1:
            raise ValueError(f"{name} is {getattr(options, name)}; it must be at least 1")
    if not 0.0 <= options.dropout < 1.0:
        raise ValueError(f"dropout is {options.dropout}; it must be in [0, 1)")
