"""Schedules: training step -> teacher_prob, the probability of feeding the gold token.

A schedule is any function from the training step to a float32 scalar in [0, 1], as in optax.
Those made here are `functools.partial` objects, so they can be printed and pickled, and they show
their parameters: `inverse_sigmoid_reaching(0.1, step=4206).keywords["k"]`.

The direction is always the same: 1 feeds gold (teacher forcing), 0 feeds the model's own token
(free running). Papers and toolkits also speak of the sampling probability, which is 1 minus this.
"""

import inspect
import math
import operator
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from s2s_jax.names import did_you_mean

Schedule = Callable[[ArrayLike], jax.Array]
"""step (integer scalar, possibly traced) -> teacher_prob, a float32 scalar in [0, 1]."""

_LAST_STEP = 2**31 - 1  # the step is an int32
_LARGEST = 1e30  # well within float32's range: infinity times step 0 would be NaN


def teacher_forcing() -> partial[jax.Array]:
    """Always the gold token.

        teacher_prob(step) = 1

    Example:
      >>> float(teacher_forcing()(1000))
      1.0
    """
    return constant(1.0)


def free_running() -> partial[jax.Array]:
    """Always the model's own token, as at inference.

        teacher_prob(step) = 0

    The targets are still gold. From random weights the model learns next to nothing about prefixes.

    Example:
      >>> float(free_running()(1000))
      0.0
    """
    return constant(0.0)


def constant(teacher_prob: float) -> partial[jax.Array]:
    """The same mixture of gold and own tokens throughout.

        teacher_prob(step) = teacher_prob

    Args:
      teacher_prob: in [0, 1].

    Raises:
      ValueError: teacher_prob is out of range.

    Example:
      >>> float(constant(0.75)(1000))
      0.75
    """
    teacher_prob = _number("constant", "teacher_prob", teacher_prob, "in [0, 1]")
    _check("constant", "teacher_prob", teacher_prob, 0 <= teacher_prob <= 1, "in [0, 1]")
    return partial(_constant, teacher_prob=teacher_prob)


def linear(
    k: float = 1.0, *, c: float, floor: float = 0.0, first_step: int = 0
) -> partial[jax.Array]:
    """Falls by the same amount each step (Bengio et al. 2015, arXiv:1506.03099, section 2.4).

        teacher_prob(step) = max(floor, k - c * i),   i = max(step - first_step, 0)

    Args:
      k: teacher_prob at the start, in (0, 1].
      c: the decrease per step, in (0, 1e30].
      floor: the lowest value, in [0, 1) and not above k.
      first_step: the last step at the initial value, >= 0.

    Raises:
      ValueError: a parameter is out of range.

    Example:
      >>> schedule = linear(c=1e-4, floor=0.25)
      >>> [round(float(schedule(step)), 4) for step in (0, 1000, 5000, 10_000_000)]
      [1.0, 0.9, 0.5, 0.25]
    """
    k = _number("linear", "k", k, "in (0, 1]")
    _check("linear", "k", k, 0 < k <= 1, "in (0, 1]")
    c = _number("linear", "c", c, "in (0, 1e30]")
    _check("linear", "c", c, 0 < c <= _LARGEST, "in (0, 1e30]")
    floor = _floor("linear", floor, k)
    first_step = _step("linear", "first_step", first_step, 0)
    return partial(_linear, k=k, c=c, floor=floor, first_step=first_step)


def exponential(k: float, *, floor: float = 0.0, first_step: int = 0) -> partial[jax.Array]:
    """Falls by the same factor each step (Bengio et al. 2015, arXiv:1506.03099, section 2.4).

        teacher_prob(step) = max(floor, k**i) = max(floor, exp(i * log k)),
        i = max(step - first_step, 0)

    A k that is right for epochs decays far too fast for steps: 0.99 is below 0.01 after 460 steps.
    log k is computed in double precision: in float32, k = 1 - 1e-8 rounds to 1 and never decays.

    Args:
      k: the factor per step, in (0, 1).
      floor: the lowest value, in [0, 1).
      first_step: the last step at the initial value, >= 0.

    Raises:
      ValueError: a parameter is out of range; with k >= 1 or k <= 0 it would leave [0, 1].

    Example:
      >>> schedule = exponential(0.9999)
      >>> [round(float(schedule(step)), 4) for step in (0, 1000, 10_000)]
      [1.0, 0.9048, 0.3679]
    """
    k = _number("exponential", "k", k, "in (0, 1)")
    _check("exponential", "k", k, 0 < k < 1, "in (0, 1)")
    floor = _floor("exponential", floor, 1.0)
    first_step = _step("exponential", "first_step", first_step, 0)
    return partial(_exponential, k=k, floor=floor, first_step=first_step)


def inverse_sigmoid(
    k: float, *, floor: float = 0.0, first_step: int = 0, start: float | None = None
) -> partial[jax.Array]:
    """Stays high, falls, flattens out (Bengio et al. 2015, arXiv:1506.03099, section 2.4).

        teacher_prob(step) = max(floor, k / (k + exp(i / k))),   i = max(step - first_step, 0)

    It is computed as sigmoid(log k - i / k), because exp(i / k) overflows float32 from i = 88.7 * k
    on. It is k / (k + 1) at i = 0, not 1, and 0.5 at i = k * log k, where its slope is
    -1 / (4 * k). With `start`, it is the normalised form of OpenNMT (Lua), which begins at exactly
    that value:

        teacher_prob(step) = max(floor, start * k / (k + exp(i / k) - 1))

    Args:
      k: how slowly it falls, in [1, 1e30].
      floor: the lowest value, in [0, 1) and not above the start.
      first_step: the last step at the initial value, >= 0.
      start: None for the paper's form; in (0, 1] for the normalised one.

    Raises:
      ValueError: a parameter is out of range.

    Example:
      >>> schedule = inverse_sigmoid(500)
      >>> [round(float(schedule(step)), 3) for step in (0, 3107, 4206, 10_000_000)]
      [0.998, 0.5, 0.1, 0.0]
      >>> float(inverse_sigmoid(500, start=1.0)(0))
      1.0
    """
    k = _number("inverse_sigmoid", "k", k, "in [1, 1e30]")
    _check("inverse_sigmoid", "k", k, 1 <= k <= _LARGEST, "in [1, 1e30]")
    start = _start("inverse_sigmoid", start)
    floor = _floor("inverse_sigmoid", floor, k / (k + 1) if start is None else start)
    first_step = _step("inverse_sigmoid", "first_step", first_step, 0)
    return partial(_inverse_sigmoid, k=k, floor=floor, first_step=first_step, start=start)


def linear_reaching(
    teacher_prob: float, step: int, *, k: float = 1.0, floor: float = 0.0, first_step: int = 0
) -> partial[jax.Array]:
    """The linear schedule that reaches teacher_prob at that step, then falls on to the floor.

        c = (k - teacher_prob) / (step - first_step)

    Args:
      teacher_prob: the value to reach, in [floor, k); if it equals the floor, it stops there.
      step: when to reach it, counted from the start of training; above first_step.
      k: as in `linear`.
      floor: as in `linear`.
      first_step: as in `linear`.

    Raises:
      ValueError: a parameter is out of range.

    Example:
      >>> schedule = linear_reaching(0.25, step=3000, floor=0.25)
      >>> [float(schedule(step)) for step in (0, 2000, 3000, 9000)]
      [1.0, 0.5, 0.25, 0.25]
    """
    name = "linear_reaching"
    k = _number(name, "k", k, "in (0, 1]")
    _check(name, "k", k, 0 < k <= 1, "in (0, 1]")
    floor = _floor(name, floor, k)
    teacher_prob, num_steps = _target(name, teacher_prob, step, floor, k, first_step)
    return linear(k, c=(k - teacher_prob) / num_steps, floor=floor, first_step=first_step)


def exponential_reaching(
    teacher_prob: float, step: int, *, floor: float = 0.0, first_step: int = 0
) -> partial[jax.Array]:
    """The exponential schedule that reaches teacher_prob at that step.

        k = teacher_prob**(1 / (step - first_step))

    Args:
      teacher_prob: the value to reach, above 0 and in [floor, 1). No such schedule reaches 0.
      step: when to reach it, counted from the start of training; above first_step.
      floor: as in `exponential`.
      first_step: as in `exponential`.

    Raises:
      ValueError: a parameter is out of range.

    Example:
      >>> schedule = exponential_reaching(0.5, step=1000)
      >>> [round(float(schedule(step)), 4) for step in (0, 1000, 2000)]
      [1.0, 0.5, 0.25]
    """
    name = "exponential_reaching"
    floor = _floor(name, floor, 1.0)
    teacher_prob, num_steps = _target(
        name, teacher_prob, step, floor, 1.0, first_step, positive=True
    )
    k = math.exp(math.log(teacher_prob) / num_steps)
    return exponential(k, floor=floor, first_step=first_step)


def inverse_sigmoid_reaching(
    teacher_prob: float,
    step: int,
    *,
    floor: float = 0.0,
    first_step: int = 0,
    start: float | None = None,
) -> partial[jax.Array]:
    """The inverse-sigmoid schedule that reaches teacher_prob at that step, solved for its k.

        n = step - first_step = k * log(k * (1 - p) / p),   p = teacher_prob
        k = n / W(n * (1 - p) / p),   W: Lambert's function

    With `start`, n = k * log(1 + k * (start - p) / p). Solved in double precision.

    Args:
      teacher_prob: the value to reach, above 0 and in [floor, 1), and below `start` if given.
      step: when to reach it, counted from the start of training; above first_step, and late enough
        for a k >= 1.
      floor: as in `inverse_sigmoid`.
      first_step: as in `inverse_sigmoid`.
      start: as in `inverse_sigmoid`.

    Raises:
      ValueError: a parameter is out of range; the message names the first step that works.

    Example:
      >>> schedule = inverse_sigmoid_reaching(0.1, step=4206)
      >>> round(schedule.keywords["k"], 1)
      500.0
      >>> round(float(schedule(4206)), 4)
      0.1
    """
    name = "inverse_sigmoid_reaching"
    start = _start(name, start)
    highest = 1.0 if start is None else start
    floor = _floor(name, floor, highest)
    p, num_steps = _target(name, teacher_prob, step, floor, highest, first_step, positive=True)
    offset = 0.0 if start is None else p  # n = k * log((k * (highest - p) + offset) / p), in both

    def steps_to_target(k: float) -> float:
        return k * (math.log(k * (highest - p) + offset) - math.log(p))

    earliest = max(1, math.ceil(steps_to_target(1.0)))
    if num_steps < earliest:
        raise ValueError(
            f"{name}: step must be at least {first_step + earliest} for teacher_prob={p:g} "
            f"(k >= 1), not {step}"
        )
    # Newton's method, started to the right of the root of a convex function, falls monotonically.
    k = num_steps + math.e * p / (highest - p)
    for _ in range(100):
        slope = steps_to_target(k) / k + k * (highest - p) / (k * (highest - p) + offset)
        following = k - (steps_to_target(k) - num_steps) / slope
        if following >= k:
            break
        k = following
    return inverse_sigmoid(max(k, 1.0), floor=floor, first_step=first_step, start=start)


SCHEDULES: dict[str, Callable[..., partial[jax.Array]]] = {
    factory.__name__: factory
    for factory in (
        teacher_forcing,
        constant,
        linear,
        exponential,
        inverse_sigmoid,
        free_running,
        linear_reaching,
        exponential_reaching,
        inverse_sigmoid_reaching,
    )
}
"""The schedules of `make_schedule`, by name."""


def make_schedule(name: str, **parameters: float | int | None) -> partial[jax.Array]:
    """Makes a schedule by its name, for configs.

    Args:
      name: a key of `SCHEDULES`.
      **parameters: the arguments of that factory.

    Raises:
      ValueError: the name is unknown (the message suggests the most similar), the schedule has no
        such parameter or needs another (the message names its parameters), or a value is out of
        range.

    Example:
      >>> float(make_schedule("linear", c=0.001)(250))
      0.75
      >>> make_schedule("inverse_sigmiod", k=500)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ValueError: schedule is 'inverse_sigmiod'; did you mean 'inverse_sigmoid'? ...
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule is {name!r}; {did_you_mean(name, SCHEDULES)}")
    known = inspect.signature(SCHEDULES[name]).parameters
    listed = ", ".join(known) or "none"
    for parameter in parameters:
        if parameter not in known:
            raise ValueError(
                f"{name} has no parameter {parameter!r}; {did_you_mean(parameter, known)}"
            )
    for parameter, about in known.items():
        if about.default is inspect.Parameter.empty and parameter not in parameters:
            raise ValueError(f"{name} needs the parameter {parameter!r} (parameters: {listed})")
    return SCHEDULES[name](**parameters)


def _constant(step: ArrayLike, *, teacher_prob: float) -> jax.Array:
    return jnp.full(jnp.shape(step), teacher_prob, jnp.float32)


def _linear(step: ArrayLike, *, k: float, c: float, floor: float, first_step: int) -> jax.Array:
    return _clamp(k - c * _steps_since(first_step, step), floor)


def _exponential(step: ArrayLike, *, k: float, floor: float, first_step: int) -> jax.Array:
    return _clamp(jnp.exp(_steps_since(first_step, step) * math.log(k)), floor)


def _inverse_sigmoid(
    step: ArrayLike, *, k: float, floor: float, first_step: int, start: float | None
) -> jax.Array:
    x = _steps_since(first_step, step) / k
    if start is None:
        return _clamp(jax.nn.sigmoid(math.log(k) - x), floor)
    log_expm1 = x + jnp.log(-jnp.expm1(-x))  # -inf at 0, where the sigmoid is 1
    return _clamp(start * jax.nn.sigmoid(math.log(k) - log_expm1), floor)


def _steps_since(first_step: int, step: ArrayLike) -> jax.Array:
    """The i of the formulas; the maximum comes first, so that an unsigned step cannot wrap."""
    return (jnp.maximum(step, first_step) - first_step).astype(jnp.float32)


def _clamp(teacher_prob: jax.Array, floor: float) -> jax.Array:
    return jnp.clip(teacher_prob, floor, 1.0).astype(jnp.float32)


def _number(schedule: str, name: str, value: float, allowed: str) -> float:
    """A Python float, so that later computations are in double precision."""
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{schedule}: {name} must be {allowed}, not {value!r}") from None


def _check(schedule: str, name: str, value: float, holds: bool, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{schedule}: {name} must be {allowed}, not {value!r}")


def _step(schedule: str, name: str, value: int, lowest: int) -> int:
    allowed = f"an integer in [{lowest}, {_LAST_STEP}]"
    try:
        if isinstance(value, bool):
            raise TypeError
        step = operator.index(value)
    except TypeError:
        raise ValueError(f"{schedule}: {name} must be {allowed}, not {value!r}") from None
    if not lowest <= step <= _LAST_STEP:
        raise ValueError(f"{schedule}: {name} must be {allowed}, not {step}")
    return step


def _floor(schedule: str, floor: float, start: float) -> float:
    allowed = "in [0, 1)" if start >= 1 else f"in [0, {start:g}] (the schedule's start)"
    floor = _number(schedule, "floor", floor, allowed)
    _check(schedule, "floor", floor, 0 <= floor < 1 and floor <= start, allowed)
    return floor


def _start(schedule: str, start: float | None) -> float | None:
    if start is None:
        return None
    start = _number(schedule, "start", start, "in (0, 1]")
    _check(schedule, "start", start, 0 < start <= 1, "in (0, 1]")
    return start


def _target(
    schedule: str,
    teacher_prob: float,
    step: int,
    floor: float,
    start: float,
    first_step: int,
    positive: bool = False,
) -> tuple[float, int]:
    """The teacher_prob to reach, and the number of steps after first_step to reach it in."""
    first_step = _step(schedule, "first_step", first_step, 0)
    step = _step(schedule, "step", step, first_step + 1)
    bracket = "(" if positive and floor == 0 else "["
    allowed = f"in {bracket}{floor:g}, {start:g})"
    teacher_prob = _number(schedule, "teacher_prob", teacher_prob, allowed)
    holds = floor <= teacher_prob < start and (teacher_prob > 0 or not positive)
    _check(schedule, "teacher_prob", teacher_prob, holds, allowed)
    return teacher_prob, step - first_step
