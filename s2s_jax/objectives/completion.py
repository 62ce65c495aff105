"""Optimal completion distillation: after any prefix, the tokens that can still end best."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax.edit_distance import extend_row, first_row, optimal_places
from s2s_jax.losses import StepInputs, TargetRule, TokenLoss, distribution_loss
from s2s_jax.objectives.hypotheses import Hypotheses, begin_hypotheses


class CompletionState(NamedTuple):
    """The rows of the edit distances so far.

    Attributes:
      target: [batch, time] int32 ids.
      mask: [batch, time] bool.
      row: [batch, time], D(t, j); see `s2s_jax.edit_distance`.
      hypotheses: where the fed sequences are.
    """

    target: jax.Array
    mask: jax.Array
    row: jax.Array
    hypotheses: Hypotheses


def make_completion_rule(vocab_size: int, margin: int, label_smoothing: float = 0.0) -> TargetRule:
    """Makes the rule of optimal completion distillation.

        w_t uniform over A*(x_2 ... x_t),   loss_t = -sum_a w_t(a) log p(a)

    with A* of `optimal_places`. After a gold prefix, that is the next gold token. The loss counts
    as long as the fed sequence goes on: up to its end symbol, or its cap. Sabour et al. (2019),
    arXiv:1810.01398.

    Args:
      vocab_size: number of target ids.
      margin: how many tokens a fed sequence may have more than its gold target.
      label_smoothing: see `distribution_loss`.
    """

    def begin(
        source: jax.Array, source_mask: jax.Array, target: jax.Array, mask: jax.Array
    ) -> CompletionState:
        return CompletionState(target, mask, first_row(target), begin_hypotheses(mask, margin))

    def step(
        state: CompletionState, inputs: StepInputs
    ) -> tuple[CompletionState, tuple[jax.Array, jax.Array]]:
        hypotheses = state.hypotheses.after(inputs.token)
        row = jnp.where(
            (hypotheses.num_steps > 1)[:, None],  # the first token is the start symbol
            extend_row(state.row, state.target, inputs.token),
            state.row,
        )
        is_optimal = optimal_places(row, state.mask)
        rows = jnp.arange(len(row))[:, None]
        marked = jnp.zeros((len(row), vocab_size)).at[rows, state.target]
        marked = marked.max(is_optimal.astype(jnp.float32))  # a token counts once
        # An id outside the vocabulary has no place there: NaN, as for a gold target.
        known = jnp.all((state.target >= 0) & (state.target < vocab_size) | ~state.mask, axis=1)
        wanted = jnp.where(known[:, None], marked, jnp.nan)
        wanted /= jnp.maximum(marked.sum(-1, keepdims=True), 1)
        return CompletionState(state.target, state.mask, row, hypotheses), (
            wanted,
            hypotheses.counts,
        )

    def loss(logits: jax.Array, wanted: tuple[jax.Array, jax.Array]) -> TokenLoss:
        return distribution_loss(logits, *wanted, label_smoothing)

    return TargetRule(begin, step, loss, margin=margin)
