"""Metrics as sums: a mean is kept as (total, weight) and merged by adding, never by averaging."""

from collections.abc import Mapping
from functools import reduce
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.batch import UNK

Ids = TypeVar("Ids", jax.Array, np.ndarray)


class Mean(NamedTuple):
    """A mean that can still be merged: `total / weight`.

    Attributes:
      total: float32 scalar, the sum of the values.
      weight: float32 scalar, how many values were summed.

    Example:
      >>> merge({"loss": Mean(6.0, 3.0)}, {"loss": Mean(2.0, 1.0)})
      {'loss': Mean(total=8.0, weight=4.0)}
    """

    total: jax.Array | float
    weight: jax.Array | float


MetricSums = dict[str, Mean]
"""Metric sums by name."""


def masked_mean(values: jax.Array, mask: jax.Array) -> Mean:
    """The sum and the count of `values` where `mask` holds.

    Args:
      values: [...] numbers; those outside the mask are ignored.
      mask: [...] bool, of the same shape.

    Returns:
      A `Mean` of float32 scalars.

    Example:
      >>> mean = masked_mean(jnp.array([1.0, 2.0, 9.0]), jnp.array([True, True, False]))
      >>> float(mean.total), float(mean.weight)
      (3.0, 2.0)
    """
    values = jnp.where(mask, values.astype(jnp.float32), 0.0)
    return Mean(values.sum(), mask.sum(dtype=jnp.float32))


def right_tokens(said: Ids, gold: Ids) -> Ids:
    """Which ids are the gold ones; if the gold token is unknown, no id is right.

    Args:
      said: [...] int32 ids.
      gold: [...] int32 ids, of the same shape.

    Returns:
      [...] bool.

    Example:
      >>> right_tokens(jnp.array([7, 8, UNK]), jnp.array([7, 9, UNK])).tolist()
      [True, False, False]
    """
    # The operators of each library return its own kind of array.
    return (said == gold) & (gold != UNK)  # pyright: ignore[reportReturnType]


def merge(*sums: MetricSums) -> MetricSums:
    """Adds metric sums with the same names, which gives the metrics of all the data together.

    Raises:
      ValueError: the names differ, or there is nothing to merge.
    """
    if not sums:
        raise ValueError("there are no metric sums to merge")
    return reduce(lambda left, right: jax.tree.map(lambda a, b: a + b, left, right), sums)


def compute(sums: Mapping[str, Mean]) -> dict[str, float]:
    """The means as Python numbers; waits for the device.

    A mean over no values is NaN, so that it cannot be taken for a score.

    Example:
      >>> compute({"loss": Mean(6.0, 3.0)})
      {'loss': 2.0}
    """
    fetched = jax.device_get(dict(sums))
    return {
        name: float(total) / float(weight) if weight else float("nan")
        for name, (total, weight) in fetched.items()
    }
