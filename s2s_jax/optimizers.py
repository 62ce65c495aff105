"""The optimisers that configs know by name; any other optax optimiser can also be used."""

from collections.abc import Callable

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


def evaluation_params(opt_state: optax.OptState, params: optax.Params) -> optax.Params:
    """The parameters to evaluate: the trained ones, or their average for a schedule-free optimiser.

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
        if isinstance(state, ScheduleFreeState):
            return schedule_free_eval_params(state, params)
    return params


def averages_params(opt_state: optax.OptState) -> bool:
    """Whether `evaluation_params` differ from the parameters that are trained."""
    return any(isinstance(state, ScheduleFreeState) for state in _states(opt_state))


def _states(state: optax.OptState):
    """The states of a chain, outermost first."""
    yield state
    if isinstance(state, tuple) and not isinstance(state, ScheduleFreeState):
        for inner in state:
            yield from _states(inner)
