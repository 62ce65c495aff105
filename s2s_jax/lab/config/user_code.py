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
        if module_name == "__main__":
            raise LabError(
                f"{key} is {name!r}; a run cannot keep a copy of an interactive session or a"
                " script; move the function to a module of its own"
            )
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
                module = copied[module_name]
                if isinstance(module, LabError):
                    raise LabError(str(module))
                return module
        try:
            with printing_beside_results():
                module = importlib.import_module(module_name)
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
        _check_place(key, name, module)
        _remember(module)
        return module

    def files(self, name: str) -> dict[str, Path]:
        """The user's files behind `module:function`, which must have been found; for messages."""
        if self._copies is not None:
            copies = copied_files(self._copies.parent)
            if name.partition(":")[0] in map(_module_name, copies):
                return copies
        module = sys.modules.get(name.partition(":")[0])
        return {} if module is None else user_files([module])


ENVIRONMENT = Modules()
"""The modules that Python finds."""

_experiment_folders: list[Path] = []


def put_on_path(*folders: Path) -> None:
    """Makes the modules next to an experiment file importable, after all installed ones.

    Modules from the folders of a previous experiment are unloaded, since a module of the same name
    is a different one there.

    Args:
      *folders: the folder of the file, and if it is a link, that of the file it points to.
    """
    new = list(dict.fromkeys(folder.resolve() for folder in folders))
    if _experiment_folders == new:
        return
    for old in _experiment_folders:
        if str(old) in sys.path:
            sys.path.remove(str(old))
    left = {old for old in _experiment_folders if str(old) not in sys.path}
    for name, module in list(sys.modules.items()):
        if any(_is_from(old, module) for old in left):
            del sys.modules[name]
    _experiment_folders[:] = new
    importlib.invalidate_caches()
    sys.path += [str(folder) for folder in new if str(folder) not in sys.path]


def root_of(module: ModuleType) -> Path | None:
    """The folder from which a user's module was imported; None if it is not the user's.

    The standard library, installed packages and this package are not the user's.
    """
    file, name = getattr(module, "__file__", None), module.__name__
    if not file or name.split(".")[0] in ("s2s_jax", "__main__") or not file.endswith(".py"):
        return None
    path = Path(file).absolute()  # a link keeps the name by which it is imported
    if _is_installed(path):
        return None
    levels = name.count(".") + (path.name == "__init__.py")
    return path.parents[levels] if levels < len(path.parents) else None


def _is_from(folder: Path, module: ModuleType) -> bool:
    """Whether a module was imported from a folder that was put on the path."""
    if not isinstance(module, ModuleType):
        return False
    about = vars(module)  # attributes of a lazy module would import it
    file, packages = about.get("__file__"), about.get("__path__")
    if file is None and packages is not None:  # a package without an __init__.py
        return any(Path(one).is_relative_to(folder) for one in packages)
    return str(file).startswith(f"{folder}/") and root_of(module) == folder


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
            if not name or name in seen or name.split(".")[0] == "s2s_jax":
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
    return {name: fingerprint(content_of(path)) for name, path in files.items()}


def content_of(path: Path) -> bytes:
    """The content of a file; of a module, the content that was imported, which is what runs."""
    known = _imported.get(path)
    return path.read_bytes() if known is None else known[1]


def changed_since_import(files: Mapping[str, Path]) -> list[str]:
    """The names of the files that have been edited or deleted since they were imported."""
    return [
        name
        for name, path in files.items()
        if not path.is_file() or path.read_bytes() != content_of(path)
    ]


_imported: dict[Path, tuple[Any, bytes]] = {}
"""File -> the spec of the module that was imported from it, and its content at that time."""

_remembered: dict[str, dict[str, Any]] = {}
"""Module -> the specs of all modules that it needs; a module that is reloaded has a new spec."""


def _remember(module: ModuleType) -> None:
    """Keeps the content of the user's files that a module needs, as of now."""
    specs = _remembered.get(module.__name__)
    if specs and all(_spec(name) is one for name, one in specs.items()):
        return
    specs = _remembered[module.__name__] = {module.__name__: _spec(module.__name__)}
    for file, path in user_files([module]).items():
        name = _module_name(file)
        specs[name] = _spec(name)
        known = _imported.get(path)
        if known is None or known[0] is None or known[0] is not specs[name]:
            _imported[path] = specs[name], path.read_bytes()


def _spec(name: str) -> Any:
    return getattr(sys.modules.get(name), "__spec__", None)


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
    except (Exception, SystemExit) as error:
        if isinstance(error, LabError) or not line_in(error, files):
            raise
        raise LabError(f"{what} fails: {where_in(error, files)}") from error


@contextlib.contextmanager
def any_error_in_a_line(what: str, files: Iterable[Path]) -> Iterator[None]:
    """Turns every exception into one line; for calls of nothing but the user's own code.

    Args:
      what: what fails, for the message.
      files: the user's own files, whose lines are named.

    Raises:
      LabError: there was an exception.
    """
    try:
        with printing_beside_results():
            yield
    except (Exception, SystemExit) as error:
        if isinstance(error, LabError):
            raise
        raise LabError(f"{what} fails: {where_in(error, files)}") from error


@contextlib.contextmanager
def printing_beside_results() -> Iterator[None]:
    """Sends what the user's own code prints to stderr: a command's stdout holds its result."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


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
    said = one_line(error)  # JAX's messages can be pages long
    return f"{type(error).__name__}: {said if len(said) <= 400 else f'{said[:397]}...'}"


def _told(error: BaseException, module_name: str) -> str:
    """Why a module cannot be imported."""
    files: list[Path] = []
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        spec = importlib.util.find_spec(module_name.split(".")[0])  # a whole name imports parents
        if spec is not None and spec.submodule_search_locations is not None:
            packages = map(Path, spec.submodule_search_locations)
            files = [file for package in packages for file in package.rglob("*.py")]
        elif spec is not None and spec.origin:
            files = list(Path(spec.origin).parent.glob("*.py"))
    return f"{module_name} cannot be imported: {where_in(error, files)}"


def _check_place(key: str, name: str, module: ModuleType) -> None:
    """Rejects a module that hides one of the same name next to the experiment file."""
    top = module.__name__.split(".")[0]
    beside = next((path for one in _experiment_folders if (path := _file_of(one, top))), None)
    if beside is None:
        return
    found = getattr(sys.modules.get(top), "__file__", None)
    if found and (Path(found) == beside or (beside.exists() and beside.samefile(found))):
        return
    raise LabError(
        f"{key} is {name!r}; {top} is {found or 'a module of Python itself'}, which comes before"
        f" {beside}; rename that file"
    )


def _is_installed(path: Path) -> bool:
    """Whether a file, or what it links to, is in a folder of installed packages."""
    files = path, path.resolve()
    return any(file.is_relative_to(folder) for file in files for folder in _installed())


@functools.cache
def _installed() -> set[Path]:
    """The folders of installed packages and of the standard library."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    paths = [sysconfig.get_paths()[one] for one in names]
    paths += [one for one in site.getsitepackages() if one.endswith("-packages")]
    if site.ENABLE_USER_SITE:
        paths.append(site.getusersitepackages())
    return {one for path in paths for one in (Path(path), Path(path).resolve())}


def _file_of(root: Path, name: str) -> Path | None:
    base = root.joinpath(*name.split("."))
    for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
        if path in _imported or path.is_file():
            return path
    return None


def _imports(path: Path, package: str) -> Iterator[str]:
    """The absolute names of all modules that a file may import, including in functions."""
    try:
        tree = ast.parse(content_of(path))
    except (SyntaxError, ValueError):  # a file that some other imports only in some cases
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if package and node.level else []
            base = parts[: len(parts) - node.level + 1] if node.level else []
            origin = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            yield origin
            yield from (f"{origin}.{alias.name}".strip(".") for alias in node.names)


_opened: dict[str, dict[str, ModuleType | LabError]] = {}


def _open_copies(folder: Path) -> dict[str, ModuleType | LabError]:
    """Imports a run's copies by name, separately from other modules of the same names.

    If modules with the same names and content are already imported, these are used. A copy that
    cannot be imported is an error only for those who need it: perhaps it was imported in a function
    that is never called.
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
        _opened[content] = {**present}
        return _opened[content]
    own = {name.split(".")[0] for name in names}
    hidden = {
        name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in own
    }
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    found: dict[str, ModuleType | LabError] = {}
    try:
        for name in names:
            try:
                with printing_beside_results():
                    found[name] = importlib.import_module(name)
            except (Exception, SystemExit) as error:
                told = where_in(error, files.values())
                found[name] = LabError(f"the copy of {name} in {folder} cannot be imported: {told}")
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
    file = Path(getattr(module, "__file__", None) or "")
    return (file in _imported or file.is_file()) and content_of(file) == path.read_bytes()
