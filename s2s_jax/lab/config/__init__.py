"""The keys of a config with their defaults, and the experiment files that make configs."""

from s2s_jax.lab.config.grids import COMPARED_SCHEDULES, sweep_product, sweep_schedules
from s2s_jax.lab.config.keys import Config, Overrides, base_config, flat_keys
from s2s_jax.lab.config.overrides import apply_overrides, parse_config

__all__ = [
    "COMPARED_SCHEDULES",
    "Config",
    "Overrides",
    "apply_overrides",
    "base_config",
    "flat_keys",
    "parse_config",
    "sweep_product",
    "sweep_schedules",
]
