"""Which runs of a sweep train as lanes of one program."""

import itertools
from collections import defaultdict
from collections.abc import Sequence

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.runs.provenance import check_lanes
from s2s_jax.lab.sweeps.plan import PlannedRun

MAX_LANES = 16
"""The default maximum number of lanes in a program."""


def make_groups(plan: Sequence[PlannedRun], max_lanes: int = MAX_LANES) -> list[list[PlannedRun]]:
    """Divides the runs that are not finished into groups, which train one after the other.

    The runs of a group are lanes of one program. More than max_lanes runs are split, if possible
    between seeds: runs with the same seed and step share their batches, so that none of them is
    padded to the shape of another run's batch.

    Args:
      plan: from `plan_sweep`.
      max_lanes: the maximum number of runs in a group; 1 trains every run alone.

    Raises:
      LabError: max_lanes is below 1, or JAX's random generator does not support several lanes.

    Example:
      >>> from pathlib import Path
      >>> from s2s_jax.lab.sweeps.assignment import Assignment
      >>> nothing = Assignment("", Path())
      >>> plan = [
      ...     PlannedRun(f"{name}/seed_{seed}", nothing, "waiting", name, seed)
      ...     for name in ("a", "b")
      ...     for seed in range(3)
      ... ]
      >>> [[run.name for run in group] for group in make_groups(plan, 5)]
      [['a/seed_0', 'b/seed_0', 'a/seed_1', 'b/seed_1'], ['a/seed_2', 'b/seed_2']]
    """
    if max_lanes < 1:
        raise LabError(f"--max-lanes is {max_lanes}; it must be at least 1")
    programs: dict[object, list[PlannedRun]] = defaultdict(list)
    for number, one in enumerate(plan):
        if one.status != "finished":
            programs[one.group if max_lanes > 1 else number].append(one)
    groups = [group for runs in programs.values() for group in _split(runs, max_lanes)]
    if any(len(group) > 1 for group in groups):
        check_lanes()
    return groups


def groups_table(groups: Sequence[Sequence[PlannedRun]]) -> str:
    """One line per group of runs that train together; "" if there is nothing to train."""
    lines = []
    for number, group in enumerate(groups, 1):
        how = f"{len(group)} lanes" if len(group) > 1 else "alone"
        lines.append(f"program {number}, {how}: {', '.join(one.name for one in group)}")
    return "\n".join(lines)


def _split(runs: Sequence[PlannedRun], max_lanes: int) -> list[list[PlannedRun]]:
    """Splits runs into groups of about the same size."""
    num_groups = -(-len(runs) // max_lanes)
    enough = -(-len(runs) // num_groups)

    def place(run: PlannedRun) -> tuple[int, int]:
        return run.steps_made, run.seed

    groups: list[list[PlannedRun]] = [[]]
    for _, members in itertools.groupby(sorted(runs, key=place), place):
        same = list(members)
        size = -(-len(same) // -(-len(same) // max_lanes))
        for first in range(0, len(same), size):
            some = same[first : first + size]
            if len(groups[-1]) >= enough or len(groups[-1]) + len(some) > max_lanes:
                groups.append([])
            groups[-1] += some
    return [group for group in groups if group]
