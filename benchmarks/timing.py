"""Interleaved timings, and the rows that come of them."""

import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from s2s_jax.batch import Batch
from s2s_jax.metrics import MetricSums
from s2s_jax.objectives import Objective
from s2s_jax.schedules import inverse_sigmoid
from s2s_jax.training import TrainState, make_train_step

NUM_PROBS = 9

Name = TypeVar("Name", bound=Hashable)

StepAt = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, MetricSums]]
"""(state, batch, teacher_prob) -> (state, metric sums)."""


def make_step_at(objective: Objective, optimizer: optax.GradientTransformation) -> StepAt:
    """The train step with teacher_prob as an argument: one program for every schedule."""

    def step_at(
        state: TrainState, batch: Batch, teacher_prob: jax.Array
    ) -> tuple[TrainState, MetricSums]:
        return make_train_step(objective, optimizer, lambda step: teacher_prob)(state, batch)

    return step_at


def schedule_probs(count: int = NUM_PROBS) -> list[float]:
    """teacher_prob in the middle of equal stretches of an inverse-sigmoid schedule from 1 to 0.

    The schedule starts at 1 and reaches 0.01 at its last step; a mean over these values is a mean
    over the training.

    Example:
      >>> [round(p, 2) for p in schedule_probs(5)]
      [1.0, 0.98, 0.87, 0.46, 0.07]
    """
    last = 10_000
    schedule = inverse_sigmoid(reach_teacher_prob=0.01, reach_step=last, start=1.0)
    steps = (np.arange(count) + 0.5) / count * last
    return np.asarray(jax.vmap(schedule)(jnp.asarray(steps, jnp.int32))).tolist()


def interleave(
    samples: Mapping[Name, Callable[[], float]], num_rounds: int
) -> dict[Name, list[float]]:
    """Takes one sample of each, round by round, each round from another on, every second backwards.

    So a machine that slows down for a while slows all of them, and no one always runs in the wake
    of the same other.

    Args:
      samples: by name, each runs once and returns its seconds.
      num_rounds: how many samples of each.

    Returns:
      Name -> its seconds, a value a round.
    """
    names = list(samples)
    seconds: dict[Name, list[float]] = {name: [] for name in names}
    for round_number in range(num_rounds):
        shift = round_number % len(names)
        order = names[shift:] + names[:shift]
        for name in reversed(order) if round_number % 2 else order:
            seconds[name].append(samples[name]())
    return seconds


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median over the rounds of a round's ratio."""
    return median(a / b for a, b in zip(over, under, strict=True))


class Training:
    """A training whose steps are timed: one state that goes from sample to sample.

    Args:
      step: (state, batch, teacher_prob) -> (state, metric sums), not jitted.
      state: where to start; it is copied.
      batches: by any name, one of each shape; all are compiled for at once.
      jit: compiles; tests have a quicker one.
    """

    def __init__(
        self,
        step: StepAt,
        state: TrainState,
        batches: Mapping[Any, Batch],
        jit: Callable[..., Any] = jax.jit,
    ):
        self.state = jax.tree.map(jnp.copy, state)
        """Where the training is."""
        self._batches = {name: jax.tree.map(jnp.asarray, batch) for name, batch in batches.items()}
        jitted = jit(step, donate_argnums=0)

        def compile_one(batch: Batch) -> Any:
            return jitted.lower(self.state, batch, jnp.float32(1)).compile()

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            compiled = pool.map(compile_one, self._batches.values())
            self.programs = dict(zip(self._batches, compiled, strict=True))
            """The compiled step by the batch's name."""

    def seconds(self, name: Any, teacher_probs: Sequence[float], passes: int = 1) -> float:
        """The seconds of a step on a batch, on average over `passes` rounds of teacher_probs.

        The steps are dispatched one after another, as a training loop does; the clock stops when
        the last has ended.
        """
        program, batch = self.programs[name], self._batches[name]
        probs = [jnp.float32(p) for p in teacher_probs] * passes
        jax.block_until_ready((self.state, probs))
        start = time.perf_counter()
        for teacher_prob in probs:
            self.state, _ = program(self.state, batch, teacher_prob)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - start) / len(probs)


def passes_for(seconds: float, wanted: float) -> int:
    """How many repetitions of something that takes `seconds` make a sample of `wanted` seconds."""
    return max(1, round(wanted / max(seconds, 1e-9)))


def matmul_peak(dtype: str, quick: bool) -> Callable[[], float]:
    """Makes a sample of the fastest matrix product: floating-point operations a second.

    Square matrices of several sizes; the best of them is the peak that a step's share is taken of.
    """
    sizes = (64,) if quick else (1024, 2048, 4096)
    product = jax.jit(lambda a, b: a @ b)
    matrices = [jnp.ones((size, size), dtype) for size in sizes]
    for matrix in matrices:
        jax.block_until_ready(product(matrix, matrix))

    def sample() -> float:
        best = 0.0
        for size, matrix in zip(sizes, matrices, strict=True):
            start = time.perf_counter()
            last = matrix
            for _ in range(repeats := max(1, 8 * (1024 // size) ** 3)):
                last = product(matrix, matrix)
            jax.block_until_ready(last)
            best = max(best, repeats * 2 * size**3 / (time.perf_counter() - start))
        return best

    return sample
