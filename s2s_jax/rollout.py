"""The only place where the tokens of a pass are chosen, one after another or all at once.

The carry that the decoder passes from step to step is never modified here; a training method
decides only which token is fed along with it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax import output_layer
from s2s_jax.branches import unless_all_gold
from s2s_jax.feeding import Draws, Fed, Feeding, RolloutOptions
from s2s_jax.models.interface import Memory, Params, Seq2SeqModel
from s2s_jax.models.linear import compute_logits

Rollout = Callable[
    [Params, Memory, jax.Array | np.ndarray, jax.Array | np.ndarray, jax.Array, jax.Array], Fed
]
"""(params, memory, target [batch, time], mask [batch, time], key, teacher_prob) -> Fed."""


def make_rollout(
    model: Seq2SeqModel,
    options: RolloutOptions | None = None,
    *,
    unigram_probs: Any | None = None,
    beyond_gold: bool = False,
) -> Rollout:
    """Makes the function that chooses what is fed: gold tokens, or their replacements.

        x_1 = BOS,   x_{t+1} = y_t if coin_t else the replacement

    No gradient flows through the choice, into the parameters that made it (Bengio et al. 2015,
    arXiv:1506.03099, section 2.4) or into teacher_prob. While teacher_prob is 1, no coin is tossed
    and no token is drawn.

    Args:
      model: the functions of `Seq2SeqModel`.
      options: what is fed; None for scheduled sampling as in the paper.
      unigram_probs: see `Feeding`.
      beyond_gold: see `Feeding`.

    Returns:
      rollout(params, memory, target, mask, key, teacher_prob) -> Fed.

    Raises:
      ValueError: embeddings are fed and not tokens, or the model or its vocabulary does not allow
        these options.
    """
    options = options or RolloutOptions()
    if options.is_soft:
        raise ValueError(f"feed is {options.feed!r}; a rollout feeds tokens")
    feeding = Feeding(model, options, unigram_probs, beyond_gold=beyond_gold)

    def replaced_or_gold(params, memory, target, mask, key, teacher_prob) -> Fed:
        draws = feeding.draw(params, target, mask, key, teacher_prob)

        def step(carry, token: jax.Array):
            return *model.decode_step(params, memory, carry, token), None

        if feeding.knows_all:
            return feeding.known(draws)
        if options.passes:
            return in_passes(model, feeding, draws, params, memory)
        return in_a_scan(feeding, draws, step, model.initial_carry(params, memory, len(target)))[0]

    def gold(params, memory, target, mask, key, teacher_prob) -> Fed:
        return feeding.all_gold(target)

    feed_tokens = unless_all_gold(replaced_or_gold, gold)

    def rollout(
        params: Params,
        memory: Memory,
        target: jax.Array | np.ndarray,
        mask: jax.Array | np.ndarray,
        key: jax.Array,
        teacher_prob: jax.Array,
    ) -> Fed:
        target, mask = jnp.asarray(target, jnp.int32).T, jnp.asarray(mask, bool).T
        return feed_tokens(params, memory, target, mask, key, jnp.float32(teacher_prob)).turned()

    return rollout


def in_a_scan(
    feeding: Feeding,
    draws: Draws,
    step: Callable[[Any, jax.Array], tuple[Any, jax.Array, Any]],
    carry: Any,
) -> tuple[Fed, Any]:
    """Chooses the tokens one after another.

    Args:
      feeding: chooses a token.
      draws: of all steps.
      step: (carry, token [batch]) -> (carry, logits [batch, vocab_size], what to keep).
      carry: before the first step.

    Returns:
      What was fed, time first, and what the steps kept.
    """

    def one(state: tuple[Any, jax.Array], draws: Draws):
        carry, logits, kept = step(*state)
        token, replaced = feeding.next(logits, draws)
        return (carry, token), (token, replaced, kept)

    start = carry, feeding.first(draws.gold.shape[1])
    tokens, replaced, kept = jax.lax.scan(one, start, draws)[1]
    return feeding.fed(tokens, replaced), kept


def in_passes(
    model: Seq2SeqModel, feeding: Feeding, draws: Draws, params: Params, memory: Memory
) -> Fed:
    """Chooses all tokens at once, `passes` times, each time after those of the time before.

    Args:
      model: the functions of `Seq2SeqModel`.
      feeding: its options say how many passes there are.
      draws: of all steps; every pass uses the same ones.
      params: the model's parameters.
      memory: from `encode`.
    """

    def next_tokens(tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        if model.features is None:
            logits = model.decode_sequence(params, memory, tokens.T)
            return feeding.next(logits.swapaxes(0, 1), draws)
        features = model.features.sequence(params, memory, tokens)
        kernel, bias = model.features.output(params)
        return output_layer.map_blocks(
            lambda block: feeding.next(compute_logits(block[0], kernel, bias), block[1]),
            (features, draws),
            model.vocab_size,
        )

    def one(fed: Fed, _: None) -> tuple[Fed, None]:
        return feeding.fed(*next_tokens(fed.tokens)), None

    return jax.lax.scan(one, feeding.all_gold(draws.gold), None, feeding.options.passes)[0]
