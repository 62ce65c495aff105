"""What training methods converge to, exactly, where the truth is known."""

from s2s_jax.theory.completion import completion_divergences, completion_optimum
from s2s_jax.theory.distillation import distillation_divergences, distillation_optimum
from s2s_jax.theory.optimum import (
    markov_sequence_probs,
    next_token_tables,
    optimum_divergences,
    scheduled_sampling_optimum,
    sequence_probs,
)
from s2s_jax.theory.raml import raml_divergences, raml_optimum, replacement_prob
from s2s_jax.theory.recursion import TrainingOptimum
from s2s_jax.theory.risk import MinimumRisk, minimum_risk

__all__ = [
    "MinimumRisk",
    "TrainingOptimum",
    "completion_divergences",
    "completion_optimum",
    "distillation_divergences",
    "distillation_optimum",
    "markov_sequence_probs",
    "minimum_risk",
    "next_token_tables",
    "optimum_divergences",
    "raml_divergences",
    "raml_optimum",
    "replacement_prob",
    "scheduled_sampling_optimum",
    "sequence_probs",
]
