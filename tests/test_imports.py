"""The laws of who may import what: somebody's training script needs the core and little else."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import s2s_jax

PACKAGE = Path(s2s_jax.__file__).parent
ALL_FILES = sorted(PACKAGE.rglob("*.py"))
CORE_FILES = [
    path for path in ALL_FILES if path.relative_to(PACKAGE).parts[0] not in ("data", "lab")
]
CONFIG_READERS = {"lab/config.py", "lab/experiment.py", "lab/run.py"}


def module_name(path: Path) -> str:
    parts = (PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    """Every module imported anywhere in a file, in functions too, by its absolute name."""
    package = module_name(path).split(".")
    if path.stem != "__init__":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            yield origin
            if (
                origin.split(".")[0] == PACKAGE.name
            ):  # `from s2s_jax import lab` imports s2s_jax.lab
                yield from (f"{origin}.{alias.name}" for alias in node.names)


def is_inside(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_the_files_of_core_data_and_lab_are_found():
    core = {relative(path) for path in CORE_FILES}
    assert {"__init__.py", "rollout.py", "training.py", "models/rnn.py"} <= core
    assert len(CORE_FILES) < len(ALL_FILES)


@pytest.mark.parametrize("path", CORE_FILES, ids=relative)
def test_the_core_imports_jax_flax_optax_numpy_and_itself(path):
    allowed = {"jax", "numpy", "optax", "s2s_jax", *sys.stdlib_module_names}
    if path.parent.name == "models":
        allowed.add("flax")
    for name in imports_of(path):
        assert name.split(".")[0] in allowed
        assert not is_inside(name, "s2s_jax.data", "s2s_jax.lab")


def test_the_data_room_knows_nothing_of_the_lab():
    for path in (PACKAGE / "data").rglob("*.py"):
        assert not any(is_inside(name, "s2s_jax.lab") for name in imports_of(path)), path.name


def test_only_the_readers_of_configs_import_ml_collections():
    readers = {
        relative(path)
        for path in ALL_FILES
        if any(is_inside(name, "ml_collections") for name in imports_of(path))
    }
    assert readers
    assert readers <= CONFIG_READERS


def test_importing_the_core_loads_nothing_that_jax_flax_and_optax_do_not():
    modules = [module_name(path) for path in CORE_FILES]
    code = (
        "import importlib, json, sys\n"
        "import flax.nnx, numpy, optax\n"
        "before = set(sys.modules)\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    loaded = json.loads(done.stdout)
    assert set(modules) <= set(loaded)
    theirs = {"jax", "jaxlib", "flax", "optax", "numpy", "ml_dtypes", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name in loaded} - theirs == {"s2s_jax"}
