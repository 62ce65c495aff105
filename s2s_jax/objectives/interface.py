"""What an objective is, and what exact theory says of it."""

from collections.abc import Callable

import jax
import numpy as np

from s2s_jax.batch import Batch
from s2s_jax.metrics import MetricSums
from s2s_jax.models.interface import Params
from s2s_jax.theory.chains import Chains

Objective = Callable[[Params, Batch, jax.Array, jax.Array], tuple[jax.Array, MetricSums]]
"""(params, batch, key, teacher_prob) -> (loss, metric sums).

The sums contain at least "loss". If exact theory predicts what training on the objective converges
to, the function has an attribute `optimum`: see `optimum_of`. If teacher_prob makes no difference,
it says so with an attribute: see `ignores_teacher_prob`.
"""

Optimum = Callable[[Chains, float], tuple[np.ndarray, np.ndarray]]
"""(chains, teacher_prob) -> KL(truth || optimum) of each chain in nats, and whether it is known."""


def ignores_teacher_prob(objective: Objective) -> bool:
    """Whether teacher_prob makes no difference to an objective, so that a schedule has no effect.

    This is the objective's own attribute `ignores_teacher_prob`; without it, the answer is no.

    Example:
      >>> from s2s_jax.models.tabular import make_tabular_model
      >>> from s2s_jax.objectives import make_cross_entropy, make_reinforce
      >>> model = make_tabular_model(8, 8)
      >>> [ignores_teacher_prob(make(model)) for make in (make_reinforce, make_cross_entropy)]
      [True, False]
    """
    return getattr(objective, "ignores_teacher_prob", False)


def optimum_of(objective: Objective) -> Optimum | None:
    """What training on an objective converges to according to exact theory; None if not known.

    This is the objective's own attribute `optimum`; without that attribute, nothing is claimed.

    Example:
      >>> from s2s_jax.models.tabular import make_tabular_model
      >>> from s2s_jax.objectives import RolloutOptions, make_cross_entropy
      >>> from s2s_jax.theory.chains import make_chain
      >>> model = make_tabular_model(2, 2)
      >>> chain = make_chain((0.7, 0.3), ((0.9, 0.1), (0.2, 0.8)), length=3)
      >>> objective = make_cross_entropy(model, rollout=RolloutOptions(coin="sequence"))
      >>> optimum_of(objective)(chain, 0.5)[0].round(6).tolist()
      [0.133008]
      >>> optimum_of(make_cross_entropy(model, label_smoothing=0.1)) is None
      True
    """
    return getattr(objective, "optimum", None)
