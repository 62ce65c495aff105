"""Experiment files: Python modules with `get_config` and `sweep`, and their errors."""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.user_code import printing_beside_results, put_on_path, where
from s2s_jax.names import did_you_mean


def split_config(name: str) -> tuple[str, str]:
    """Splits FILE[:ARGUMENT] into file and argument ("" if none); the path may contain colons.

    If the whole text is a file, it is the file; otherwise the file is the shortest part before a
    colon that exists.

    Example:
      >>> split_config("experiments/g2p.py:linear"), split_config("a:b/pt.py")
      (('experiments/g2p.py', 'linear'), ('a:b/pt.py', ''))
    """
    parts = name.split(":")
    splits = [(":".join(parts[:end]), ":".join(parts[end:])) for end in range(1, len(parts))]
    splits.insert(0, (name, ""))
    found = next((one for one in splits if Path(one[0]).is_file()), None)
    if found is not None:
        return found
    # No such file exists: split where it looks most like a file and an argument, for the message.
    file, _, argument = name.rpartition(":")
    named = file and "/" not in argument and not argument.endswith(".py")
    return (file, argument) if named else (name, "")


def load_experiment(path: str) -> ModuleType:
    """Imports an experiment file.

    Raises:
      LabError: it is missing, or it raises an error.
    """
    file = Path(path)
    if file.is_dir():
        raise LabError(f"config file {path} is a folder; name a file in it")
    if not file.is_file():
        siblings = [one.stem for one in sorted(file.parent.glob("*.py"))]
        hint = f"; {did_you_mean(file.stem, siblings)}" if siblings else ""
        raise LabError(f"config file {path} does not exist{hint}")
    spec = importlib.util.spec_from_file_location(f"s2s_experiment_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    put_on_path(file.parent, file.resolve().parent)
    # An experiment may import another one in its folder: `from experiments import g2p`.
    root = str(file.resolve().parent.parent)
    if root not in sys.path:
        sys.path.append(root)
    sys.modules[spec.name] = module  # dataclasses look up their own module here
    try:
        with printing_beside_results():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise LabError(f"config file {path} cannot be read: {where(error, file)}") from error
    return module


def sweep_of(path: str) -> list[dict[str, Any]]:
    """The overrides of each run, as yielded by the `sweep` function of an experiment file.

    FILE:ARGUMENT passes the argument to a `sweep` that takes one.

    Raises:
      LabError: the file has no such function, or it raises or yields something else.
    """
    arguments = [split_config(path)[1]] if sweep_takes_argument(path) else []
    path, _ = split_config(path)
    sweep = function_of(load_experiment(path), "sweep", path)
    try:
        with printing_beside_results():
            runs = list(sweep(*filter(None, arguments)))
    except (Exception, SystemExit) as error:
        message = where(error, Path(path))
        raise LabError(f"sweep() of {path} cannot be used: {message}") from error
    if not all(isinstance(one, dict) and all(isinstance(key, str) for key in one) for one in runs):
        raise LabError(f"sweep() of {path} must yield dicts such as {{'schedule.name': 'linear'}}")
    return runs


def sweep_takes_argument(path: str) -> bool:
    """Whether the `sweep` function of an experiment file takes an argument, as `get_config` does.

    Raises:
      LabError: the file has no such function.
    """
    path, _ = split_config(path)
    sweep = function_of(load_experiment(path), "sweep", path)
    return bool(inspect.signature(sweep).parameters)


def function_of(module: ModuleType, name: str, path: str) -> Callable[..., Any]:
    """A function of an experiment file; raises a LabError if the file does not have it."""
    function = getattr(module, name, None)
    if not callable(function):
        raise LabError(f"config file {path} has no function {name}()")
    return function
