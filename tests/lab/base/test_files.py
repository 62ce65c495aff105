import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.data.files import clear_abandoned
from s2s_jax.lab.base import files
from s2s_jax.lab.base.errors import LabError


def test_an_error_is_one_line():
    assert str(LabError("one\ntwo  three")) == "one two three"


def test_json_round_trips_and_nan_becomes_null(tmp_path):
    path = tmp_path / "a.json"
    value = {
        "b": 1, "a": [True, None, "é"], "t": (1, 2), "nan": math.nan, "inf": -math.inf,
        "np": np.float32(0.5), "array": np.arange(3), "jax": jnp.float32(jnp.nan), "p": tmp_path,
    }  # fmt: skip
    files.write_json(path, value)
    read = files.read_json(path)
    assert list(read) == list(value)
    assert read == {
        "b": 1, "a": [True, None, "é"], "t": [1, 2], "nan": None, "inf": None,
        "np": 0.5, "array": [0, 1, 2], "jax": None, "p": str(tmp_path),
    }  # fmt: skip


def test_values_without_a_json_form_are_rejected(tmp_path):
    with pytest.raises(TypeError, match="object"):
        files.write_json(tmp_path / "a.json", {"a": object()})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_only_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.write_atomic(path, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LabError, match=r"cannot write .*a\.txt: No space left on device"):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_keeps_the_old_file_while_it_is_replaced(tmp_path):
    path = tmp_path / "a.txt"
    files.write_atomic(path, "old")
    with path.open() as reader:
        files.write_atomic(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_a_truncated_json_file_is_named(tmp_path):
    path = tmp_path / "result.json"
    path.write_text('{"a": 1, "b')
    with pytest.raises(LabError, match=r"result\.json is not complete JSON"):
        files.read_json(path)
    with pytest.raises(LabError, match=r"cannot read .*none\.json: No such file"):
        files.read_json(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("text", "num_bad"),
    [
        ('{"step": 1}\n{"step": 2}\n', 0),
        ('{"step": 1}\n\n{"step": 2}', 0),
        ('{"step": 1}\n{"step": 2}\n{"step": 3, "x', 1),
        ('{"step": 1}\n7\n{"step": 2}\n\x00\x00\n', 2),
    ],
)
def test_valid_jsonl_lines_are_read_and_broken_ones_counted(tmp_path, text, num_bad):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    assert files.read_jsonl(path) == ([{"step": 1}, {"step": 2}], num_bad)


def test_a_missing_jsonl_file_is_named(tmp_path):
    with pytest.raises(LabError, match="cannot read"):
        files.read_jsonl(tmp_path / "metrics.jsonl")


def test_numbers_keep_their_value(tmp_path):
    value = float(np.float32(0.1))
    files.write_json(tmp_path / "a.json", [value])
    assert json.loads((tmp_path / "a.json").read_text())[0] == value


def test_a_link_is_kept_and_points_to_the_new_content(tmp_path):
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    files.write_atomic(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    files.write_atomic(pipe, "new")
    assert os.read(reader, 100) == b"new"
    os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_files_left_by_killed_writers_are_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = {
        f".result.json.{ended.pid}.tmp": False,
        f".result.json.{os.getpid()}.tmp": True,
        f".old.{os.getppid()}.tmp": True,
        ".mine.tmp": True,
        f"result.json.{ended.pid}.tmp": True,
    }
    for name in names:
        (tmp_path / name).write_text("half")
    clear_abandoned(tmp_path, min_age=60)
    assert len(list(tmp_path.iterdir())) == len(names)
    clear_abandoned(tmp_path)
    assert {name: (tmp_path / name).exists() for name in names} == names


def test_files_being_written_by_another_users_process_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(process: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    path = tmp_path / ".result.json.1.tmp"
    path.write_text("half")
    monkeypatch.setattr(os, "kill", forbidden)
    clear_abandoned(tmp_path)
    assert path.exists()


def test_a_read_only_file_system_is_reported_as_such(monkeypatch, tmp_path):
    class ReadOnly:
        f_flag = os.ST_RDONLY

    assert files.why_not_writable(tmp_path) == 0
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert os.strerror(files.why_not_writable(tmp_path)) == "Permission denied"
    monkeypatch.setattr(os, "statvfs", lambda _: ReadOnly)
    assert os.strerror(files.why_not_writable(tmp_path)) == "Read-only file system"
