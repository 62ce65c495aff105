"""Schedules: training step -> teacher_prob, the probability of feeding the gold token.

A schedule is any function from the training step to a float32 scalar in [0, 1], as in optax.
Those made here are `functools.partial` objects, so they can be printed and pickled, and they show
their parameters: `inverse_sigmoid(reach_teacher_prob=0.1, reach_step=4206).keywords["k"]`.

The direction is always the same: 1 feeds gold (teacher forcing), 0 feeds the model's own token
(free running). Papers and toolkits also speak of the sampling probability, which is 1 minus this.

The schedules that decay grow instead with `rising=True` (Teutsch & Mäder 2022, arXiv:2210.08959):

    teacher_prob(step) = 1 - decay(step)

All their other parameters describe the decay that is mirrored: its start, its floor, the value that
it reaches and when. So a rising schedule that "reaches 0.1" is at 0.9 by then, and a floor of 0.1
keeps it at 0.9 or below.

A schedule that follows training itself is a `FeedbackSchedule`: it has a state, which is part of
the train state. `accuracy` makes one.
"""

import inspect
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from s2s_jax.metrics import Mean, MetricSums
from s2s_jax.names import check_known, did_you_mean

Schedule = Callable[[ArrayLike], jax.Array]
"""step (integer scalar, possibly traced) -> teacher_prob, a float32 scalar in [0, 1]."""


@dataclass(frozen=True)
class FeedbackSchedule:
    """A schedule with a state, which every update changes: it follows how training goes.

    Attributes:
      init: () -> the state before the first update, a pytree of arrays.
      update: (state, metric sums of an update) -> the state after it, with arrays of the same
        shapes and dtypes. The sums are those that the train step returns: the objective's,
        "teacher_prob" and "gradient_norm".
      teacher_prob: (step, state) -> teacher_prob, a float32 scalar in [0, 1].

    Example:
      >>> def after(state, sums):  # feeds gold until the loss is below 1 nat per token
      ...     return sums["loss"].total < sums["loss"].weight
      >>> schedule = FeedbackSchedule(
      ...     init=lambda: jnp.array(False),
      ...     update=after,
      ...     teacher_prob=lambda step, is_low: jnp.where(is_low, 0.5, 1.0),
      ... )
      >>> state = schedule.update(schedule.init(), {"loss": Mean(12.0, 16.0)})
      >>> float(schedule.teacher_prob(1, state))
      0.5
    """

    init: Callable[[], Any]
    update: Callable[[Any, MetricSums], Any]
    teacher_prob: Callable[[ArrayLike, Any], jax.Array]


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
    k: float = 1.0,
    *,
    c: float | None = None,
    reach_teacher_prob: float | None = None,
    reach_step: int | None = None,
    reach_fraction: float | None = None,
    floor: float = 0.0,
    first_step: int = 0,
    rising: bool = False,
    num_steps: int | None = None,
) -> partial[jax.Array]:
    """Falls by the same amount each step (Bengio et al. 2015, arXiv:1506.03099, section 2.4).

        teacher_prob(step) = max(floor, k - c * i),   i = max(step - first_step, 0)

    Either `c` says how fast, or `reach_teacher_prob` and `reach_step` say what to reach and when:

        c = (k - reach_teacher_prob) / (reach_step - first_step)

    With `rising`, teacher_prob is 1 minus this; the other parameters still describe the decay.

    Args:
      k: teacher_prob at the start, in (0, 1].
      c: the decrease per step, in (0, 1e30].
      reach_teacher_prob: the value to reach, in [floor, k); by default 0, or the floor.
      reach_step: when to reach it, counted from the start of training and not from first_step.
      reach_fraction: when to reach it, as a share of num_steps; 1 if neither c nor a step is given.
      floor: the lowest value, in [0, 1) and not above k.
      first_step: the last step at the initial value, >= 0.
      rising: whether to return 1 minus the decay.
      num_steps: the training's length, needed where neither c nor reach_step is given.

    Raises:
      ValueError: a parameter is out of range, or two exclude each other.

    Example:
      >>> schedule = linear(c=1e-4, floor=0.25)
      >>> [round(float(schedule(step)), 4) for step in (0, 1000, 5000, 10_000_000)]
      [1.0, 0.9, 0.5, 0.25]
      >>> schedule = linear(reach_teacher_prob=0.25, reach_step=3000, floor=0.25)
      >>> [float(schedule(step)) for step in (0, 2000, 3000, 9000)]
      [1.0, 0.5, 0.25, 0.25]
      >>> schedule = linear(reach_teacher_prob=0.25, reach_step=3000, floor=0.25, rising=True)
      >>> [float(schedule(step)) for step in (0, 2000, 3000, 9000)]
      [0.0, 0.5, 0.75, 0.75]
    """
    k = _number("linear", "k", k, "in (0, 1]")
    _check("linear", "k", k, 0 < k <= 1, "in (0, 1]")
    floor = _floor("linear", floor, k)
    first_step = _step("linear", "first_step", first_step, 0)
    rising = _flag("linear", "rising", rising)
    goal = _Goal("linear", reach_teacher_prob, reach_step, reach_fraction, num_steps)
    if c is None:
        p, steps = goal.reached(floor, k, first_step)
        c = (k - p) / steps
    else:
        goal.refuse_beside("c")
    c = _number("linear", "c", c, "in (0, 1e30]")
    _check("linear", "c", c, 0 < c <= _LARGEST, "in (0, 1e30]")
    return partial(_linear, k=k, c=c, floor=floor, first_step=first_step, rising=rising)


def exponential(
    k: float | None = None,
    *,
    reach_teacher_prob: float | None = None,
    reach_step: int | None = None,
    reach_fraction: float | None = None,
    floor: float = 0.0,
    first_step: int = 0,
    rising: bool = False,
    num_steps: int | None = None,
) -> partial[jax.Array]:
    """Falls by the same factor each step (Bengio et al. 2015, arXiv:1506.03099, section 2.4).

        teacher_prob(step) = max(floor, k**i) = max(floor, exp(i * log k)),
        i = max(step - first_step, 0)

    Either `k` says how fast, or `reach_teacher_prob` and `reach_step` say what to reach and when:

        k = reach_teacher_prob**(1 / (reach_step - first_step))

    A k that is right for epochs decays far too fast for steps: 0.99 is below 0.01 after 460 steps.
    log k is computed in double precision: in float32, k = 1 - 1e-8 rounds to 1 and never decays.

    With `rising`, teacher_prob is 1 minus this; the other parameters still describe the decay.

    Args:
      k: the factor per step, in (0, 1).
      reach_teacher_prob: the value to reach, above 0 and in [floor, 1); by default 0.05, or the
        floor if that is higher. No such schedule reaches 0.
      reach_step: when to reach it, counted from the start of training and not from first_step.
      reach_fraction: when to reach it, as a share of num_steps; 1 if neither k nor a step is given.
      floor: the lowest value, in [0, 1).
      first_step: the last step at the initial value, >= 0.
      rising: whether to return 1 minus the decay.
      num_steps: the training's length, needed where neither k nor reach_step is given.

    Raises:
      ValueError: a parameter is out of range, or two exclude each other; k >= 1 or k <= 0 would
        leave [0, 1].

    Example:
      >>> schedule = exponential(0.9999)
      >>> [round(float(schedule(step)), 4) for step in (0, 1000, 10_000)]
      [1.0, 0.9048, 0.3679]
      >>> schedule = exponential(reach_teacher_prob=0.5, reach_step=1000)
      >>> [round(float(schedule(step)), 4) for step in (0, 1000, 2000)]
      [1.0, 0.5, 0.25]
      >>> schedule = exponential(reach_teacher_prob=0.5, reach_step=1000, rising=True)
      >>> [round(float(schedule(step)), 4) for step in (0, 1000, 2000)]
      [0.0, 0.5, 0.75]
    """
    floor = _floor("exponential", floor, 1.0)
    first_step = _step("exponential", "first_step", first_step, 0)
    rising = _flag("exponential", "rising", rising)
    goal = _Goal("exponential", reach_teacher_prob, reach_step, reach_fraction, num_steps)
    if k is None:
        p, steps = goal.reached(floor, 1.0, first_step, lowest=0.05)
        k = math.exp(math.log(p) / steps)
    else:
        goal.refuse_beside("k")
    k = _number("exponential", "k", k, "in (0, 1)")
    _check("exponential", "k", k, 0 < k < 1, "in (0, 1)")
    return partial(_exponential, k=k, floor=floor, first_step=first_step, rising=rising)


def inverse_sigmoid(
    k: float | None = None,
    *,
    reach_teacher_prob: float | None = None,
    reach_step: int | None = None,
    reach_fraction: float | None = None,
    floor: float = 0.0,
    first_step: int = 0,
    start: float | None = None,
    rising: bool = False,
    num_steps: int | None = None,
) -> partial[jax.Array]:
    """Stays high, falls, flattens out (Bengio et al. 2015, arXiv:1506.03099, section 2.4).

        teacher_prob(step) = max(floor, k / (k + exp(i / k))),   i = max(step - first_step, 0)

    It is computed as sigmoid(log k - i / k), because exp(i / k) overflows float32 from i = 88.7 * k
    on. It is k / (k + 1) at i = 0, not 1, and 0.5 at i = k * log k, where its slope is
    -1 / (4 * k). With `start`, it is the normalised form of OpenNMT (Lua), which begins at exactly
    that value:

        teacher_prob(step) = max(floor, start * k / (k + exp(i / k) - 1))

    Either `k` says how slowly, or `reach_teacher_prob` and `reach_step` say what to reach and when,
    and it is solved for k, in double precision, with W Lambert's function:

        n = reach_step - first_step = k * log(k * (1 - p) / p),   p = reach_teacher_prob
        k = n / W(n * (1 - p) / p);   with start, n = k * log(1 + k * (start - p) / p)

    With `rising`, teacher_prob is 1 minus this, so 1 / (k + 1) at i = 0; the other parameters still
    describe the decay.

    Args:
      k: how slowly it falls, in [1, 1e30].
      reach_teacher_prob: the value to reach, above 0, in [floor, 1) and below the start; by default
        0.05, or the floor if that is higher.
      reach_step: when to reach it, counted from the start of training and not from first_step; late
        enough for a k >= 1.
      reach_fraction: when to reach it, as a share of num_steps; 1 if neither k nor a step is given.
      floor: the lowest value, in [0, 1) and not above the start.
      first_step: the last step at the initial value, >= 0.
      rising: whether to return 1 minus the decay.
      start: None for the paper's form; in (0, 1] for the normalised one.
      num_steps: the training's length, needed where neither k nor reach_step is given.

    Raises:
      ValueError: a parameter is out of range, or two exclude each other; the message names the
        first step that can be reached.

    Example:
      >>> schedule = inverse_sigmoid(500)
      >>> [round(float(schedule(step)), 3) for step in (0, 3107, 4206, 10_000_000)]
      [0.998, 0.5, 0.1, 0.0]
      >>> float(inverse_sigmoid(500, start=1.0)(0))
      1.0
      >>> schedule = inverse_sigmoid(500, rising=True)
      >>> [round(float(schedule(step)), 3) for step in (0, 3107, 4206, 10_000_000)]
      [0.002, 0.5, 0.9, 1.0]
      >>> round(inverse_sigmoid(reach_teacher_prob=0.1, reach_step=4206).keywords["k"], 1)
      500.0
    """
    name = "inverse_sigmoid"
    start = _start(name, start)
    first_step = _step(name, "first_step", first_step, 0)
    rising = _flag(name, "rising", rising)
    goal = _Goal(name, reach_teacher_prob, reach_step, reach_fraction, num_steps)
    if k is None:
        highest = 1.0 if start is None else start
        p, steps = goal.reached(_floor(name, floor, highest), highest, first_step, lowest=0.05)
        k = _solved_k(goal, p, steps, first_step, start)
    else:
        goal.refuse_beside("k")
    k = _number(name, "k", k, "in [1, 1e30]")
    _check(name, "k", k, 1 <= k <= _LARGEST, "in [1, 1e30]")
    floor = _floor(name, floor, k / (k + 1) if start is None else start)
    return partial(
        _inverse_sigmoid, k=k, floor=floor, first_step=first_step, start=start, rising=rising
    )


def accuracy(*, scale: float = 1.0, decay: float = 0.99, floor: float = 0.0) -> FeedbackSchedule:
    """Falls as the model gets better: it follows the token accuracy of training.

        teacher_prob = max(floor, 1 - scale * a)

        a = sum_i decay^(n - i) right_i / sum_i decay^(n - i) tokens_i,   i = 1 ... n

    after n updates, where `right_i` of the `tokens_i` target tokens of update i were predicted
    correctly after whatever was fed there. Before the first update a is 0. So the model's own
    tokens are fed as often as they are likely to be right, and nothing depends on the number of
    steps. It is the idea of dynamic scheduled sampling (Lin et al. 2023, arXiv:2301.13753), without
    their imitation loss.

    The objective must have the sum "token_accuracy".

    Args:
      scale: the share of own tokens at an accuracy of 1, above which it grows no more if it is
        above 1; in (0, 1e30].
      decay: the weight of an update relative to the next one, in [0, 1): about the last
        1 / (1 - decay) updates count; 0 for the last one only.
      floor: the lowest value, in [0, 1).

    Raises:
      ValueError: a parameter is out of range; or, on an update, the objective has no
        "token_accuracy".

    Example:
      >>> schedule = accuracy(scale=0.5, decay=0.5)
      >>> state = schedule.init()
      >>> float(schedule.teacher_prob(0, state))
      1.0
      >>> for right in (0.0, 6.0):
      ...     state = schedule.update(state, {"token_accuracy": Mean(right, 10.0)})
      >>> round(float(schedule.teacher_prob(2, state)), 6)  # a = 6 / 15
      0.8
    """
    scale = _number("accuracy", "scale", scale, "in (0, 1e30]")
    _check("accuracy", "scale", scale, 0 < scale <= _LARGEST, "in (0, 1e30]")
    decay = _number("accuracy", "decay", decay, "in [0, 1)")
    _check("accuracy", "decay", decay, 0 <= decay < 1, "in [0, 1)")
    floor = _floor("accuracy", floor, 1.0)
    return FeedbackSchedule(
        _no_tokens,
        partial(_with_accuracy, decay=decay),
        partial(_one_minus_accuracy, scale=scale, floor=floor),
    )


SCHEDULES: dict[str, Callable[..., partial[jax.Array]]] = {
    factory.__name__: factory
    for factory in (
        teacher_forcing,
        constant,
        linear,
        exponential,
        inverse_sigmoid,
        free_running,
    )
}
"""The schedules of the step by name, as configs and `make_schedule` know them."""

FEEDBACK_SCHEDULES: dict[str, Callable[..., FeedbackSchedule]] = {"accuracy": accuracy}
"""The schedules with a state by name, as configs know them."""


def as_feedback(schedule: Schedule | FeedbackSchedule) -> FeedbackSchedule:
    """Any schedule as one with a state; that of an ordinary schedule is empty.

    Example:
      >>> schedule = as_feedback(constant(0.75))
      >>> schedule.init(), float(schedule.teacher_prob(10, ()))
      ((), 0.75)
    """
    if isinstance(schedule, FeedbackSchedule):
        return schedule
    return FeedbackSchedule(tuple, lambda state, sums: state, lambda step, state: schedule(step))


def make_schedule(name: str, **parameters: float | int | None) -> partial[jax.Array]:
    """Makes a schedule of the step by its name, for configs.

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
    if name in FEEDBACK_SCHEDULES:
        raise ValueError(f"schedule is {name!r}, which is none of the step alone; call {name}()")
    check_known("schedule", name, SCHEDULES)
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


def _linear(
    step: ArrayLike, *, k: float, c: float, floor: float, first_step: int, rising: bool
) -> jax.Array:
    return _bounded(k - c * _steps_since(first_step, step), floor, rising)


def _exponential(
    step: ArrayLike, *, k: float, floor: float, first_step: int, rising: bool
) -> jax.Array:
    return _bounded(jnp.exp(_steps_since(first_step, step) * math.log(k)), floor, rising)


def _inverse_sigmoid(
    step: ArrayLike, *, k: float, floor: float, first_step: int, start: float | None, rising: bool
) -> jax.Array:
    x = _steps_since(first_step, step) / k
    if start is None:
        return _bounded(jax.nn.sigmoid(math.log(k) - x), floor, rising)
    log_expm1 = x + jnp.log(-jnp.expm1(-x))  # -inf at 0, where the sigmoid is 1
    return _bounded(start * jax.nn.sigmoid(math.log(k) - log_expm1), floor, rising)


def _no_tokens() -> Mean:
    return Mean(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))


def _with_accuracy(state: Mean, sums: MetricSums, *, decay: float) -> Mean:
    """The moving sums of right tokens and of all tokens, with those of one more update."""
    if "token_accuracy" not in sums:
        others = [repr(name) for name in sums if name not in ("teacher_prob", "gradient_norm")]
        raise ValueError(
            "accuracy follows the metric sum 'token_accuracy', which this objective does not have;"
            f" it has {', '.join(others)}"
        )
    total, weight = sums["token_accuracy"]
    return Mean(decay * state.total + total, decay * state.weight + weight)


def _one_minus_accuracy(step: ArrayLike, state: Mean, *, scale: float, floor: float) -> jax.Array:
    moving = state.total / jnp.maximum(state.weight, jnp.finfo(jnp.float32).tiny)
    return _bounded(1 - scale * moving, floor, rising=False)


def _steps_since(first_step: int, step: ArrayLike) -> jax.Array:
    """The i of the formulas; the maximum comes first, so that an unsigned step cannot wrap."""
    return (jnp.maximum(step, first_step) - first_step).astype(jnp.float32)


def _bounded(decay: jax.Array, floor: float, rising: bool) -> jax.Array:
    """The teacher_prob of a decay: not below the floor, and mirrored if it is to rise."""
    teacher_prob = jnp.clip(decay, floor, 1.0)
    return (1 - teacher_prob if rising else teacher_prob).astype(jnp.float32)


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


def _flag(schedule: str, name: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{schedule}: {name} must be True or False, not {value!r}")
    return value


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


class _Goal(NamedTuple):
    """The teacher_prob that a schedule is to reach, and when; None for what was not given."""

    schedule: str
    reach_teacher_prob: float | None
    reach_step: int | None
    reach_fraction: float | None
    num_steps: int | None

    def refuse_beside(self, name: str) -> None:
        """Refuses a goal beside the parameter that says how fast to fall."""
        for key in ("reach_teacher_prob", "reach_step", "reach_fraction"):
            if getattr(self, key) is not None:
                raise ValueError(f"{name} and {key} both shape {self.schedule}; set one of them")

    def reached(
        self, floor: float, start: float, first_step: int, lowest: float = 0.0
    ) -> tuple[float, int]:
        """The teacher_prob to reach, and in how many steps from first_step on.

        Args:
          floor: the schedule's.
          start: the schedule's highest value.
          first_step: the schedule's.
          lowest: what is reached where nothing else is given; above 0, 0 cannot be reached.
        """
        step = self._step()
        try:
            step = _step(self.schedule, "reach_step", step, first_step + 1)
        except ValueError as error:
            raise ValueError(f"{error}{self.remark}") from None
        p = max(lowest, floor) if self.reach_teacher_prob is None else self.reach_teacher_prob
        bracket = "(" if lowest and floor == 0 else "["
        allowed = f"in {bracket}{floor:g}, {start:g})"
        p = _number(self.schedule, "reach_teacher_prob", p, allowed)
        holds = floor <= p < start and (p > 0 or not lowest)
        _check(self.schedule, "reach_teacher_prob", p, holds, allowed)
        return p, step - first_step

    @property
    def remark(self) -> str:
        """Where the step comes from, for messages."""
        return " (the step is reach_fraction of num_steps)" if self.reach_step is None else ""

    def _step(self) -> int:
        if self.reach_step is not None:
            if self.reach_fraction is not None:
                raise ValueError("reach_step and reach_fraction both say when; set one of them")
            return self.reach_step
        if self.num_steps is None:
            how_fast = "c" if self.schedule == "linear" else "k"
            raise ValueError(
                f"{self.schedule} needs {how_fast}, or reach_step, or num_steps with reach_fraction"
            )
        fraction = 1.0 if self.reach_fraction is None else self.reach_fraction
        fraction = _number(self.schedule, "reach_fraction", fraction, "above 0")
        holds = math.isfinite(fraction) and fraction > 0
        _check(self.schedule, "reach_fraction", fraction, holds, "above 0")
        return max(1, round(fraction * self.num_steps))


def _solved_k(goal: _Goal, p: float, num_steps: int, first_step: int, start: float | None) -> float:
    """The k of the inverse-sigmoid schedule that is at p after so many steps."""
    highest = 1.0 if start is None else start
    offset = 0.0 if start is None else p  # n = k * log((k * (highest - p) + offset) / p), in both

    def steps_to_target(k: float) -> float:
        return k * (math.log(k * (highest - p) + offset) - math.log(p))

    earliest = max(1, math.ceil(steps_to_target(1.0)))
    if num_steps < earliest:
        raise ValueError(
            f"{goal.schedule}: reach_step must be at least {first_step + earliest} for"
            f" reach_teacher_prob={p:g} (k >= 1), not {first_step + num_steps}{goal.remark}"
        )
    # Newton's method, started to the right of the root of a convex function, falls monotonically.
    k = num_steps + math.e * p / (highest - p)
    for _ in range(100):
        slope = steps_to_target(k) / k + k * (highest - p) / (k * (highest - p) + offset)
        following = k - (steps_to_target(k) - num_steps) / slope
        if following >= k:
            break
        k = following
    return max(k, 1.0)
