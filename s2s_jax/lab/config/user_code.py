"""The user's own modules: finds them by name, copies them to run folders and loads the copies."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import importlib.util
import inspect
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from s2s_jax.data.files import fingerprint
from s2s_jax.lab.base.errors import LabError, one_line
from s2s_jax.names import did_you_mean

CODE_FOLDER = "code"
"""The folder of a run that holds copies of the user's modules."""


class Modules:
    """Finds the functions that a config names by `module:function`.

    Args:
      copies: the folder with a run's copies of the user's modules; None for the modules that Python
        finds, including the folder of the experiment.
    """

    def __init__(self, copies: Path | None = None):
        self._copies = copies

    def find(self, key: str, name: str) -> Any:
        """Finds what a config names.

        Args:
          key: the key in the config, for messages.
          name: `module:function`.

        Raises:
          LabError: the module does not exist, cannot be imported, or has nothing of that name.
        """
        module_name, _, attribute = name.partition(":")
        if module_name.endswith(".py") or "/" in module_name:
            stem = Path(module_name).stem
            raise LabError(f"{key} is {name!r}; name the module, not its file: {stem}:{attribute}")
        if not module_name or not attribute:
            raise LabError(f"{key} is {name!r}; write module:function")
        module = self._import(key, name, module_name)
        found = module
        for part in attribute.split("."):
            if not hasattr(found, part):
                known = [one for one in vars(module) if not one.startswith("_")]
                raise LabError(
                    f"{key} is {name!r}; {module_name} has no {attribute!r};"
                    f" {did_you_mean(attribute, known)}"
                )
            found = getattr(found, part)
        return found

    def _import(self, key: str, name: str, module_name: str) -> ModuleType:
        if self._copies is not None:
            copied = _open_copies(self._copies)
            if module_name in copied:
                return copied[module_name]
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if module_name != missing and not module_name.startswith(f"{missing}."):
                raise LabError(f"{key} is {name!r}; {_told(error, module_name)}") from error
            there = sorted(
                {one.stem for folder in _experiment_folders for one in folder.glob("*.py")}
            )
            beside = f"; {did_you_mean(module_name, there)}" if there else ""
            raise LabError(
                f"{key} is {name!r}; there is no module {module_name} in the environment or next to"
                f" the experiment file{beside}"
            ) from error
        except (Exception, SystemExit) as error:
            raise LabError(f"{key} is {name!r}; {_told(error, module_name)}") from error


ENVIRONMENT = Modules()
"""The modules that Python finds."""

_experiment_folders: list[Path] = []


def put_on_path(folder: Path) -> None:
    """Makes the modules next to an experiment file importable, after all installed ones.

    Modules from the folder of a previous experiment are unloaded, since a module of the same name
    is a different one there.
    """
    folder = folder.resolve()
    if _experiment_folders == [folder]:
        return
    for old in _experiment_folders:
        if str(old) in sys.path:
            sys.path.remove(str(old))
        for name, module in list(sys.modules.items()):
            is_below = (getattr(module, "__file__", None) or "").startswith(f"{old}/")
            if is_below and str(old) not in sys.path and root_of(module) == old:
                del sys.modules[name]
    _experiment_folders[:] = [folder]
    importlib.invalidate_caches()
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def root_of(module: ModuleType) -> Path | None:
    """The folder from which a user's module was imported; None if it is not the user's.

    The standard library, installed packages and this package are not the user's.
    """
    file, name = getattr(module, "__file__", None), module.__name__
    if not file or name.split(".")[0] in ("s2s_jax", "__main__") or not file.endswith(".py"):
        return None
    path = Path(file).resolve()
    if any(path.is_relative_to(one) for one in _installed()):
        return None
    levels = name.count(".") + (path.name == "__init__.py")
    return path.parents[levels]


def user_files(functions: Iterable[Callable[..., Any] | ModuleType]) -> dict[str, Path]:
    """The user's files that functions need: the files of their modules and of what these import.

    Args:
      functions: functions or modules, not necessarily the user's.

    Returns:
      The path relative to the folder it was imported from, with slashes -> the file.
    """
    found: dict[str, Path] = {}
    for function in functions:
        module = inspect.getmodule(function)
        root = root_of(module) if module is not None else None
        if module is None or root is None:
            continue
        waiting, seen = [module.__name__], set()
        while waiting:
            name = waiting.pop()
            if name in seen or name.split(".")[0] == "s2s_jax":
                continue
            seen.add(name)
            path = _file_of(root, name)
            if path is None:
                continue
            found[path.relative_to(root).as_posix()] = path
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            waiting += _imports(path, package)
            parts = name.split(".")
            waiting += [".".join(parts[:end]) for end in range(1, len(parts))]
    return dict(sorted(found.items()))


def fingerprints(files: Mapping[str, Path]) -> dict[str, str]:
    """The path of each file -> sixteen hex digits that identify its content."""
    return {name: fingerprint(path.read_bytes()) for name, path in files.items()}


def copied_files(run_folder: Path) -> dict[str, Path]:
    """The copies in a run's folder, in the form in which `user_files` returns the originals."""
    folder = run_folder / CODE_FOLDER
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*.py"))
        if "__pycache__" not in path.parts
    }


def line_in(error: BaseException, files: Iterable[Path]) -> tuple[str, int] | None:
    """The last line of some files that led to an error, (file's name, line); None if none did."""
    known = {one.resolve() for one in files}
    place, frame = None, error.__traceback__
    while frame is not None:
        path = Path(frame.tb_frame.f_code.co_filename)
        if path.resolve() in known:
            place = path.name, frame.tb_lineno
        frame = frame.tb_next
    return place


@contextlib.contextmanager
def own_errors_in_a_line(what: str, files: Iterable[Path]) -> Iterator[None]:
    """Turns an exception that comes from the user's own code into one line.

    Args:
      what: what fails, for the message.
      files: the user's own files; an exception that they did not cause is raised unchanged.

    Raises:
      LabError: an exception came from the files; the message names the file and the line.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, LabError) or not line_in(error, files):
            raise
        raise LabError(f"{what} fails: {where_in(error, files)}") from error


def where_in(error: BaseException, files: Iterable[Path]) -> str:
    """The message of an error, with the last line of the given files that led to it."""
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{Path(error.filename).name}, line {error.lineno}: "
        return f"{place}{type(error).__name__}: {error.msg}"
    place = line_in(error, files)
    return (f"{place[0]}, line {place[1]}: " if place else "") + _said(error)


def where(error: BaseException, file: Path) -> str:
    """The message of an error, with the last line of one file that led to it, without its name."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    place = line_in(error, [file])
    return (f"line {place[1]}: " if place else "") + _said(error)


def _said(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code!r})"
    return f"{type(error).__name__}: {one_line(error)}"


def _told(error: BaseException, module_name: str) -> str:
    """Why a module cannot be imported."""
    files = []
    spec = None
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        spec = importlib.util.find_spec(module_name)
    if spec is not None and spec.origin:
        files = list(Path(spec.origin).parent.glob("*.py"))
    return f"{module_name} cannot be imported: {where_in(error, files)}"


@functools.cache
def _installed() -> set[Path]:
    """The folders of installed packages and of the standard library."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    paths = [sysconfig.get_paths()[one] for one in names]
    if site.ENABLE_USER_SITE:
        paths.append(site.getusersitepackages())
    return {Path(one).resolve() for one in paths}


def _file_of(root: Path, name: str) -> Path | None:
    base = root.joinpath(*name.split("."))
    for path in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(path: Path, package: str) -> Iterator[str]:
    """The absolute names of all modules that a file may import, including in functions."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if package and node.level else []
            base = parts[: len(parts) - node.level + 1] if node.level else []
            origin = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            yield origin
            yield from (f"{origin}.{alias.name}".strip(".") for alias in node.names)


_opened: dict[str, dict[str, ModuleType]] = {}


def _open_copies(folder: Path) -> dict[str, ModuleType]:
    """Imports a run's copies by name, separately from other modules of the same names.

    If modules with the same names and content are already imported, these are used.
    """
    files = copied_files(folder.parent)
    content = fingerprint(sorted(fingerprints(files).items()))
    if content in _opened:
        return _opened[content]
    names = {_module_name(name): path for name, path in files.items()}
    present = {name: sys.modules[name] for name in names if name in sys.modules}
    if len(present) == len(names) and all(
        _same_content(present[name], path) for name, path in names.items()
    ):
        _opened[content] = present
        return present
    own = {name.split(".")[0] for name in names}
    hidden = {
        name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in own
    }
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        found = {name: importlib.import_module(name) for name in names}
    except (Exception, SystemExit) as error:
        told = where_in(error, files.values())
        raise LabError(f"the copies of modules in {folder} cannot be imported: {told}") from error
    finally:
        sys.path.remove(str(folder))
        for name in [one for one in sys.modules if one.split(".")[0] in own]:
            del sys.modules[name]
        sys.modules.update(hidden)
    _opened[content] = found
    return found


def _module_name(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def _same_content(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return (
        bool(file)
        and Path(str(file)).is_file()
        and (Path(str(file)).read_bytes() == path.read_bytes())
    )
