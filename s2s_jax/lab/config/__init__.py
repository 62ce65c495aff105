"""The keys of a config with their defaults, and the experiment files that make configs.

The names here are imported when they are first used: some modules of this package need no JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "grids": ("COMPARED_SCHEDULES", "sweep_product", "sweep_schedules"),
    "keys": ("Config", "Overrides", "base_config", "flat_keys"),
    "overrides": ("apply_overrides", "parse_config"),
}


def __getattr__(name: str) -> Any:
    """A name of one of the modules, which is imported now."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
