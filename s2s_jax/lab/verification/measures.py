"""What trained models predict and cost, exactly: by enumeration of all sequences."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from s2s_jax.batch import EOS, Batch
from s2s_jax.lab.evaluation.divergence import symbol_probs
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.theory.edits import all_sequences
from s2s_jax.theory.optimum import sequence_probs


def sequences_of(ids: range, length: int) -> Batch:
    """Every sequence of some target ids, in order, with a source that reveals nothing."""
    target = (all_sequences(len(ids), length) + ids.start).astype(np.int32)
    source = np.full((len(target), 1), EOS, np.int32)
    return Batch(source, source > 0, target, np.ones(target.shape, bool))


def trained_tables(
    model: Seq2SeqModel,
    params: Params,
    ids: range,
    length: int,
    jit: Callable[..., Any] = jax.jit,
) -> list[tuple[np.ndarray, ...]]:
    """The distributions of all models of a population, restricted to some ids and normalised.

    Args:
      model: the functions of `Seq2SeqModel`.
      params: with the models as the first axis.
      ids: the target ids.
      length: number of steps.
      jit: compiles functions.

    Returns:
      For each model and step t an array [z_1, ..., z_t, b], as in `TrainingOptimum.probs`.
    """
    read = jit(jax.vmap(partial(symbol_probs, model, tuple(ids)), in_axes=(0, None)))
    probs = np.asarray(read(params, sequences_of(ids, length))[0], np.float64)
    shaped = probs.reshape(-1, *(len(ids),) * length, length, len(ids))
    # The distribution after a prefix does not depend on the tokens that come after the prefix.
    return [
        tuple(
            one[(slice(None),) * step + (0,) * (length - step) + (step,)] for step in range(length)
        )
        for one in shaped
    ]


def expected_costs(
    model: Seq2SeqModel,
    params: Params,
    gold: np.ndarray,
    gold_probs: np.ndarray,
    cost: str,
    jit: Callable[..., Any] = jax.jit,
) -> list[float]:
    """The expected cost of samples s of each model of a population.

        sum_s Q(s) sum_y P(y) cost(s, y)

    s is any sequence of ids, also of reserved ones; it ends at its end symbol, or after as many
    tokens as y has.

    Args:
      model: the functions of `Seq2SeqModel`.
      params: with the models as the first axis.
      gold: [num_gold, length] target ids of every y.
      gold_probs: [num_gold] P(y).
      cost: "edit_rate" or "exact_match"; see `s2s_jax.theory.risk.minimum_risk`.
      jit: compiles functions.
    """
    every = range(model.vocab_size)
    length = gold.shape[1]
    costs = all_costs(all_sequences(len(every), length), gold, cost) @ gold_probs
    # What a model would say after its end symbol makes no difference: it sums to 1.
    return [
        float(sequence_probs(tables).reshape(-1) @ costs)
        for tables in trained_tables(model, params, every, length, jit)
    ]


def all_costs(said: np.ndarray, gold: np.ndarray, cost: str) -> np.ndarray:
    """The cost of every hypothesis against every gold sequence.

    Args:
      said: [num_said, length] ids; what comes after an EOS does not count, nor does the EOS.
      gold: [num_gold, length] ids, without EOS.
      cost: "edit_rate" or "exact_match".

    Returns:
      [num_said, num_gold].

    Example:
      >>> said, gold = np.array([[4, 5], [5, EOS], [EOS, 4]]), np.array([[4, 5]])
      >>> all_costs(said, gold, "edit_rate").tolist()
      [[0.0], [0.5], [1.0]]
    """
    if cost == "exact_match":
        return np.any(said[:, None] != gold, axis=-1).astype(np.float64)
    length = gold.shape[1]
    places = np.arange(length + 1, dtype=np.int8)
    rows = np.broadcast_to(places, (len(said), len(gold), length + 1))
    counts = np.cumsum(said == EOS, axis=1) == 0
    for token, is_said in zip(said.T, counts.T, strict=True):
        # Column j + 1 by deletion or substitution; the cumulative minimum is insertion.
        kept = rows[..., :-1] + (gold != token[:, None, None])
        columns = np.minimum(rows[..., 1:] + np.int8(1), kept)
        without = np.concatenate([rows[..., :1] + np.int8(1), columns], axis=-1)
        longer = np.minimum.accumulate(without - places, axis=-1) + places
        rows = np.where(is_said[:, None, None], longer, rows)
    return rows[..., -1] / length
