"""A lock admits one process at a time and does not outlive it."""

import os
import signal
import subprocess
import sys

import pytest

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.locks import FileLock, lock_owner

HOLD = """
import sys
from s2s_jax.lab.base.locks import FileLock
lock = FileLock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_ends_with_its_process_even_if_killed(tmp_path):
    path = tmp_path / "run" / "x.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LabError, match=f"run is in use by process {other.pid} on ") as refused:
            FileLock(path)
        assert "\n" not in str(refused.value)
        assert str(lock_owner(path)).startswith(f"process {other.pid} on ")
        other.send_signal(signal.SIGKILL)
    assert lock_owner(path) is None  # asking does not take the lock either
    FileLock(path).release()
    assert lock_owner(tmp_path / "nowhere" / "x.lock") is None


def test_a_lock_is_exclusive_until_it_is_released(tmp_path):
    path = tmp_path / "x.lock"
    lock = FileLock(path)
    with pytest.raises(LabError, match=f"in use by process {os.getpid()} on "):
        FileLock(path)
    lock.release()
    FileLock(path).release()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=r"cannot write .*x\.lock: File exists"):
        FileLock(tmp_path / "file" / "x.lock")


def test_a_full_disk_has_room_for_a_lock(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "x.lock"
    monkeypatch.setattr("os.write", full)
    lock = FileLock(path)
    with pytest.raises(LabError, match="in use by another process"):
        FileLock(path)
    lock.release()


def test_without_file_system_locks_nobody_is_kept_out(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    first, second = FileLock(tmp_path / "x.lock"), FileLock(tmp_path / "x.lock")
    first.release()
    second.release()
