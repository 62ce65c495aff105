"""The exact optimum that scheduled sampling converges to."""

from s2s_jax.theory.optimum import (
    ScheduledSamplingOptimum,
    markov_sequence_probs,
    next_token_tables,
    optimum_divergences,
    scheduled_sampling_optimum,
    sequence_probs,
)

__all__ = [
    "ScheduledSamplingOptimum",
    "markov_sequence_probs",
    "next_token_tables",
    "optimum_divergences",
    "scheduled_sampling_optimum",
    "sequence_probs",
]
