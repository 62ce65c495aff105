"""On-policy distillation: after any prefix, a teacher's distribution."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax.losses import StepInputs, TargetRule, TokenLoss, soft_cross_entropy
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.names import check_known
from s2s_jax.objectives.hypotheses import Hypotheses, begin_hypotheses

DIVERGENCES = ("forward_kl", "reverse_kl", "jsd")
"""The divergences of a student p from a teacher w; see `make_distillation_rule`."""


@dataclass(frozen=True)
class Teacher:
    """What a student learns from: a distribution of the next token after any prefix.

    Attributes:
      begin: (source [batch, source_time], source_mask, max_length) -> state, for at most max_length
        steps; every leaf has the batch as its first axis.
      step: (state, token [batch]) -> (state, logits [batch, vocab_size]); the first token is BOS.
      vocab_size: number of target ids.
      is_truth: whether its distributions are those that the targets are drawn from.
    """

    begin: Callable[[jax.Array, jax.Array, int], Any]
    step: Callable[[Any, jax.Array], tuple[Any, jax.Array]]
    vocab_size: int
    is_truth: bool = False


def make_model_teacher(model: Seq2SeqModel, params: Params) -> Teacher:
    """Makes a teacher of a trained model; it has no dropout and is not trained on."""

    def begin(source: jax.Array, source_mask: jax.Array, max_length: int) -> Any:
        memory = model.encode(params, source, source_mask, None)
        return memory, model.initial_carry(params, memory, max_length)

    def step(state: Any, token: jax.Array) -> tuple[Any, jax.Array]:
        memory, carry = state
        carry, logits = model.decode_step(params, memory, carry, token)
        return (memory, carry), logits

    return Teacher(begin, step, model.vocab_size)


class DistillationState(NamedTuple):
    """Where the teacher and the fed sequences are."""

    teacher: Any
    hypotheses: Hypotheses


def make_distillation_rule(
    teacher: Teacher, margin: int, divergence: str = "forward_kl"
) -> TargetRule:
    """Makes the rule of distillation, on whatever prefixes are fed.

        forward_kl: KL(w || p)     reverse_kl: KL(p || w)     m = (w + p) / 2
        jsd: KL(w || m) / 2 + KL(p || m) / 2

    w and p are the teacher's and the student's distribution after the same prefix. The loss counts
    as long as the fed sequence goes on. Agarwal et al. (2024), arXiv:2306.13649.

    Args:
      teacher: the teacher.
      margin: how many tokens a fed sequence may have more than its gold target.
      divergence: which one is minimised; "nll" reports the cross entropy -sum_v w(v) log p(v).

    Raises:
      ValueError: the divergence is unknown.
    """
    check_known("divergence", divergence, DIVERGENCES)

    def begin(
        source: jax.Array, source_mask: jax.Array, target: jax.Array, mask: jax.Array
    ) -> DistillationState:
        return DistillationState(
            teacher.begin(source, source_mask, mask.shape[1]), begin_hypotheses(mask, margin)
        )

    def step(
        state: DistillationState, inputs: StepInputs
    ) -> tuple[DistillationState, tuple[jax.Array, jax.Array]]:
        hypotheses = state.hypotheses.after(inputs.token)
        of_teacher, logits = teacher.step(state.teacher, inputs.token)
        wanted = jax.nn.log_softmax(logits.astype(jnp.float32))
        # The teacher does not look at the gold token, but a wrong id must not go unnoticed.
        known = (inputs.gold >= 0) & (inputs.gold < teacher.vocab_size) | ~inputs.mask
        weight = jnp.where(known, hypotheses.counts, jnp.nan)
        return DistillationState(of_teacher, hypotheses), (wanted, weight)

    def loss(logits: jax.Array, wanted: tuple[jax.Array, jax.Array]) -> TokenLoss:
        log_w, weight = wanted
        log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
        w, nll = jnp.exp(log_w), soft_cross_entropy(logits, jnp.exp(log_w))
        if divergence == "forward_kl":
            loss = nll + _sum(w, log_w)
        elif divergence == "reverse_kl":
            loss = _sum(jnp.exp(log_p), log_p - log_w)
        else:
            log_m = jnp.logaddexp(log_w, log_p) - jnp.log(2.0)
            loss = (_sum(w, log_w - log_m) + _sum(jnp.exp(log_p), log_p - log_m)) / 2
        return TokenLoss(loss, nll, logits.argmax(-1) == log_w.argmax(-1), weight)

    return TargetRule(begin, step, loss, margin=margin)


def _sum(probs: jax.Array, values: jax.Array) -> jax.Array:
    """sum_v probs(v) values(v), with 0 times anything as 0."""
    return jnp.where(probs > 0, probs * jnp.where(probs > 0, values, 0.0), 0.0).sum(-1)
