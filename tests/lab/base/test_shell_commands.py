"""The commands shown to a user work in a shell."""

import os
import sys
from pathlib import Path

import pytest

from s2s_jax.lab.base.shell_commands import called, command_line


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with an environment that has one program, which is not on the path."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "tensorboard"):
        (programs / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    monkeypatch.chdir(tmp_path)
    return programs


def test_in_the_projects_folder_the_path_is_short(environment: Path):
    assert called("tensorboard") == ".venv/bin/tensorboard"


def test_elsewhere_the_path_is_absolute(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert called("tensorboard") == str(environment / "tensorboard")


def test_in_an_activated_environment_the_name_is_enough(
    environment: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(environment))
    assert called("tensorboard") == "tensorboard"


def test_another_program_of_the_same_name_is_not_used(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    others = tmp_path / "others"
    others.mkdir()
    (others / "tensorboard").touch(mode=0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(others), str(environment)]))
    assert called("tensorboard") == ".venv/bin/tensorboard"


def test_a_program_that_the_environment_lacks_is_called_by_name(environment: Path):
    assert called("s2s") == "s2s"


def test_a_folder_with_a_space_in_its_name_is_one_argument(environment: Path):
    command = command_line("tensorboard", "--logdir", Path("my runs") / "a")
    assert command == ".venv/bin/tensorboard --logdir 'my runs/a'"
