"""A population of runs as one vmapped program, over running them one after another.

    python -m benchmarks.population [--json FILE] [--quick]

Four schedules with four seeds each, at the g2p shape's commonest batch; every run has batches,
weights and draws of its own. One after another: the compiled step that serves every schedule, run
by run. The goal is for a GPU; on a CPU two schedules with two seeds show what it is there.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.report import Findings, Options, Row, run_part, say
from benchmarks.shapes import Shape, make_batch, make_model, make_optimizer, shapes
from benchmarks.timing import interleave, make_step_at, median_ratio
from s2s_jax.lab.base.allocator import keep_freed_memory
from s2s_jax.objectives import make_cross_entropy
from s2s_jax.schedules import (
    Schedule,
    exponential,
    inverse_sigmoid,
    linear,
    teacher_forcing,
)
from s2s_jax.training import TrainState, init_train_state

_ROUNDS = 5
_LAST_STEP = 1000


def make_schedules() -> list[Schedule]:
    """The four that a sweep compares, falling to 0.05."""
    return [
        teacher_forcing(),
        linear(reach_teacher_prob=0.05, reach_step=_LAST_STEP),
        exponential(reach_teacher_prob=0.05, reach_step=_LAST_STEP),
        inverse_sigmoid(reach_teacher_prob=0.05, reach_step=_LAST_STEP, start=1.0),
    ]


class Population:
    """Runs of one model that differ in schedule and seed.

    Args:
      shape: the model's and the batches'.
      num_schedules: the first so many of `make_schedules`.
      num_seeds: runs of each.
      num_steps: updates of a run, spread evenly over the schedules.
      jit: compiles; tests have a quicker one.
    """

    def __init__(
        self,
        shape: Shape,
        num_schedules: int,
        num_seeds: int,
        num_steps: int,
        jit: Callable[..., Any] = jax.jit,
    ):
        model, optimizer = make_model(shape), make_optimizer()
        step_at = make_step_at(make_cross_entropy(model), optimizer)
        steps = jnp.linspace(0, _LAST_STEP, num_steps).astype(jnp.int32)
        schedules = make_schedules()[-num_schedules:]
        columns = [jax.vmap(schedule)(steps) for schedule in schedules for _ in range(num_seeds)]
        self.num_runs = len(columns)
        self._teacher_probs = np.stack([np.asarray(one) for one in columns], axis=1)
        keys = [jax.random.key(run % num_seeds) for run in range(self.num_runs)]
        init = jit(partial(init_train_state, model, optimizer))
        self._states = [init(key) for key in keys]
        self._batches = [
            jax.tree.map(jnp.asarray, make_batch(shape, shape.commonest, run))
            for run in range(self.num_runs)
        ]
        self._all_states, self._all_batches = (
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *one)
            for one in (self._states, self._batches)
        )
        self._alone = jit(step_at, donate_argnums=0)
        self._together = jit(jax.vmap(step_at), donate_argnums=0)

    def together(self) -> TrainState:
        """Trains all runs as one program; their states at the end, the runs in front."""
        states = jax.tree.map(jnp.copy, self._all_states)
        for teacher_probs in self._teacher_probs:
            states, _ = self._together(states, self._all_batches, teacher_probs)
        return jax.block_until_ready(states)

    def one_after_another(self) -> list[TrainState]:
        """Trains each run to its end before the next; their states at the end."""
        ends = []
        for run, (start, batch) in enumerate(zip(self._states, self._batches, strict=True)):
            state = jax.tree.map(jnp.copy, start)
            for teacher_prob in self._teacher_probs[:, run]:
                state, _ = self._alone(state, batch, teacher_prob)
            ends.append(jax.block_until_ready(state))
        return ends


def seconds_of(train: Callable[[], object]) -> float:
    """How long a training takes."""
    start = time.perf_counter()
    train()
    return time.perf_counter() - start


def measure(options: Options) -> Findings:
    """Both ways, in turns."""
    keep_freed_memory()
    on_cpu = jax.default_backend() == "cpu"
    small = options.quick or on_cpu
    num_schedules, num_seeds = (2, 2) if small else (4, 4)
    num_steps = 2 if options.quick else 10 if on_cpu else 100
    say(f"population: {num_schedules} schedules with {num_seeds} seeds ...")
    population = Population(shapes(options.quick)[0], num_schedules, num_seeds, num_steps)
    ways = {
        "together": partial(seconds_of, population.together),
        "one after another": partial(seconds_of, population.one_after_another),
    }
    for sample in ways.values():
        sample()  # compiles
    seconds = interleave(ways, options.num_rounds(_ROUNDS))
    row = Row(
        f"g2p, {population.num_runs} runs: one after another / one vmapped program",
        median_ratio(seconds["one after another"], seconds["together"]),
        goal=None if small else 6,
        at_most=False,
        note="the goal of 6 is for 16 runs on a GPU" if small else "",
    )
    return Findings("population", [row], {"seconds": seconds, "num_steps": num_steps})


if __name__ == "__main__":
    run_part("population", __doc__, measure)
