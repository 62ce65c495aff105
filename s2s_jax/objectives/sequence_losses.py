"""Losses of whole hypotheses: minimum risk, REINFORCE, self-critical training and MIXER.

Each draws candidates, scores them with a cost and weighs their log-probabilities; the weights are
what sets them apart. The loss of a batch is a mean over its sequences.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax.batch import PAD, Batch, to_jax
from s2s_jax.forward_pass import make_forward_pass
from s2s_jax.metrics import Mean, MetricSums, masked_mean
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.objectives.candidates import (
    Candidates,
    add_nll_gradient,
    draw_candidates,
    is_distinct,
    make_cost,
    repeat_rows,
    weighted_nll,
)
from s2s_jax.objectives.interface import Objective
from s2s_jax.prng import stream_key


class _Scored(NamedTuple):
    """The candidates of a batch with their costs; [batch, num_candidates] where not said."""

    candidates: Candidates
    cost: jax.Array
    log_probs: jax.Array
    exists: jax.Array


def make_minimum_risk(
    model: Seq2SeqModel,
    *,
    num_samples: int = 5,
    alpha: float = 0.005,
    cost: str = "edit_rate",
    with_gold: bool = False,
    gold_weight: float = 0.0,
    margin: int = 4,
) -> Objective:
    """Makes the objective of minimum risk training.

        q(s) proportional to p(s)^alpha over the distinct samples s,   loss = sum_s q(s) cost(s)

    Its gradient is sum_s alpha q(s) (cost(s) - loss) grad log p(s). Shen et al. (2016),
    arXiv:1512.02433. Start from a trained model: samples of an untrained one are all equally bad.
    teacher_prob has no effect.

    Args:
      model: the functions of `Seq2SeqModel`.
      num_samples: samples for each source, the gold target included if it is added; at least 2.
      alpha: above 0; the smaller, the more even is q.
      cost: see `make_cost`.
      with_gold: whether one of the samples is the gold target.
      gold_weight: share of cross entropy with gold prefixes in the loss, in [0, 1).
      margin: how many tokens a sample may have more than its target.

    Returns:
      objective(params, batch, key, teacher_prob) -> (loss, metric sums), with the sums "loss",
      "cost" (of the samples) and "distinct" (the share of samples that are no repetition).

    Raises:
      ValueError: an option is out of range.
    """
    if not 0 < alpha <= 1e6:
        raise ValueError(f"alpha is {alpha}; it must be in (0, 1e6]")

    def weigh(scored: _Scored, counts: jax.Array) -> tuple[jax.Array, jax.Array]:
        counts = counts & scored.exists
        q = jax.nn.softmax(jnp.where(counts, alpha * scored.log_probs, -jnp.inf), axis=1)
        q = jnp.where(scored.exists, q, 0.0)  # a filler row has none
        risk = (q * scored.cost).sum(1)
        return risk, -alpha * q * (scored.cost - risk[:, None])

    return _make_sampled(model, num_samples, cost, gold_weight, margin, weigh, with_gold=with_gold)


def make_reinforce(
    model: Seq2SeqModel,
    *,
    num_samples: int = 5,
    cost: str = "edit_rate",
    gold_weight: float = 0.0,
    margin: int = 4,
) -> Objective:
    """Makes the objective of REINFORCE with the other samples as baseline.

        gradient = mean_s (cost(s) - mean of the other samples' costs) grad log p(s)

    It is an unbiased estimate of the gradient of the expected cost, which is the loss. Kool et al.
    (2019), "Buy 4 REINFORCE samples, get a baseline for free". teacher_prob has no effect.

    Args:
      model: the functions of `Seq2SeqModel`.
      num_samples: samples for each source; at least 2.
      cost: see `make_minimum_risk`, also for gold_weight and margin.
      gold_weight: likewise.
      margin: likewise.

    Raises:
      ValueError: an option is out of range.
    """

    def weigh(scored: _Scored, counts: jax.Array) -> tuple[jax.Array, jax.Array]:
        others = (scored.cost.sum(1, keepdims=True) - scored.cost) / (num_samples - 1)
        return scored.cost.mean(1), -(scored.cost - others) / num_samples

    return _make_sampled(model, num_samples, cost, gold_weight, margin, weigh)


def make_self_critical(
    model: Seq2SeqModel,
    *,
    num_samples: int = 1,
    cost: str = "edit_rate",
    gold_weight: float = 0.0,
    margin: int = 4,
) -> Objective:
    """Makes the objective of self-critical training: greedy decoding is the baseline.

        gradient = mean_s (cost(s) - cost(greedy)) grad log p(s)

    Rennie et al. (2017), arXiv:1612.00563. teacher_prob has no effect.

    Args:
      model: the functions of `Seq2SeqModel`.
      num_samples: samples for each source; at least 1.
      cost: see `make_minimum_risk`, also for gold_weight and margin.
      gold_weight: likewise.
      margin: likewise.

    Raises:
      ValueError: an option is out of range.
    """

    def weigh(scored: _Scored, counts: jax.Array) -> tuple[jax.Array, jax.Array]:
        sampled, greedy = scored.cost[:, :-1], scored.cost[:, -1:]
        weights = jnp.pad(-(sampled - greedy) / num_samples, ((0, 0), (0, 1)))
        return sampled.mean(1), weights

    return _make_sampled(
        model, num_samples, cost, gold_weight, margin, weigh, fewest=1, with_greedy=True
    )


def make_mixer(
    model: Seq2SeqModel,
    *,
    num_samples: int = 5,
    cost: str = "edit_rate",
    margin: int = 4,
) -> Objective:
    """Makes the objective of MIXER: cross entropy at first, REINFORCE after it.

        s_1 ... s_k = y_1 ... y_k,   k = ceil(teacher_prob |y|),   the rest is sampled
        gradient = sum_{t <= k} grad -log p(y_t)
                 + mean_s (cost(s) - mean of the other samples' costs) grad log p(s_{k+1} ... )

    With a schedule that falls, the part that is sampled grows from the end, as in Ranzato et al.
    (2016), arXiv:1511.06732. The baseline is that of `make_reinforce`, where the paper learns one.

    Args:
      model: the functions of `Seq2SeqModel`.
      num_samples: samples for each source; at least 2.
      cost: see `make_minimum_risk`, also for margin.
      margin: likewise.

    Raises:
      ValueError: an option is out of range.
    """

    def weigh(scored: _Scored, counts: jax.Array) -> tuple[jax.Array, jax.Array]:
        others = (scored.cost.sum(1, keepdims=True) - scored.cost) / (num_samples - 1)
        return scored.cost.mean(1), -(scored.cost - others) / num_samples

    return _make_sampled(model, num_samples, cost, 0.0, margin, weigh, with_prefix=True)


def forced_length(teacher_prob: jax.Array, length: jax.Array) -> jax.Array:
    """ceil(teacher_prob * length) as int32.

    Example:
      >>> bool(jnp.float32(0.6) * 25 > 15), int(forced_length(jnp.float32(0.6), jnp.int32(25)))
      (True, 15)
    """
    return jnp.ceil(teacher_prob * length - 1e-4).astype(jnp.int32)


def _make_sampled(
    model: Seq2SeqModel,
    num_samples: int,
    cost: str,
    gold_weight: float,
    margin: int,
    weigh: Callable[[_Scored, jax.Array], tuple[jax.Array, jax.Array]],
    *,
    fewest: int = 2,
    with_gold: bool = False,
    with_greedy: bool = False,
    with_prefix: bool = False,
) -> Objective:
    """Makes an objective of candidates.

    Args:
      model: the functions of `Seq2SeqModel`.
      num_samples: candidates for each source, a greedy one not counted.
      cost: see `make_cost`.
      gold_weight: share of cross entropy with gold prefixes.
      margin: how many tokens a candidate may have more than its target.
      weigh: (scored, whether a candidate is no repetition [batch, num_candidates]) -> the loss
        [batch] and the weight of each candidate's -log p(s) in its gradient.
      fewest: the smallest num_samples that makes sense.
      with_gold: whether the first candidate is the gold target.
      with_greedy: whether there is another candidate at the end, by greedy decoding.
      with_prefix: whether candidates begin with a share teacher_prob of the gold target.
    """
    if num_samples < fewest:
        raise ValueError(f"num_samples is {num_samples}; it must be at least {fewest}")
    if not 0 <= gold_weight < 1:
        raise ValueError(f"gold_weight is {gold_weight}; it must be in [0, 1)")
    if margin < 0:
        raise ValueError(f"margin is {margin}; it must be at least 0")
    cost_of, num_candidates = make_cost(cost), num_samples + with_greedy
    forced_pass = make_forward_pass(model)

    def objective(
        params: Params, batch: Batch, key: jax.Array, teacher_prob: jax.Array
    ) -> tuple[jax.Array, MetricSums]:
        source, source_mask, target, mask = to_jax(batch)
        memory = model.encode(params, source, source_mask, stream_key(key, "dropout"))
        repeated = repeat_rows(memory, num_candidates)
        beyond = (0, 0), (0, margin)
        gold = repeat_rows(jnp.pad(target, beyond, constant_values=PAD), num_candidates)
        gold_mask = repeat_rows(jnp.pad(mask, beyond), num_candidates)
        length = gold_mask.sum(1)
        number = jnp.tile(jnp.arange(num_candidates), len(target))
        # How many tokens of the gold target each candidate begins with.
        prefix = jnp.where(with_gold & (number == 0), length, 0)
        if with_prefix:
            prefix = forced_length(teacher_prob, length)
        is_forced = jnp.arange(gold.shape[1])[:, None] < prefix
        candidates = draw_candidates(
            model,
            params,
            repeated,
            stream_key(key, "samples"),
            jnp.where(length > 0, length + margin, 0),
            gold.T,
            is_forced,
            with_greedy & (number == num_samples),
        )
        by_source = len(target), num_candidates
        scored = _Scored(
            candidates,
            cost_of(candidates, gold, gold_mask).reshape(by_source),
            candidates.log_probs.reshape(by_source),
            (length > 0).reshape(by_source),
        )
        distinct = is_distinct(candidates, num_candidates)
        losses, weights = weigh(scored, distinct)
        rows = mask.any(1)
        num_rows = jnp.maximum(rows.sum(), 1).astype(jnp.float32)
        weights = jnp.where(scored.exists, weights, 0.0).reshape(-1)
        if with_prefix:
            token_weights = jnp.where(is_forced, 1 / num_samples, weights)
        else:
            token_weights = jnp.broadcast_to(weights, is_forced.shape)
        risk = Mean(jnp.where(rows, losses, 0.0).sum(), rows.sum().astype(jnp.float32))
        loss = risk.total / num_rows
        if with_prefix:
            nll = weighted_nll(model, params, repeated, candidates, jnp.where(is_forced, 1.0, 0.0))
            loss += jax.lax.stop_gradient(nll) / num_samples / num_rows
        loss = add_nll_gradient(
            loss,
            model,
            params,
            memory,
            candidates,
            jax.lax.stop_gradient(token_weights / num_rows),
            num_candidates,
            num_samples,
        )
        # A compiled step cannot raise an error; a NaN loss and gradient cannot be overlooked.
        known = jnp.all((target >= 0) & (target < model.vocab_size) | ~mask)
        known &= ~jnp.any(jnp.isnan(candidates.log_probs))  # of an unknown source, too
        loss *= jnp.where(known & (teacher_prob >= 0) & (teacher_prob <= 1), 1.0, jnp.nan)
        if gold_weight:
            _, gold_losses = forced_pass(params, memory, target, mask, key, jnp.float32(1.0), None)
            per_token = gold_losses.loss.total / jnp.maximum(gold_losses.loss.weight, 1.0)
            loss = (1 - gold_weight) * loss + gold_weight * per_token
        samples = jnp.where(scored.exists, jnp.arange(num_candidates) < num_samples, False)
        metrics = {
            "loss": Mean(loss * num_rows, risk.weight),
            "cost": masked_mean(scored.cost, samples),
            "distinct": masked_mean(distinct, samples),
        }
        return loss, metrics

    objective.ignores_teacher_prob = not with_prefix  # pyright: ignore[reportFunctionMemberAccess]
    return objective
