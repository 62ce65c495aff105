"""Scores with gold prefixes and with the model's own; the gap between them is exposure bias."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.batch import Batch, gold_inputs, to_jax
from s2s_jax.decoding import Decoded, greedy
from s2s_jax.exposure.positions import error_course
from s2s_jax.losses import cross_entropy
from s2s_jax.metrics import MetricSums, compute, masked_mean, merge, right_tokens
from s2s_jax.models.interface import Params, Seq2SeqModel

EvaluateStep = Callable[[Params, Batch], tuple[MetricSums, Decoded]]


class Evaluation(NamedTuple):
    """The result of an evaluation.

    Attributes:
      metrics: name -> mean over the split.
      hypotheses: the model's own output for each example, in the order of the examples, as ids
        without EOS.
    """

    metrics: dict[str, float]
    hypotheses: list[list[int]]


def make_evaluate_step(model: Seq2SeqModel, max_length: int) -> EvaluateStep:
    """Makes the evaluation of a batch, without dropout and without a schedule.

        gold/nll            = mean_t -log p(y_t | y_<t)                nats per token
        gold/token_accuracy = mean_t [argmax p(. | y_<t) = y_t]
        own/token_accuracy  = mean_t [h_t = y_t],  h the greedy hypothesis; an error after its end
        own/exact_match     = share of sequences with h = y
        own/hazard          = first errors / positions without an earlier error
        own/post_error_rate = errors after the first / positions after the first error

    All sums go up to and including EOS; if y_t is the unknown token, no token counts as right. The
    post-error rate is NaN if there is no error; if it is above the hazard, errors lead to further
    errors. The likelihood of the gold token given the model's own prefix is left out on purpose: it
    rewards a model for ignoring its prefix.

    Args:
      model: the functions of `Seq2SeqModel`.
      max_length: maximum number of tokens in a hypothesis, including EOS.

    Returns:
      evaluate_step(params, batch) -> (metric sums, greedy hypotheses); pure, not jitted.
    """

    def evaluate_step(params: Params, batch: Batch) -> tuple[MetricSums, Decoded]:
        source, source_mask, target, mask = to_jax(batch)
        memory = model.encode(params, source, source_mask, None)
        logits = model.decode_sequence(params, memory, gold_inputs(target))
        own = greedy(model, params, memory, max_length)
        time = target.shape[1]
        own_tokens = jnp.pad(own.tokens, ((0, 0), (0, max(0, time - max_length))))[:, :time]
        own_right = right_tokens(own_tokens, target)
        right = own_right | ~mask
        course = error_course(own_right, mask)
        sums = {
            "gold/nll": cross_entropy(logits, target, mask),
            "gold/token_accuracy": masked_mean(right_tokens(logits.argmax(-1), target), mask),
            "own/token_accuracy": masked_mean(own_right, mask),
            "own/exact_match": masked_mean(right.all(1) & (own.lengths == mask.sum(1)), mask[:, 0]),
            "own/hazard": masked_mean(course.fails, course.at_risk),
            "own/post_error_rate": masked_mean(course.errs, course.after),
        }
        return sums, own

    return evaluate_step


def evaluate(
    evaluate_step: EvaluateStep,
    params: Params,
    batches: Iterable[tuple[np.ndarray, Batch]],
) -> Evaluation:
    """Evaluates a split.

    Args:
      evaluate_step: from `make_evaluate_step`, jitted.
      params: the model's parameters.
      batches: (indices, batch) pairs that hold every example once; index -1 for filler rows.

    Returns:
      The means, including "gap" (gold minus own token accuracy), and the hypotheses.

    Raises:
      ValueError: there are no batches.
    """
    # Dispatch all batches before waiting for the first result.
    results = [(indices, *evaluate_step(params, batch)) for indices, batch in batches]
    if not results:
        raise ValueError("nothing to evaluate: there are no batches")
    metrics = compute(merge(*(jax.device_get(sums) for _, sums, _ in results)))
    metrics["gap"] = metrics["gold/token_accuracy"] - metrics["own/token_accuracy"]
    found: dict[int, list[int]] = {}
    for indices, _, decoded in results:
        tokens, lengths, finished = jax.device_get(
            (decoded.tokens, decoded.lengths, decoded.finished)
        )
        for index, row, end in zip(indices, tokens, lengths - finished, strict=True):
            if index >= 0:
                found[int(index)] = row[:end].tolist()
    return Evaluation(metrics, [found[index] for index in sorted(found)])
