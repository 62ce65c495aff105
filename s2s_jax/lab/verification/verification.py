"""Compares what the real train step converges to with what theory predicts."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from s2s_jax.batch import NUM_RESERVED
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.verification.chain import Chain
from s2s_jax.lab.verification.measures import expected_costs, sequences_of, trained_tables
from s2s_jax.lab.verification.methods import METHODS, Method
from s2s_jax.lab.verification.population import Lanes, train_population
from s2s_jax.lab.verification.recipes import RECIPES, Recipe
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.objectives import Objective
from s2s_jax.theory.information import kl_divergence
from s2s_jax.theory.optimum import sequence_probs
from s2s_jax.theory.recursion import TrainingOptimum
from s2s_jax.theory.risk import MinimumRisk
from s2s_jax.training import TrainState, init_train_state


@dataclass(frozen=True)
class VerifiedCase:
    """One training run and its prediction.

    Attributes:
      model: a name of `RECIPES`.
      method: the name of a `Method`.
      teacher_prob: see `s2s_jax.rollout.make_rollout`; None if it has no effect.
      measure: what is predicted: "KL", KL(P || Q) in nats, or "cost", the expected cost of a
        sample.
      predicted: its value at the optimum; None where it is not identified.
      trained: its value for the trained model.
      largest_difference: the largest |q trained - q predicted| over the prefixes that are ever fed;
        None if q is not predicted.
      first_difference: the same for the first symbol alone. In scheduled sampling its optimum is
        the truth; a gradient through the sampled symbols would move it.
      num_prefixes: the number of all prefixes.
      num_never_fed: how many of these are never fed; their q is not identified and not compared.
      lands: whether the training ended at the prediction.
    """

    model: str
    method: str
    teacher_prob: float | None
    measure: str
    predicted: float | None
    trained: float
    largest_difference: float | None
    first_difference: float | None
    num_prefixes: int
    num_never_fed: int
    lands: bool

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        word = "lands" if self.lands else "MISSES"
        if not self.num_never_fed:
            return word
        return f"{word}; {self.num_never_fed} of {self.num_prefixes} prefixes never fed"


def verify(
    chain: Chain,
    models: Sequence[str] = tuple(RECIPES),
    *,
    methods: Sequence[Method] = METHODS,
    seed: int = 0,
    recipes: Mapping[str, Recipe] | None = None,
    report: Callable[[str], None] = lambda line: None,
    jit: Callable[..., Any] = jax.jit,
) -> list[VerifiedCase]:
    """Trains with the real train step and compares with exact theory.

    The step is `make_train_step` with each method's objective, jitted and vmapped over
    teacher_prob. Batches hold every sequence of the chain in proportion to its probability, so that
    sampling the data adds no error.

    Args:
      chain: from `make_markov_chain`.
      models: names from `RECIPES`.
      methods: what to train with.
      seed: seed of initial weights, coins and samples.
      recipes: used instead of the methods' own.
      report: takes a line of progress.
      jit: compiles functions; tests pass a faster one.

    Returns:
      One row per training run.

    Raises:
      LabError: a method cannot be used on this chain; nothing has been trained.
    """
    trainings = [
        _prepare(chain, name, method, (recipes or method.recipes)[name], seed, jit)
        for name in models
        for method in methods
    ]
    rows: list[VerifiedCase] = []
    begin = time.perf_counter()
    for number, training in enumerate(trainings):

        def say(step: int, training: "_Training" = training, number: int = number):
            seconds = time.perf_counter() - begin
            report(
                f"{number + 1}/{len(trainings)}  {training.name}, {training.method.name}:"
                f" step {step}/{training.recipe.num_steps}  {seconds:.0f} s"
            )

        rows += _judge(training, _train(training, say))
    return rows


@dataclass(frozen=True)
class _Training:
    """A model that is ready to be trained with a method, once for each teacher_prob."""

    chain: Chain
    name: str
    method: Method
    recipe: Recipe
    ids: range
    model: Seq2SeqModel
    objective: Objective
    optimizer: optax.GradientTransformation
    start: Callable[[], TrainState]
    jit: Callable[..., Any]


def _prepare(
    chain: Chain, name: str, method: Method, recipe: Recipe, seed: int, jit: Callable[..., Any]
) -> _Training:
    first_id = max(recipe.first_id, NUM_RESERVED if method.needs_reserved else 0)
    model = recipe.make_model(chain.num_symbols, chain.length, first_id)
    optimizer = optax.adam(
        optax.exponential_decay(recipe.learning_rate, recipe.num_steps, recipe.decay)
    )
    try:
        objective = method.make_objective(model, chain)
    except ValueError as error:
        raise LabError(f"{method.name} does not work on this chain: {error}") from error
    init = jit(partial(init_train_state, model, optimizer))
    return _Training(
        chain,
        name,
        method,
        recipe,
        range(first_id, first_id + chain.num_symbols),
        model,
        objective,
        optimizer,
        lambda: init(jax.random.key(seed)),
        jit,
    )


def _train(training: _Training, say: Callable[[int], None]) -> Params:
    recipe, chain = training.recipe, training.chain
    return train_population(
        training.objective,
        training.optimizer,
        training.start(),
        sequences_of(training.ids, chain.length),
        Lanes(
            jnp.array(training.method.teacher_probs or (1.0,), jnp.float32),
            jnp.cumsum(jnp.array(chain.sequence_probs())),
        ),
        num_rows=recipe.num_rows,
        num_steps=recipe.num_steps,
        averaged=recipe.averaged,
        say=say,
        jit=training.jit,
    )


def _judge(training: _Training, params: Params) -> list[VerifiedCase]:
    chain, method, model = training.chain, training.method, training.model
    optima = [method.theory(chain, one) for one in method.teacher_probs or (1.0,)]
    tables = trained_tables(model, params, training.ids, chain.length, training.jit)
    costs = [0.0] * len(optima)
    if method.cost:
        gold = np.asarray(sequences_of(training.ids, chain.length).target)
        costs = expected_costs(
            model, params, gold, chain.sequence_probs(), method.cost, training.jit
        )
    rows = []
    for lane, optimum in enumerate(optima):
        teacher_prob = method.teacher_probs[lane] if method.teacher_probs else None
        if isinstance(optimum, MinimumRisk):
            row = _judge_cost(training, teacher_prob, optimum, costs[lane])
        else:
            row = _judge_divergence(training, teacher_prob, optimum, tables[lane])
        rows.append(row)
    return rows


def _judge_cost(
    training: _Training, teacher_prob: float | None, optimum: MinimumRisk, cost: float
) -> VerifiedCase:
    lands = abs(cost - optimum.cost) <= training.recipe.cost_tolerance
    method = training.method.name
    return VerifiedCase(
        training.name, method, teacher_prob, "cost", optimum.cost, cost, None, None, 0, 0, lands
    )


def _judge_divergence(
    training: _Training,
    teacher_prob: float | None,
    optimum: TrainingOptimum,
    trained: tuple[np.ndarray, ...],
) -> VerifiedCase:
    recipe = training.recipe
    num_averaged = recipe.num_rows * recipe.averaged * recipe.num_steps
    differences, excesses = [], []
    for q, expected, fed in zip(trained, optimum.probs, optimum.fed_probs, strict=True):
        difference = np.abs(q - expected)[fed > 0]
        # The deviation that chance allows for this number of fed tokens: four standard errors.
        variance = (expected * (1 - expected))[fed > 0] / (fed[fed > 0] * num_averaged)[:, None]
        differences.append(difference.max())
        excesses.append((difference - np.maximum(recipe.q_tolerance, 4 * variance**0.5)).max())
    truth = training.chain.sequence_probs()
    kl = float(kl_divergence(truth, sequence_probs(trained).reshape(-1)))
    qs_land, kl_lands = max(excesses) <= 0, abs(kl - optimum.kl) <= recipe.kl_tolerance
    if not optimum.kl_is_identified:
        lands = qs_land
    elif training.name == "tabular":
        lands = qs_land and kl_lands
    else:
        lands = kl_lands
    return VerifiedCase(
        training.name,
        training.method.name,
        teacher_prob,
        "KL",
        optimum.kl if optimum.kl_is_identified else None,
        kl,
        float(max(differences)),
        float(differences[0]),
        sum(fed.size for fed in optimum.fed_probs),
        sum(int((fed == 0).sum()) for fed in optimum.fed_probs),
        bool(lands and differences[0] <= recipe.q_tolerance),
    )
