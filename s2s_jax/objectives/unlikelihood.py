"""Unlikelihood: tokens that were said before should not be said again."""

from typing import Any

import jax
import jax.numpy as jnp

from s2s_jax.losses import StepInputs, TargetRule, TokenLoss, make_gold_rule


def make_unlikelihood_rule(
    vocab_size: int, weight: float, label_smoothing: float = 0.0
) -> TargetRule:
    """Makes the rule of gold targets with a penalty on repeating earlier target tokens.

        loss_t = -log p(y_t) + weight sum_{c in C_t} -log(1 - p(c))
        C_t = {y_1 ... y_{t-1}} - {y_t}

    A token counts once, however often it occurred. Welleck et al. (2020), arXiv:1908.04319.

    Args:
      vocab_size: number of target ids.
      weight: of the penalty.
      label_smoothing: see `cross_entropy`.

    Example:
      >>> rule = make_unlikelihood_rule(6, weight=1.0)
      >>> source = target = jnp.array([[4, 5]])
      >>> state = rule.begin(source, source > 0, target, target > 0)
      >>> for gold in (4, 5):
      ...     inputs = StepInputs(jnp.array([1]), jnp.array([gold]), jnp.array([True]))
      ...     state, wanted = rule.step(state, inputs)
      >>> losses = rule.loss(jnp.zeros((1, 6)), wanted)
      >>> [round(float(one[0]), 3) for one in (losses.nll, losses.loss)]  # log 6; + log 6/5
      [1.792, 1.974]
    """
    gold_rule = make_gold_rule(label_smoothing)

    def begin(
        source: jax.Array, source_mask: jax.Array, target: jax.Array, mask: jax.Array
    ) -> jax.Array:
        return jnp.zeros((len(target), vocab_size), bool)

    def step(said: jax.Array, inputs: StepInputs) -> tuple[jax.Array, Any]:
        is_gold = inputs.gold[:, None] == jnp.arange(vocab_size)
        _, wanted = gold_rule.step(None, inputs)
        return said | (is_gold & inputs.mask[:, None]), (wanted, said & ~is_gold)

    def loss(logits: jax.Array, wanted: Any) -> TokenLoss:
        of_gold, negatives = wanted
        losses = gold_rule.loss(logits, of_gold)
        probs = jax.nn.softmax(logits.astype(jnp.float32))
        # Above this bound the gradient ends: log(1 - p) of a p that is rounded to 1 is infinite.
        penalty = -jnp.log1p(-jnp.minimum(probs, 1 - 1e-6))
        return losses._replace(
            loss=losses.loss + weight * jnp.where(negatives, penalty, 0.0).sum(-1)
        )

    return TargetRule(begin, step, loss, reads_fed=False)
