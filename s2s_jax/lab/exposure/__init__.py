"""`s2s exposure`: the exposure bias of trained runs."""

from s2s_jax.lab.exposure.exposure import GROUPS, measure_runs

__all__ = [
    "GROUPS",
    "measure_runs",
]
