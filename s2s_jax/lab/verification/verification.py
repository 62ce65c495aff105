"""Compares what the real train step converges to with what theory predicts."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from s2s_jax.batch import EOS, Batch
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.evaluation.divergence import symbol_probs
from s2s_jax.lab.verification.population import Lanes, train_population
from s2s_jax.lab.verification.recipes import RECIPES, Recipe
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.theory.chains import check_chain
from s2s_jax.theory.information import kl_divergence
from s2s_jax.theory.optimum import markov_sequence_probs, scheduled_sampling_optimum, sequence_probs
from s2s_jax.training import TrainState, init_train_state

TEACHER_PROBS = (1.0, 0.75, 0.5, 0.25, 0.0)
WAYS = tuple(itertools.product(("token", "sequence"), ("sample", "argmax")))
"""Every coin with every feed; a coin per batch has the same optimum as one per sequence."""

_MAX_TABLES = 64  # sequences of the chain, about as many as the tabular model has rows


@dataclass(frozen=True)
class VerifiedCase:
    """One training run and its prediction.

    Attributes:
      model: a name of `RECIPES`.
      coin: see `s2s_jax.rollout.make_rollout`.
      feed: see there.
      teacher_prob: see there.
      kl_predicted: KL(P || Q) of the optimum in nats; None where it is not identified.
      kl_trained: KL(P || Q) of the trained model, in nats.
      largest_difference: the largest |q trained - q predicted| over the prefixes that are ever fed.
      first_difference: the largest |Q1 - P1|. The optimum for the first token is the true
        distribution; a gradient through the sampled tokens would move it.
      num_prefixes: the number of all prefixes.
      num_never_fed: how many of these are never fed; their q is not identified and not compared.
      lands: whether the training ended at the prediction.
    """

    model: str
    coin: str
    feed: str
    teacher_prob: float
    kl_predicted: float | None
    kl_trained: float
    largest_difference: float
    first_difference: float
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


@dataclass(frozen=True)
class Chain:
    """The checked chain that models are trained on.

    Attributes:
      initial: [num_symbols] probabilities of the first symbol.
      transition: [num_symbols, num_symbols]; row a holds the probabilities of the symbol after a.
      length: number of symbols in a sequence.
    """

    initial: np.ndarray
    transition: np.ndarray
    length: int

    @property
    def num_symbols(self) -> int:
        """How many symbols there are."""
        return len(self.initial)


def make_markov_chain(initial: ArrayLike, transition: ArrayLike, length: int) -> Chain:
    """Makes a chain and checks that it is small enough to verify.

    Raises:
      LabError: the probabilities are invalid, or there are too many sequences.
    """
    try:
        start, matrix, _ = check_chain(initial, transition)
    except ValueError as error:
        raise LabError(f"the chain is invalid: {error}") from error
    longest = int(np.log(_MAX_TABLES + 0.5) / np.log(max(2, len(start))))
    if not 1 <= length <= longest:
        raise LabError(f"length is {length}; with {len(start)} symbols it must be 1 to {longest}")
    return Chain(start, matrix, length)


def verify(
    chain: Chain,
    models: Sequence[str] = tuple(RECIPES),
    *,
    ways: Sequence[tuple[str, str]] = WAYS,
    teacher_probs: Sequence[float] = TEACHER_PROBS,
    seed: int = 0,
    recipes: dict[str, Recipe] | None = None,
    report: Callable[[str], None] = lambda line: None,
    jit: Callable[..., Any] = jax.jit,
) -> list[VerifiedCase]:
    """Trains with the real train step and compares with `scheduled_sampling_optimum`.

    The step is `make_cross_entropy` with `make_train_step`, jitted and vmapped over teacher_prob.
    Batches hold every sequence of the chain in proportion to its probability, so that sampling the
    data adds no error.

    Args:
      chain: from `make_markov_chain`.
      models: names from `RECIPES`.
      ways: pairs of a coin and a feed.
      teacher_probs: one training run for each.
      seed: seed of initial weights, coins and samples.
      recipes: used instead of `RECIPES`.
      report: takes a line of progress.
      jit: compiles functions; tests pass a faster one.

    Returns:
      One row per training run.
    """
    recipes = recipes or RECIPES
    rows: list[VerifiedCase] = []
    begin = time.perf_counter()
    starts = {}
    for number, (name, (coin, feed)) in enumerate(itertools.product(models, ways)):
        if name not in starts:
            starts[name] = _make_start(chain, recipes[name], seed, jit)

        def say(step: int, name: str = name, coin: str = coin, feed: str = feed, number=number):
            total = len(models) * len(ways)
            seconds = time.perf_counter() - begin
            report(
                f"{number + 1}/{total}  {name}, coin {coin}, feed {feed}:"
                f" step {step}/{recipes[name].num_steps}  {seconds:.0f} s"
            )

        rows += _verify_way(
            chain, name, recipes[name], starts[name], coin, feed, teacher_probs, say, jit
        )
    return rows


@dataclass(frozen=True)
class _Start:
    """What all ways of a model share: compiled or sampled once."""

    model: Seq2SeqModel
    optimizer: optax.GradientTransformation
    state: TrainState


def _make_start(chain: Chain, recipe: Recipe, seed: int, jit: Callable[..., Any]) -> _Start:
    model = recipe.make_model(chain.num_symbols, chain.length)
    optimizer = optax.adam(
        optax.exponential_decay(recipe.learning_rate, recipe.num_steps, recipe.decay)
    )
    init = jit(partial(init_train_state, model, optimizer))
    return _Start(model, optimizer, init(jax.random.key(seed)))


def _verify_way(
    chain: Chain,
    name: str,
    recipe: Recipe,
    start: _Start,
    coin: str,
    feed: str,
    teacher_probs: Sequence[float],
    say: Callable[[int], None],
    jit: Callable[..., Any],
) -> list[VerifiedCase]:
    every = np.indices((chain.num_symbols,) * chain.length).reshape(chain.length, -1).T
    target = (every + recipe.first_id).astype(np.int32)
    source = np.full((len(every), 1), EOS, np.int32)
    sequences = Batch(source, source > 0, target, np.ones(target.shape, bool))
    joint = markov_sequence_probs(chain.initial, chain.transition, chain.length)
    params = train_population(
        start.model,
        start.optimizer,
        start.state,
        sequences,
        Lanes(jnp.array(teacher_probs, jnp.float32), jnp.cumsum(jnp.array(joint.reshape(-1)))),
        coin=coin,
        feed=feed,
        num_rows=recipe.num_rows,
        num_steps=recipe.num_steps,
        averaged=recipe.averaged,
        say=say,
        jit=jit,
    )
    ids = tuple(range(recipe.first_id, recipe.first_id + chain.num_symbols))
    tables = _symbol_tables(start.model, params, sequences, ids, jit)
    num_averaged = recipe.num_rows * recipe.averaged * recipe.num_steps
    rows = []
    for lane, teacher_prob in enumerate(teacher_probs):
        optimum = scheduled_sampling_optimum(
            chain.initial, chain.transition, chain.length, teacher_prob, coin=coin, feed=feed
        )
        trained = [table[lane] for table in tables]
        differences, excesses = [], []
        for q, expected, fed in zip(trained, optimum.probs, optimum.fed_probs, strict=True):
            difference = np.abs(q - expected)[fed > 0]
            # The deviation that chance allows for this number of fed tokens: four standard errors.
            variance = (expected * (1 - expected))[fed > 0] / (fed[fed > 0] * num_averaged)[:, None]
            differences.append(difference.max())
            excesses.append((difference - np.maximum(recipe.q_tolerance, 4 * variance**0.5)).max())
        kl = float(kl_divergence(joint.reshape(-1), sequence_probs(tuple(trained)).reshape(-1)))
        first = float(np.abs(trained[0] - chain.initial).max())
        qs_land, kl_lands = max(excesses) <= 0, abs(kl - optimum.kl) <= recipe.kl_tolerance
        if not optimum.kl_is_identified:
            lands = qs_land
        elif name == "tabular":
            lands = qs_land and kl_lands
        else:
            lands = kl_lands
        rows.append(
            VerifiedCase(
                name,
                coin,
                feed,
                teacher_prob,
                optimum.kl if optimum.kl_is_identified else None,
                kl,
                float(max(differences)),
                first,
                sum(fed.size for fed in optimum.fed_probs),
                sum(int((fed == 0).sum()) for fed in optimum.fed_probs),
                bool(lands and first <= recipe.q_tolerance),
            )
        )
    return rows


def _symbol_tables(
    model: Seq2SeqModel,
    params: Params,
    sequences: Batch,
    ids: tuple[int, ...],
    jit: Callable[..., Any],
) -> list[np.ndarray]:
    """The tables of all lanes of a population: for each step t an array [lane, z_1, ..., z_t, b].

    Args:
      model: the functions of `Seq2SeqModel`.
      params: with the lanes as the first axis.
      sequences: all sequences, in order.
      ids: target ids of the symbols.
      jit: compiles functions.
    """
    read = jit(jax.vmap(partial(symbol_probs, model, ids), in_axes=(0, None)))
    probs = np.asarray(read(params, sequences)[0], np.float64)
    num_symbols, length = len(ids), sequences.target.shape[1]
    shaped = probs.reshape(-1, *(num_symbols,) * length, length, num_symbols)
    # The distribution after a prefix does not depend on the tokens that come after the prefix.
    return [
        shaped[(slice(None),) * (step + 1) + (0,) * (length - step) + (step,)]
        for step in range(length)
    ]
