"""The versions that a result depends on."""

import sys
from importlib.metadata import version

_PACKAGES = ("s2s_jax", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")


def versions() -> dict[str, str]:
    """Name -> version of Python and of the packages that compute or provide the data."""
    return {"python": sys.version.split()[0]} | {name: version(name) for name in _PACKAGES}
