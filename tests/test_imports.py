"""The rules on imports: a user's training script needs the core and little else."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import s2s_jax

PACKAGE = Path(s2s_jax.__file__).parent
ALL_FILES = sorted(PACKAGE.rglob("*.py"))
CORE_FILES = [
    path for path in ALL_FILES if path.relative_to(PACKAGE).parts[0] not in ("data", "lab")
]
TESTS = Path(__file__).parent
CONFIG_READERS = {
    "lab/config/components.py",
    "lab/config/keys.py",
    "lab/config/overrides.py",
    "lab/runs/run_folder.py",
}
ROOMS = (
    "base",
    "config",
    "runs",
    "evaluation",
    "training",
    "verification",
    "exposure",
    "comparison",
    "sweeps",
)
"""The packages of the lab; each may import those before it."""

WHOLE_BEHAVIOURS = {
    "test_benchmarks.py": "benchmarks/",
    "test_docs_scripts.py": "docs/scripts/",
    "test_experiments.py": "experiments/",
    "test_gpu.py": "the core on a GPU",
    "test_imports.py": "the whole package",
    "test_platforms.py": "the core lowered for other platforms",
    "test_readme.py": "README.md and docs/",
    "lab/test_results_page.py": "docs/scripts/results.py",
    "lab/test_browser.py": "TensorBoard and report.html in a browser",
    "lab/test_own_parts.py": "examples/own_parts",
    "lab/test_damaged_files.py": "every command on damaged files",
    "lab/training/test_average_decay.py": "runs whose parameters are averaged",
    "lab/training/test_feedback.py": "runs whose schedule follows training",
    "lab/training/test_population.py": "runs as lanes of one program",
    "lab/training/test_resume.py": "stopped and killed runs",
    "lab/training/test_shared_vocabulary.py": "runs with one vocabulary",
    "lab/training/test_tokens_per_batch.py": "runs with batches by number of tokens",
    "lab/verification/test_convergence.py": "the train step, to its end",
}
"""Tests of more than one module, and what they test."""


def module_name(path: Path) -> str:
    parts = (PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    """Every module imported anywhere in a file, including in functions, by its absolute name."""
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
    assert {"__init__.py", "rollout.py", "training.py", "models/rnn/functions.py"} <= core
    assert len(CORE_FILES) < len(ALL_FILES)


@pytest.mark.parametrize("path", CORE_FILES, ids=relative)
def test_the_core_imports_jax_flax_optax_numpy_and_itself(path):
    allowed = {"jax", "numpy", "optax", "s2s_jax", *sys.stdlib_module_names}
    if relative(path).startswith("models/"):
        allowed.add("flax")
    for name in imports_of(path):
        assert name.split(".")[0] in allowed
        assert not is_inside(name, "s2s_jax.data", "s2s_jax.lab")


def test_the_data_room_does_not_import_the_lab():
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


def test_the_package_has_a_version_and_finds_its_modules():
    code = (
        "import sys, s2s_jax\n"
        "assert not any(name.startswith('s2s_jax.') for name in sys.modules)\n"
        "assert 'jax' not in sys.modules\n"
        "print(s2s_jax.__version__, s2s_jax.schedules.constant(0.5)(0))\n"
        "print(hasattr(s2s_jax, 'nothing'), hasattr(s2s_jax, '__wrapped__'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert done.stdout == f"{version('s2s_jax')} 0.5\nFalse False\n"
    assert (PACKAGE / "py.typed").exists()


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


def room(name: str) -> str | None:
    """The package of the lab that a module is in; None for other modules and the lab's own."""
    parts = name.split(".")
    return (
        parts[2] if parts[:2] == ["s2s_jax", "lab"] and parts[2:3] and parts[2] in ROOMS else None
    )


@pytest.mark.parametrize(
    "path", [path for path in ALL_FILES if room(module_name(path))], ids=relative
)
def test_the_rooms_of_the_lab_import_downwards(path):
    own = ROOMS.index(str(room(module_name(path))))
    for name in imports_of(path):
        other = room(name)
        if is_inside(name, "s2s_jax.lab") and other is None:
            assert name == "s2s_jax.lab", f"{name} is one of the lab's doors"
        elif other is not None:
            assert ROOMS.index(other) <= own, f"{name} is above"


def test_every_package_of_the_lab_is_a_room():
    packages = {path.parent.name for path in (PACKAGE / "lab").glob("*/__init__.py")}
    assert packages == set(ROOMS)


def test_tests_mirror_the_rooms():
    for path in TESTS.rglob("test_*.py"):
        name = path.relative_to(TESTS).as_posix()
        if name in WHOLE_BEHAVIOURS:
            continue
        module = PACKAGE / path.relative_to(TESTS).with_name(path.name.removeprefix("test_"))
        assert module.exists() or module.with_suffix("").is_dir(), name
    assert all((TESTS / name).exists() for name in WHOLE_BEHAVIOURS)
