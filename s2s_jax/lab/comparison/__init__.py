"""`s2s compare`: the schedules of a sweep over their seeds."""

from s2s_jax.lab.comparison.comparison import compare, metric_names, write_comparison
from s2s_jax.lab.runs.collect import collect

__all__ = [
    "collect",
    "compare",
    "metric_names",
    "write_comparison",
]
