"""The optimisers that configs know by name; any other optax optimiser can also be used."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax.contrib import ScheduleFreeState, schedule_free, schedule_free_eval_params

LearningRate = optax.ScalarOrSchedule
"""A number, or a function: number of updates made before -> number."""


def adamw(
    learning_rate: LearningRate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""
    return optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)


def adam(
    learning_rate: LearningRate, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980)."""
    return optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)


def sgd(
    learning_rate: LearningRate, *, momentum: float = 0.0, nesterov: bool = False
) -> optax.GradientTransformation:
    """Stochastic gradient descent, with momentum unless it is 0."""
    return optax.sgd(learning_rate, momentum=momentum or None, nesterov=nesterov)


def adafactor(
    learning_rate: LearningRate, *, weight_decay_rate: float = 0.0, momentum: float = 0.0
) -> optax.GradientTransformation:
    """Adafactor (Shazeer & Stern 2018, arXiv:1804.04235): second moments by row and column."""
    return optax.adafactor(
        learning_rate,
        weight_decay_rate=weight_decay_rate or None,
        momentum=momentum or None,
    )


def lion(
    learning_rate: LearningRate,
    *,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Lion (Chen et al. 2023, arXiv:2302.06675); needs a third of AdamW's rate or less."""
    return optax.lion(learning_rate, b1=b1, b2=b2, weight_decay=weight_decay)


def schedule_free_adamw(
    learning_rate: LearningRate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """AdamW that averages its weights instead of decaying its rate (Defazio et al. 2024).

    See arXiv:2405.15682. Use it with a constant rate after the warm-up. The weights to evaluate
    differ from those that it trains: see `evaluation_params`.
    """
    inner = optax.adamw(learning_rate, b1=0.0, b2=b2, eps=eps, weight_decay=weight_decay)
    return schedule_free(inner, learning_rate, b1=b1)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    factory.__name__: factory
    for factory in (adamw, adam, sgd, adafactor, lion, schedule_free_adamw)
}
"""The names that `train.optimizer.name` accepts; `optax:NAME` is any other optax optimiser."""


class AverageState(NamedTuple):
    """The state of `with_average`.

    Attributes:
      num_updates: int32 scalar, the number of updates made.
      average: the average of the parameters, in float32 or more; those given before any update.
      inner: the state of the optimiser whose parameters are averaged.
    """

    num_updates: jax.Array
    average: optax.Params
    inner: optax.OptState


def with_average(
    optimizer: optax.GradientTransformation, decay: float
) -> optax.GradientTransformationExtraArgs:
    """Keeps an exponential average of the parameters beside any optimiser, to be evaluated.

        average_n = average_{n-1} + w_n (params_n - average_{n-1})
        w_n = (1 - decay) / (1 - decay ** n)

    This is the mean of params_1 ... params_n with weights proportional to decay ** (n - k), so it
    spans about 1 / (1 - decay) updates, and those before the first update have no share in it. It
    is the average of Kingma & Ba 2015 (arXiv:1412.6980, section 7.2), with their correction for the
    start. The updates are those of the optimiser, so training is not changed; `evaluation_params`
    gives the average. It costs one more copy of the parameters.

    Args:
      optimizer: any optax transformation whose updates are added to the parameters, whole: with
        clipping and everything else in it.
      decay: in (0, 1).

    Raises:
      ValueError: decay is not in (0, 1).

    Example:
      >>> import jax.numpy as jnp
      >>> optimizer, params = with_average(optax.sgd(1.0), 0.5), jnp.zeros(())
      >>> state = optimizer.init(params)
      >>> for _ in range(2):  # the parameters are 1, then 2
      ...     updates, state = optimizer.update(-jnp.ones(()), state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> round(float(evaluation_params(state, params)), 4)  # (1 + 2 * 2) / 3
      1.6667
    """
    if not 0.0 < decay < 1.0:
        raise ValueError(f"decay is {decay}; it must be in (0, 1)")
    inner, log_decay = optax.with_extra_args_support(optimizer), math.log(decay)

    def init(params: optax.Params) -> AverageState:
        # Copied, since a train step may donate both.
        average = jax.tree.map(
            lambda leaf: jnp.array(leaf, jnp.promote_types(leaf.dtype, jnp.float32)), params
        )
        return AverageState(jnp.zeros((), jnp.int32), average, inner.init(params))

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, AverageState]:
        if params is None:
            raise ValueError("params is None; an average of parameters needs them")
        updates, inner_state = inner.update(updates, state.inner, params, **extra)
        count = jnp.asarray(optax.safe_increment(state.num_updates))
        # expm1 keeps the digits that 1 - decay ** n would lose where decay is close to 1.
        weight = jnp.expm1(log_decay) / jnp.expm1(count * log_decay)
        average = jax.tree.map(
            lambda old, new: old + weight * (new.astype(old.dtype) - old),
            state.average,
            optax.apply_updates(params, updates),
        )
        return updates, AverageState(count, average, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def evaluation_params(opt_state: optax.OptState, params: optax.Params) -> optax.Params:
    """The parameters to evaluate: the trained ones, or their average if the optimiser keeps one.

    That of `with_average` comes before that of a schedule-free optimiser inside it.

    Args:
      opt_state: the state of any optimiser, in a chain or not.
      params: the trained parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> params, optimizer = jnp.ones(2), optax.chain(optax.clip(1.0), schedule_free_adamw(0.5))
      >>> state = optimizer.init(params)
      >>> for _ in range(2):
      ...     updates, state = optimizer.update(jnp.ones(2), state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> bool((evaluation_params(state, params) > params).all())
      True
      >>> evaluation_params(optax.sgd(0.1).init(params), params) is params
      True
    """
    for state in _states(opt_state):
        if isinstance(state, AverageState):
            return jax.tree.map(lambda one, leaf: one.astype(leaf.dtype), state.average, params)
        if isinstance(state, ScheduleFreeState):
            return schedule_free_eval_params(state, params)
    return params


def averages_params(opt_state: optax.OptState) -> bool:
    """Whether `evaluation_params` differ from the parameters that are trained."""
    kinds = AverageState | ScheduleFreeState
    return any(isinstance(state, kinds) for state in _states(opt_state))


def _states(state: optax.OptState):
    """The states of a chain, outermost first."""
    yield state
    if isinstance(state, tuple) and not isinstance(state, ScheduleFreeState):
        for inner in state:
            yield from _states(inner)
