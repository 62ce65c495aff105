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
    Modules,
    copied_files,
    fingerprints,
    put_on_path,
    user_files,
)
from s2s_jax.schedules import linear


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules that is on the path during a test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
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


def test_a_fingerprint_is_of_the_content(tmp_path):
    copies = tmp_path / CODE_FOLDER
    copies.mkdir()
    (copies / "one.py").write_text("A = 1\n")
    before = fingerprints(copied_files(tmp_path))
    assert list(before) == ["one.py"]
    (copies / "one.py").write_text("A = 2\n")
    assert fingerprints(copied_files(tmp_path)) != before
