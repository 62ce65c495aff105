"""The user's modules: which ones belong to a run, and how copies of them are imported."""

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.user_code import (
    CODE_FOLDER,
    ENVIRONMENT,
    Modules,
    changed_since_import,
    copied_files,
    fingerprints,
    put_on_path,
    user_files,
)
from s2s_jax.schedules import linear


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder of modules that is on the path during a test."""
    home = tmp_path / "home"
    home.mkdir()
    put_on_path(home)
    yield home
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def test_the_files_of_a_function_are_its_module_and_what_that_imports(folder):
    (folder / "kit").mkdir()
    (folder / "kit" / "__init__.py").write_text("")
    (folder / "kit" / "inner.py").write_text("from . import deep\n")
    (folder / "kit" / "deep.py").write_text("import json\n")
    (folder / "lazy.py").write_text("VALUE = 1\n")
    (folder / "unused.py").write_text("")
    (folder / "main_part.py").write_text(
        "import jax\nfrom s2s_jax.schedules import linear\nfrom kit.inner import deep\n"
        "def make():\n    import lazy\n    return linear\n"
    )
    module = importlib.import_module("main_part")
    found = user_files([module.make, linear])
    assert list(found) == [
        "kit/__init__.py",
        "kit/deep.py",
        "kit/inner.py",
        "lazy.py",
        "main_part.py",
    ]
    assert found["lazy.py"] == folder / "lazy.py"


def copy_of(files: dict[str, Path], run: Path) -> Path:
    for name, path in files.items():
        copy = run / CODE_FOLDER / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return run / CODE_FOLDER


def test_copies_of_several_versions_can_be_open_together(folder, tmp_path):
    opened = []
    for number in (1, 2):
        (folder / "helper.py").write_text(f"VALUE = {number}\n")
        (folder / "thing.py").write_text("import helper\ndef make():\n    return helper.VALUE\n")
        files = {name: folder / name for name in ("helper.py", "thing.py")}
        opened.append(Modules(copy_of(files, tmp_path / f"run_{number}")))
    found = [one.find("model.name", "thing:make") for one in opened]
    assert [one() for one in found] == [1, 2]
    assert "thing" not in sys.modules
    assert opened[0].find("model.name", "thing:make") is found[0]
    shutil.rmtree(folder)
    assert opened[1].find("model.name", "thing:make")() == 2


def test_a_copy_of_an_imported_module_is_that_module(folder, tmp_path):
    (folder / "same.py").write_text("class Thing: ...\n")
    module = importlib.import_module("same")
    copies = copy_of({"same.py": folder / "same.py"}, tmp_path / "run")
    assert Modules(copies).find("model.name", "same:Thing") is module.Thing


def test_a_copy_that_only_a_function_imports_may_be_impossible_to_import(folder, tmp_path):
    (folder / "plots.py").write_text("import not_there\n")
    (folder / "thing.py").write_text("def make(): return 1\ndef plot():\n    import plots\n")
    files = user_files([importlib.import_module("thing")])
    assert list(files) == ["plots.py", "thing.py"]
    del sys.modules["thing"]
    modules = Modules(copy_of(files, tmp_path / "run"))
    assert modules.find("model.name", "thing:make")() == 1
    with pytest.raises(LabError, match=r"plots in .* cannot be imported: plots.py, line 1: Module"):
        modules.find("model.name", "plots:make")


def test_a_copy_that_cannot_be_imported_is_named(folder, tmp_path):
    (folder / "broken.py").write_text("\nraise KeyError('x')\n")
    copies = copy_of({"broken.py": folder / "broken.py"}, tmp_path / "run")
    with pytest.raises(LabError, match=r"cannot be imported: broken.py, line 2: KeyError: x"):
        Modules(copies).find("model.name", "broken:make")


def test_modules_next_to_another_experiment_are_different_ones(folder, tmp_path):
    (folder / "neighbour.py").write_text("VALUE = 1\n")
    assert importlib.import_module("neighbour").VALUE == 1
    other = tmp_path / "other"
    other.mkdir()
    (other / "neighbour.py").write_text("VALUE = 22\n")
    put_on_path(other)
    assert importlib.import_module("neighbour").VALUE == 22
    assert str(folder) not in sys.path


def test_a_package_without_an_init_is_another_one_next_to_another_experiment(folder, tmp_path):
    for number, home in enumerate((folder, tmp_path / "other")):
        (home / "bare").mkdir(parents=True)
        (home / "bare" / "inner.py").write_text(f"VALUE = {number}\n")
        if number:
            (home / "bare" / "__init__.py").write_text("")
        put_on_path(home)
        assert number == importlib.import_module("bare.inner").VALUE


def test_files_are_found_whatever_they_import(folder):
    (folder / "__init__.py").write_text("from . import thing\n")
    (folder / "broken.py").write_text("def (\n")
    (folder / "thing.py").write_text(
        "try:\n    from . import helper\nexcept ImportError:\n    import helper\n"
        "try:\n    import broken\nexcept SyntaxError:\n    broken = None\n"
    )
    (folder / "helper.py").write_text("")
    found = user_files([importlib.import_module("thing")])
    assert list(found) == ["broken.py", "helper.py", "thing.py"]


def test_a_linked_file_is_known_by_the_name_that_is_imported(folder, tmp_path):
    (tmp_path / "shared.py").write_text("def make(): ...\n")
    (folder / "linked.py").symlink_to(tmp_path / "shared.py")
    assert user_files([importlib.import_module("linked")]) == {"linked.py": folder / "linked.py"}


def test_what_was_imported_counts_not_what_was_edited_since(folder):
    path = folder / "edited.py"
    path.write_text("def make(): return 1\n")
    ENVIRONMENT.find("model.name", "edited:make")
    files = {"edited.py": path}
    before = fingerprints(files)
    path.write_text("def make(): return 22\n")
    assert fingerprints(files) == before
    assert changed_since_import(files) == ["edited.py"]
    importlib.invalidate_caches()
    importlib.reload(sys.modules["edited"])
    assert ENVIRONMENT.find("model.name", "edited:make")() == 22
    assert fingerprints(files) != before
    assert changed_since_import(files) == []
    path.unlink()
    assert ENVIRONMENT.find("model.name", "edited:make")() == 22
    assert user_files([sys.modules["edited"]]) == files
    assert changed_since_import(files) == ["edited.py"]


def test_a_module_that_hides_the_file_next_to_the_experiment_is_rejected(folder):
    (folder / "json.py").write_text("def make(): ...\n")
    with pytest.raises(LabError, match=r"json is .*json/__init__.py, which comes before .*json.py"):
        ENVIRONMENT.find("model.name", "json:make")


def test_a_function_of_a_session_is_rejected():
    with pytest.raises(LabError, match="move the function to a module of its own"):
        ENVIRONMENT.find("model.name", "__main__:make")


def test_what_a_module_prints_is_not_part_of_a_result(folder, capsys):
    (folder / "loud.py").write_text("print('imported')\ndef make(): ...\n")
    ENVIRONMENT.find("model.name", "loud:make")
    assert capsys.readouterr() == ("", "imported\n")


@pytest.mark.parametrize("content", ["{}['x']\n", "import sys\nsys.exit(1)\n"])
def test_a_package_that_cannot_be_imported_is_named(folder, content):
    (folder / "bad").mkdir()
    (folder / "bad" / "__init__.py").write_text(content)
    (folder / "bad" / "inner.py").write_text("")
    with pytest.raises(LabError, match=r"bad.inner cannot be imported: __init__.py, line \d: "):
        ENVIRONMENT.find("model.name", "bad.inner:make")


def test_a_fingerprint_is_of_the_content(tmp_path):
    copies = tmp_path / CODE_FOLDER
    copies.mkdir()
    (copies / "one.py").write_text("A = 1\n")
    before = fingerprints(copied_files(tmp_path))
    assert list(before) == ["one.py"]
    (copies / "one.py").write_text("A = 2\n")
    assert fingerprints(copied_files(tmp_path)) != before
