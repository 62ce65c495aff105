"""Training objectives: what is fed, what each step is trained towards, and how it is weighed."""

from s2s_jax.feeding import RolloutOptions
from s2s_jax.objectives.cross_entropy import make_cross_entropy
from s2s_jax.objectives.distillation import Teacher, make_model_teacher
from s2s_jax.objectives.interface import Objective, Optimum, optimum_of

__all__ = [
    "Objective",
    "Optimum",
    "RolloutOptions",
    "Teacher",
    "make_cross_entropy",
    "make_model_teacher",
    "optimum_of",
]
