"""The exact optimum that scheduled sampling converges to."""

from s2s_jax.theory.optimum import (
    markov_sequence_probs,
    next_token_tables,
    optimum_divergences,
    scheduled_sampling_optimum,
    sequence_probs,
)
from s2s_jax.theory.recursion import TrainingOptimum

__all__ = [
    "TrainingOptimum",
    "markov_sequence_probs",
    "next_token_tables",
    "optimum_divergences",
    "scheduled_sampling_optimum",
    "sequence_probs",
]
