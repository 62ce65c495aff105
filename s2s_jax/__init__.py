"""s2s_jax: a laboratory for exposure bias in sequence-to-sequence models.

`import s2s_jax` loads none of its modules; `s2s_jax.schedules` and the others are imported when
they are first used.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

try:
    __version__ = version("s2s_jax")
except PackageNotFoundError:  # a checkout that is on the path and not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> ModuleType:
    """A module of the package, imported at its first use."""
    if not name.startswith("_"):
        full = f"{__name__}.{name}"
        try:
            return importlib.import_module(full)
        except ModuleNotFoundError as error:
            if error.name != full:  # something that the module needs is missing
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
