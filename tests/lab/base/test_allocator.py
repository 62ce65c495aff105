"""Freed memory is kept in the process unless the user has configured the allocator."""

import platform
import re
import resource
import subprocess
import sys

import pytest

from s2s_jax.lab.base.allocator import check_address_space, keep_freed_memory
from s2s_jax.lab.base.errors import LabError

PROGRAM = """
import ctypes, sys
from s2s_jax.lab.base.allocator import keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 >> 20

if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
before = resident()
block = libc.malloc(ctypes.c_size_t(100 << 20))
ctypes.memset(block, 1, 100 << 20)
libc.free(block)
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_a_freed_block_is_kept():
    def left(choice: str) -> int:
        command = [sys.executable, "-c", PROGRAM, choice]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert left("keep") >= 90
    assert left("leave") < 20


def test_the_users_own_settings_are_kept(monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "7")
    assert not keep_freed_memory()


@pytest.mark.parametrize(
    ("limit", "refused"), [(resource.RLIM_INFINITY, False), (4 << 30, False), (2 << 30, True)]
)
def test_too_little_address_space_is_rejected(monkeypatch, limit, refused):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    if not refused:
        check_address_space()
        return
    with pytest.raises(LabError, match=r"have 2,048 MiB of address space \(ulimit -v\)"):
        check_address_space()


def test_a_model_too_large_for_memory_is_rejected_before_anything_is_written(
    tmp_path, s2s, experiment_file
):
    size = "--config.model.hidden_size=65536"
    code, _, err = s2s(
        "train", f"--config={experiment_file}", f"--workdir={tmp_path / 'run'}", size
    )
    assert (code, len(err.splitlines())) == (2, 1), err
    assert re.search(
        r"optimiser's state take [\d,.]+ GB, and this machine's cpu has [\d.]+ GB", err
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_too_little_address_space_is_rejected_before_anything_is_written(
    monkeypatch, tmp_path, s2s, experiment_file, command
):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (2 << 30, -1))
    flags = f"--config={experiment_file}", f"--workdir={tmp_path / 'run'}"
    code, out, err = s2s(command, *flags)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert "ulimit -v" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("limit", "expected"), [(1 << 30, 2), (2 << 30, 0)])
def test_less_address_space_is_enough_without_computing(
    monkeypatch, tmp_path, s2s, experiment_file, limit, expected
):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, -1))
    flags = f"--config={experiment_file}", f"--workdir={tmp_path / 'run'}", "--dry-run"
    code, _, err = s2s("sweep", *flags)
    assert code == expected, err
    assert ("takes at least 1,280 MiB" in err) == (expected != 0)


@pytest.mark.parametrize("command", ["train", "sweep", "verify", "compare", "evaluate"])
def test_the_address_space_is_checked_before_jax_is_imported(command, experiment_file, tmp_path):
    flags = [f"--config={experiment_file}", f"--workdir={tmp_path / 'run'}"]
    arguments = {"train": flags, "sweep": flags, "verify": []}.get(command, [str(tmp_path)])
    script = (
        "import resource, sys\n"
        "from s2s_jax.lab.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_AS, (200 << 20, -1))\n"
        "main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, command, *arguments], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert "may have 200 MiB of address space (ulimit -v)" in done.stderr
