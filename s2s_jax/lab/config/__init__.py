"""The keys of a config with their defaults, and the files that make one."""

from s2s_jax.lab.config.keys import (
    COMPARED_SCHEDULES,
    Config,
    Overrides,
    apply_overrides,
    base_config,
    flat_keys,
    parse_config,
    sweep_product,
    sweep_schedules,
)

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
