"""The methods that `s2s verify` trains with, and what exact theory says of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import jax.numpy as jnp
import numpy as np

from s2s_jax.batch import NUM_RESERVED
from s2s_jax.feeding import position_probs
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.verification.chain import Chain
from s2s_jax.lab.verification.recipes import LIGHT_RECIPES, QUICK_RECIPES, RECIPES, Recipe
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.names import did_you_mean
from s2s_jax.objectives import (
    Objective,
    RolloutOptions,
    make_cross_entropy,
    make_minimum_risk,
    make_reinforce,
)
from s2s_jax.objectives.chain_teacher import make_chain_teacher
from s2s_jax.theory.completion import completion_optimum
from s2s_jax.theory.distillation import distillation_optimum
from s2s_jax.theory.optimum import scheduled_sampling_optimum
from s2s_jax.theory.raml import raml_optimum
from s2s_jax.theory.recursion import TrainingOptimum
from s2s_jax.theory.risk import MinimumRisk, minimum_risk

TEACHER_PROBS = (1.0, 0.75, 0.5, 0.25, 0.0)

_POSITION_K = {"linear": 3.0, "exponential": 0.7, "inverse_sigmoid": 1.5}


@dataclass(frozen=True)
class Method:
    """A training method whose result is known exactly.

    Attributes:
      group: what `select_methods` calls it and its variants.
      name: what the table calls it.
      make_objective: (model, chain) -> objective.
      theory: (chain, teacher_prob) -> what it converges to.
      teacher_probs: it is trained once for each; empty if teacher_prob has no effect.
      needs_reserved: whether symbols must not have reserved ids.
      cost: what its samples are scored with, and the result is judged by; "" if the result is
        judged by its divergence.
      recipes: how each model is trained.
    """

    group: str
    name: str
    make_objective: Callable[[Seq2SeqModel, Chain], Objective]
    theory: Callable[[Chain, float], TrainingOptimum | MinimumRisk]
    teacher_probs: tuple[float, ...]
    needs_reserved: bool = True
    cost: str = ""
    recipes: Mapping[str, Recipe] = field(default_factory=lambda: LIGHT_RECIPES)


def make_sampling(coin: str, feed: str) -> Method:
    """Scheduled sampling; for the arguments, see `s2s_jax.objectives.RolloutOptions`."""
    options = RolloutOptions(coin=coin, feed=feed)
    return Method(
        "sampling",
        f"sampling, {coin}, {feed}",
        lambda model, chain: make_cross_entropy(model, rollout=options),
        _on(partial(scheduled_sampling_optimum, coin=coin, feed=feed)),
        TEACHER_PROBS,
        needs_reserved=False,
        recipes=RECIPES,
    )


def make_noise(source: str) -> Method:
    """Noise in place of the model's own symbols; source is "uniform" or "unigram"."""

    def shares(chain: Chain) -> np.ndarray:
        even = np.full(chain.num_symbols, 1 / chain.num_symbols)
        return even if source == "uniform" else chain.symbol_shares()

    def objective(model: Seq2SeqModel, chain: Chain) -> Objective:
        unigram_probs = None
        if source == "unigram":
            unigram_probs = np.pad(shares(chain), (NUM_RESERVED, 0))
        options = RolloutOptions(source=source)
        return make_cross_entropy(model, rollout=options, unigram_probs=unigram_probs)

    def theory(chain: Chain, teacher_prob: float) -> TrainingOptimum:
        return _on(partial(scheduled_sampling_optimum, noise=shares(chain)))(chain, teacher_prob)

    return Method("noise", f"noise, {source}", objective, theory, (0.75, 0.5, 0.25, 0.0))


def make_positions(position: str, k: float) -> Method:
    """Scheduled sampling with a schedule over positions; see `s2s_jax.feeding.position_probs`."""
    options = RolloutOptions(position=position, position_k=k)

    def theory(chain: Chain, teacher_prob: float) -> TrainingOptimum:
        row = position_probs(jnp.float32(teacher_prob), chain.length - 1, position, k)
        return scheduled_sampling_optimum(
            chain.initial, chain.transition, chain.length, np.asarray(row, np.float64)
        )

    return Method(
        "positions",
        f"positions, {position}",
        lambda model, chain: make_cross_entropy(model, rollout=options),
        theory,
        (0.5, 0.0),
        needs_reserved=False,
    )


def make_raml(tau: float) -> Method:
    """Reward augmented maximum likelihood at a temperature."""
    return Method(
        "raml",
        f"raml, tau {tau:g}",
        lambda model, chain: make_cross_entropy(model, target="raml", tau=tau),
        lambda chain, _: raml_optimum(chain.initial, chain.transition, chain.length, tau),
        (1.0,),
    )


def make_ocd() -> Method:
    """Optimal completion distillation, with the model's own symbols fed."""
    return Method(
        "ocd",
        "ocd",
        lambda model, chain: make_cross_entropy(model, target="ocd", margin=0),
        _on(completion_optimum),
        (1.0, 0.5, 0.0),
    )


def make_distillation(divergence: str) -> Method:
    """Distillation from the truth; see `s2s_jax.objectives.distillation` for the divergence."""

    def objective(model: Seq2SeqModel, chain: Chain) -> Objective:
        teacher = make_chain_teacher(
            chain.initial,
            chain.transition,
            np.eye(chain.num_symbols),
            chain.length,
            source_symbols=np.full(NUM_RESERVED, -1),
            target_ids=NUM_RESERVED + np.arange(chain.num_symbols),
            vocab_size=model.vocab_size,
        )
        return make_cross_entropy(
            model, target="teacher", teacher=teacher, divergence=divergence, margin=0
        )

    return Method(
        "distillation",
        f"distillation, {divergence}",
        objective,
        _on(distillation_optimum),
        (0.5, 0.0),
        recipes=QUICK_RECIPES,
    )


def make_risk(name: str, cost: str) -> Method:
    """Training by cost; name is "minimum risk" or "reinforce", cost as in `minimum_risk`."""

    def objective(model: Seq2SeqModel, chain: Chain) -> Objective:
        if name == "reinforce":
            return make_reinforce(model, cost=cost, margin=0)
        # A small alpha, such as the default, only scales the gradient, which Adam undoes. A large
        # one slows the end of the training: rare samples then have almost no share in the risk.
        return make_minimum_risk(model, cost=cost, margin=0)

    return Method(
        "risk",
        f"{name}, {cost}",
        objective,
        lambda chain, _: minimum_risk(chain.initial, chain.transition, chain.length, cost),
        (),
        cost=cost,
        recipes=QUICK_RECIPES,
    )


def _on(
    optimum: Callable[..., TrainingOptimum],
) -> Callable[[Chain, float], TrainingOptimum]:
    return lambda chain, teacher_prob: optimum(
        chain.initial, chain.transition, chain.length, teacher_prob
    )


METHODS = (
    # A coin per batch has the same optimum as one per sequence.
    *(make_sampling(coin, feed) for coin in ("token", "sequence") for feed in ("sample", "argmax")),
    make_noise("uniform"),
    make_noise("unigram"),
    *(make_positions(position, k) for position, k in _POSITION_K.items()),
    make_raml(0.5),
    make_raml(1.0),
    make_ocd(),
    make_distillation("forward_kl"),
    make_distillation("reverse_kl"),
    *(make_risk(n, c) for n in ("minimum risk", "reinforce") for c in ("edit_rate", "exact_match")),
)
"""All methods, in the order of the table."""

GROUPS = tuple(dict.fromkeys(method.group for method in METHODS))
"""The names that `select_methods` knows."""


def select_methods(names: str) -> tuple[Method, ...]:
    """The methods of some groups, in the order of `METHODS`.

    Args:
      names: of groups, separated by commas.

    Raises:
      LabError: there is no such group.

    Example:
      >>> [method.name for method in select_methods("ocd,raml")]
      ['raml, tau 0.5', 'raml, tau 1', 'ocd']
    """
    chosen = [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in GROUPS:
            raise LabError(f"methods has {name!r}; {did_you_mean(name, GROUPS)}")
    return tuple(method for method in METHODS if method.group in chosen)
