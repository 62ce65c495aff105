"""Sweeps as plain generators of overrides, which can be combined."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.keys import Overrides

COMPARED_SCHEDULES = ("teacher_forcing", "linear", "exponential", "inverse_sigmoid")
"""The schedules that a sweep compares by default."""


def sweep_schedules(
    schedules: Sequence[str] = COMPARED_SCHEDULES, num_seeds: int = 3
) -> Iterator[Overrides]:
    """The runs of a comparison: each schedule with each seed; the schedule varies fastest.

    Example:
      >>> list(sweep_schedules(["linear"], num_seeds=2))
      [{'schedule.name': 'linear', 'seed': 0}, {'schedule.name': 'linear', 'seed': 1}]
    """
    for seed in range(num_seeds):
        for schedule in schedules:
            yield {"schedule.name": schedule, "seed": seed}


def sweep_product(*sweeps: Iterable[Mapping[str, Any]]) -> Iterator[Overrides]:
    """All combinations of the runs of several sweeps; the last sweep varies fastest.

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
            raise LabError(f"{twice} is set by two of the sweeps in a product")
        yield {key: value for part in parts for key, value in part.items()}
