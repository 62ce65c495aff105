"""Training objectives: what is fed, what each step is trained towards, and how it is weighed."""

from s2s_jax.feeding import RolloutOptions
from s2s_jax.objectives.cross_entropy import make_cross_entropy
from s2s_jax.objectives.distillation import Teacher, make_model_teacher
from s2s_jax.objectives.interface import (
    Objective,
    Optimum,
    ignores_teacher_prob,
    optimum_of,
)
from s2s_jax.objectives.r_drop import make_r_drop
from s2s_jax.objectives.sequence_losses import (
    make_minimum_risk,
    make_mixer,
    make_reinforce,
    make_self_critical,
)

__all__ = [
    "Objective",
    "Optimum",
    "RolloutOptions",
    "Teacher",
    "ignores_teacher_prob",
    "make_cross_entropy",
    "make_minimum_risk",
    "make_mixer",
    "make_model_teacher",
    "make_r_drop",
    "make_reinforce",
    "make_self_critical",
    "optimum_of",
]
