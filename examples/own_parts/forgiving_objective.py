"""An objective of one's own: no loss for the tokens right after a wrong feed."""

import jax.numpy as jnp

from s2s_jax.batch import gold_inputs, to_jax
from s2s_jax.losses import cross_entropy
from s2s_jax.metrics import masked_mean
from s2s_jax.prng import stream_key
from s2s_jax.rollout import make_rollout


def make(model, *, rollout=None, keep=0.0):
    """(params, batch, key, teacher_prob) -> (loss, metric sums), among them "loss"."""
    feed_tokens = make_rollout(model, rollout)

    def objective(params, batch, key, teacher_prob):
        source, source_mask, target, mask = to_jax(batch)
        memory = model.encode(params, source, source_mask, stream_key(key, "dropout"))
        fed = feed_tokens(params, memory, target, mask, key, teacher_prob)
        right = fed.tokens == gold_inputs(target)
        logits = model.decode_sequence(params, memory, fed.tokens)
        loss = cross_entropy(logits, target, mask & right)
        others = cross_entropy(logits, target, mask & ~right)
        total = loss.total + keep * others.total
        sums = {"loss": loss, "counted": masked_mean(right, mask)}
        return total / jnp.maximum(loss.weight, 1.0), sums

    return objective
