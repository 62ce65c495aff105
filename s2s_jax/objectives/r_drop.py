"""R-Drop: two passes with different dropout should agree."""

from typing import Any

import jax
import jax.numpy as jnp

from s2s_jax.batch import Batch, gold_inputs, to_jax
from s2s_jax.feeding import RolloutOptions
from s2s_jax.losses import cross_entropy
from s2s_jax.metrics import Mean, MetricSums, masked_mean, right_tokens
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.objectives.interface import Objective
from s2s_jax.prng import stream_key
from s2s_jax.rollout import make_rollout


def make_r_drop(
    model: Seq2SeqModel,
    *,
    rollout: RolloutOptions | None = None,
    label_smoothing: float = 0.0,
    weight: float = 5.0,
    unigram_probs: Any | None = None,
) -> Objective:
    """Makes the objective of R-Drop: cross entropy, and agreement of two dropout masks.

        loss = (CE_1 + CE_2) / 2 + weight (KL(p_1 || p_2) + KL(p_2 || p_1)) / 4

    p_1 and p_2 are the model's distributions with two draws of its dropout masks, after the same
    fed tokens, which the first one chooses. It is half of the loss of Wu et al. (2021),
    arXiv:2106.14448, so that weight 0 is cross entropy; everything is per token. A model without
    dropout gains nothing.

    Args:
      model: the functions of `Seq2SeqModel`.
      rollout: what is fed; None for scheduled sampling as in the paper.
      label_smoothing: see `cross_entropy`.
      weight: of the divergence; at least 0.
      unigram_probs: see `Feeding`.

    Returns:
      objective(params, batch, key, teacher_prob) -> (loss, metric sums), with "loss", "nll",
      "token_accuracy", "gold_share", "fed_error_rate" and "divergence" (the mean of the two KLs).

    Raises:
      ValueError: an option is out of range, or embeddings are fed.
    """
    if not 0 <= weight <= 1e6:
        raise ValueError(f"weight is {weight}; it must be in [0, 1e6]")
    feed_tokens = make_rollout(model, rollout, unigram_probs=unigram_probs)

    def objective(
        params: Params, batch: Batch, key: jax.Array, teacher_prob: jax.Array
    ) -> tuple[jax.Array, MetricSums]:
        source, source_mask, target, mask = to_jax(batch)
        key_1 = stream_key(key, "dropout")
        memories = [
            model.encode(params, source, source_mask, one)
            for one in (key_1, jax.random.fold_in(key_1, 1))
        ]
        fed = feed_tokens(params, memories[0], target, mask, key, teacher_prob)
        logits = [model.decode_sequence(params, one, fed.tokens) for one in memories]
        nlls = [cross_entropy(one, target, mask) for one in logits]
        losses = [cross_entropy(one, target, mask, label_smoothing) for one in logits]
        log_1, log_2 = (jax.nn.log_softmax(one.astype(jnp.float32)) for one in logits)
        # KL(p_1 || p_2) + KL(p_2 || p_1)
        both = ((jnp.exp(log_1) - jnp.exp(log_2)) * (log_1 - log_2)).sum(-1)
        divergence = masked_mean(both / 2, mask)
        is_probability = (teacher_prob >= 0) & (teacher_prob <= 1)
        total = (losses[0].total + losses[1].total) / 2 + weight * divergence.total / 2
        total *= jnp.where(is_probability, 1.0, jnp.nan)
        decided = mask.at[:, 0].set(False)
        metrics = {
            "loss": Mean(total, nlls[0].weight),
            "nll": Mean((nlls[0].total + nlls[1].total) / 2, nlls[0].weight),
            "token_accuracy": masked_mean(right_tokens(logits[0].argmax(-1), target), mask),
            "gold_share": masked_mean(fed.is_gold, decided),
            "fed_error_rate": masked_mean(fed.tokens != gold_inputs(target), decided),
            "divergence": divergence,
        }
        return total / jnp.maximum(nlls[0].weight, 1.0), metrics

    return objective
