"""How the damage done by scheduled sampling depends on how much the source hides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from s2s_jax.batch import NUM_RESERVED, Batch
from s2s_jax.data.chain import ChainTruth
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.figures import Figure, make_styles, new_figure
from s2s_jax.lab.evaluation.divergence import symbol_probs
from s2s_jax.lab.verification.population import Lanes, train_population
from s2s_jax.models.rnn.functions import make_rnn_model
from s2s_jax.objectives import make_cross_entropy
from s2s_jax.theory.information import kl_divergence
from s2s_jax.theory.optimum import optimum_divergences
from s2s_jax.training import init_train_state

MAX_PAIRS = 2**13
"""The most pairs of a source and a target, (2 num_symbols)**length: all are enumerated."""


@dataclass(frozen=True)
class DependenceRecipe:
    """How the LSTM is trained.

    Attributes:
      hidden_size: of encoder and decoder, with attention between them.
      num_rows: number of sequences in a batch.
      num_steps: number of updates.
      learning_rate: of Adam; it decays to a hundredth.
      tolerance: how far the divergence may be from the predicted one, in nats.
    """

    hidden_size: int = 24
    num_rows: int = 256
    num_steps: int = 2000
    learning_rate: float = 0.01
    tolerance: float = 0.01


@dataclass(frozen=True)
class DependenceCase:
    """One training run and its prediction.

    Attributes:
      dependence: share of the target's symbols that the source hides.
      teacher_prob: the probability of gold tokens in training.
      kl_predicted: KL(P || Q | X) of the optimum, in nats.
      kl_trained: the same for the trained model.
      lands: whether the two are within the tolerance.
    """

    dependence: float
    teacher_prob: float
    kl_predicted: float
    kl_trained: float
    lands: bool


@dataclass(frozen=True)
class AllPairs:
    """Every pair of a source and a target that can occur.

    Attributes:
      told: [num_pairs, length] symbols that the source reveals, -1 where hidden.
      target: [num_pairs, length] symbol numbers.
      target_probs: [num_pairs] P(y).
    """

    told: np.ndarray
    target: np.ndarray
    target_probs: np.ndarray

    def probs(self, dependence: float) -> np.ndarray:
        """P(x, y): each symbol is hidden independently, with probability dependence."""
        hidden = (self.told < 0).sum(-1)
        told = self.told.shape[1] - hidden
        return self.target_probs * dependence**hidden * (1 - dependence) ** told


def enumerate_pairs(truth: ChainTruth) -> AllPairs:
    """All pairs whose target has a positive probability.

    Raises:
      LabError: there are too many pairs.
    """
    length = truth.length
    if (2 * truth.num_symbols) ** length > MAX_PAIRS:
        raise LabError(
            f"length is {length}; with {truth.num_symbols} symbols, told or hidden, there are more"
            f" than {MAX_PAIRS} pairs"
        )
    masks = np.indices((2,) * length).reshape(length, -1).T.astype(bool)
    targets = np.indices((truth.num_symbols,) * length).reshape(length, -1).T
    token_probs = truth.sequence_token_probs(targets)
    probs = np.take_along_axis(token_probs, targets[..., None], axis=-1)[..., 0].prod(-1)
    targets, probs = targets[probs > 0], probs[probs > 0]
    target = np.repeat(targets, len(masks), axis=0)
    told = np.where(np.tile(masks, (len(targets), 1)), -1, target)
    return AllPairs(told, target, np.repeat(probs, len(masks)))


def predict(
    truth: ChainTruth, pairs: AllPairs, dependences: Sequence[float], teacher_prob: float
) -> list[float]:
    """KL(P || Q | X) of the optimum for each dependence, in nats: the mean over all sources.

    Args:
      truth: the chain.
      pairs: from `enumerate_pairs`.
      dependences: shares of hidden symbols.
      teacher_prob: of the training; coins are per token, and fed tokens are sampled.
    """
    sources, numbers = np.unique(pairs.told, axis=0, return_inverse=True)
    numbers = numbers.reshape(-1)
    kl, _ = optimum_divergences(truth.given(sources), teacher_prob)
    return [
        float(np.bincount(numbers, pairs.probs(dependence), len(sources)) @ kl)
        for dependence in dependences
    ]


def verify_dependence(
    truth: ChainTruth,
    dependences: Sequence[float],
    teacher_probs: Sequence[float] = (1.0, 0.5, 0.0),
    *,
    recipe: DependenceRecipe | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
    jit: Callable[..., Any] = jax.jit,
) -> list[DependenceCase]:
    """Trains an LSTM with attention for each dependence and teacher_prob, as one population.

    Args:
      truth: the chain.
      dependences: shares of hidden symbols, in [0, 1].
      teacher_probs: of the trainings; coins are per token, and fed tokens are sampled.
      recipe: how to train; None for the default.
      seed: seed of initial weights, coins and samples.
      report: takes a line of progress.
      jit: compiles functions; tests pass a faster one.

    Returns:
      One row for each, ordered by teacher_prob, then dependence.

    Raises:
      LabError: a dependence is out of range, or the chain has too many sequences.
    """
    for dependence in dependences:
        if not 0 <= dependence <= 1:
            raise LabError(f"dependence is {dependence}; it must be in [0, 1]")
    recipe = recipe or DependenceRecipe()
    pairs = enumerate_pairs(truth)
    hidden_id = NUM_RESERVED + truth.num_symbols
    source = np.where(pairs.told < 0, hidden_id, pairs.told + NUM_RESERVED).astype(np.int32)
    target = (pairs.target + NUM_RESERVED).astype(np.int32)
    everywhere = np.ones(target.shape, bool)
    batch = Batch(source, everywhere, target, everywhere)
    model = make_rnn_model(
        hidden_id + 1, hidden_id, hidden_size=recipe.hidden_size, embedding_size=8
    )
    probs = np.array([pairs.probs(dependence) for dependence in dependences])
    lanes = Lanes(
        jnp.repeat(jnp.array(teacher_probs, jnp.float32), len(dependences)),
        jnp.tile(jnp.cumsum(jnp.array(probs), axis=-1), (len(teacher_probs), 1)),
    )
    schedule = optax.exponential_decay(recipe.learning_rate, recipe.num_steps, 0.01)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    params = train_population(
        make_cross_entropy(model),  # with a coin per token and samples fed
        optimizer,
        jit(partial(init_train_state, model, optimizer))(jax.random.key(seed)),
        batch,
        lanes,
        num_rows=recipe.num_rows,
        num_steps=recipe.num_steps,
        averaged=0.1,
        say=lambda step: report(
            f"lstm with attention, {len(lanes.teacher_prob)} runs at once:"
            f" step {step}/{recipe.num_steps}"
        ),
        jit=jit,
    )
    ids = tuple(range(NUM_RESERVED, hidden_id))
    read = jit(jax.vmap(partial(symbol_probs, model, ids), in_axes=(0, None)))
    token_probs = truth.sequence_token_probs(pairs.target, pairs.told)
    kl = kl_divergence(token_probs, np.asarray(read(params, batch)[0])).sum(-1)  # [lanes, pairs]
    rows = []
    for place, teacher_prob in enumerate(teacher_probs):
        predicted = predict(truth, pairs, dependences, teacher_prob)
        for number, dependence in enumerate(dependences):
            trained = float(probs[number] @ kl[place * len(dependences) + number])
            lands = abs(trained - predicted[number]) <= recipe.tolerance
            rows.append(DependenceCase(dependence, teacher_prob, predicted[number], trained, lands))
    return rows


def format_dependence(rows: Sequence[DependenceCase]) -> str:
    """The table for a terminal."""
    lines = ["dependence  teacher_prob  KL predicted  KL trained  verdict"]
    lines += [
        f"{row.dependence:10.2f}  {row.teacher_prob:12.2f}  {row.kl_predicted:12.4f}"
        f"  {row.kl_trained:10.4f}  {'lands' if row.lands else 'MISSES'}"
        for row in rows
    ]
    return "\n".join(lines)


def dependence_figure(truth: ChainTruth, rows: Sequence[DependenceCase]) -> Figure:
    """The KL by dependence: predictions as lines, trained models as marks."""
    pairs = enumerate_pairs(truth)
    figure, (axes,) = new_figure(1, 1, (6.2, 4.2))
    dense = [float(one) for one in np.linspace(0, 1, 41)]
    teacher_probs = sorted({row.teacher_prob for row in rows})
    for teacher_prob, style in zip(teacher_probs, make_styles(len(teacher_probs)), strict=True):
        name = {1.0: " (teacher forcing)", 0.0: " (free running)"}.get(teacher_prob, "")
        mine = [row for row in rows if row.teacher_prob == teacher_prob]
        axes.plot(
            dense,
            predict(truth, pairs, dense, teacher_prob),
            color=style.color,
            linestyle=style.line,
            label=f"teacher_prob {teacher_prob:g}{name}",
        )
        axes.plot(
            [row.dependence for row in mine],
            [row.kl_trained for row in mine],
            style.marker,
            color=style.color,
            markersize=7,
            markerfacecolor="none",
            markeredgewidth=1.6,
        )
    axes.set_xlabel("dependence: share of the target's symbols that the source hides")
    axes.set_ylabel("KL from the truth, given the source (nats)")
    axes.legend(
        frameon=False, title="Line: predicted; open marks: trained LSTM", title_fontsize=9,
        fontsize=9, loc="upper left",
    )  # fmt: skip
    return figure
