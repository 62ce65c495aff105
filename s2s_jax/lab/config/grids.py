"""Sweeps as plain generators of overrides, which compose."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.keys import Overrides

COMPARED_SCHEDULES = ("teacher_forcing", "linear", "exponential", "inverse_sigmoid")
"""The schedules that a sweep compares unless it is told otherwise."""


def sweep_schedules(
    schedules: Sequence[str] = COMPARED_SCHEDULES, num_seeds: int = 3
) -> Iterator[Overrides]:
    """The runs of a comparison: each schedule with each seed, the seeds outermost.

    Example:
      >>> list(sweep_schedules(["linear"], num_seeds=2))
      [{'schedule.name': 'linear', 'seed': 0}, {'schedule.name': 'linear', 'seed': 1}]
    """
    for seed in range(num_seeds):
        for schedule in schedules:
            yield {"schedule.name": schedule, "seed": seed}


def sweep_product(*sweeps: Iterable[Mapping[str, Any]]) -> Iterator[Overrides]:
    """Every run of a sweep with every run of the others; the last one varies fastest.

    Raises:
      LabError: two of them set the same key.

    Example:
      >>> coins = ({"rollout.coin": coin} for coin in ("token", "sequence"))
      >>> for run in sweep_product(coins, sweep_schedules(["linear"], num_seeds=1)):
      ...     print(run)
      {'rollout.coin': 'token', 'schedule.name': 'linear', 'seed': 0}
      {'rollout.coin': 'sequence', 'schedule.name': 'linear', 'seed': 0}
    """
    for parts in itertools.product(*map(list, sweeps)):
        keys = [key for part in parts for key in part]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice:
            raise LabError(f"{twice} is set by two of the sweeps of a product")
        yield {key: value for part in parts for key, value in part.items()}
