"""What signals do to a training process, and how a process is prepared."""

import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from s2s_jax.lab.base import allocator
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.processes import EXIT_STOPPED, prepare_jax, provide_home

CHILD = """
import ctypes, sys, time
from s2s_jax.lab.base import processes

processes._GRACE_SECONDS = 0.2
signals = processes.stop_on_signals()

def say(text):
    print(text, flush=True)

try:
    {body}
except KeyboardInterrupt:
    say("interrupted")
finally:
    say("cleared")
"""

WAIT = 'say("ready"); sys.stdin.read()'
# Waits in C regardless of signals.
HELD_UP = 'ctypes.CDLL(None).system(b"echo ready; exec cat >/dev/null 2>&1")'
AT_WORK = """signals.is_set(); say("ready")
    while not signals.is_set(): time.sleep(0.01)
    say("checkpoint")
    if signals.is_set(): sys.exit(75)"""
LONG_STEP = 'signals.is_set(); say("ready"); sys.stdin.read()'
SECOND_RUN = f"signals.is_set(); signals.begin_anew(); {WAIT}"
SWEEP = f"signals.interrupt_from_now_on(); {WAIT}"


def signalled(body: str, *numbers: int, prefix: str = "") -> tuple[int, str, list[str]]:
    """Sends signals to a ready process; returns its exit code, stdout and lines of stderr.

    A signal is sent when what the one before it leads to has been said; SIGHUP may lead to nothing.
    """
    command = [*prefix.split(), sys.executable, "-c", CHILD.format(body=body)]
    with subprocess.Popen(
        command, stdin=-1, stdout=-1, stderr=-1, text=True, start_new_session=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "ready\n"
        said = []
        for left, number in zip(range(len(numbers))[::-1], numbers, strict=True):
            child.send_signal(number)
            if left and number != signal.SIGHUP:
                said.append(child.stderr.readline())
        # The input is not closed yet, so a process that reads it keeps waiting.
        try:
            code = child.wait(timeout=30)
        finally:
            child.kill()
        return code, child.stdout.read(), [*said, *child.stderr.read().splitlines(True)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("body", [WAIT, SECOND_RUN], ids=["start", "second run"])
def test_a_signal_ends_a_process_immediately_if_nothing_is_lost(body, number):
    code, out, err = signalled(body, number)
    assert (code, out) == (EXIT_STOPPED, "cleared\n")
    name = signal.Signals(number).name
    assert err == [
        f"s2s: stopped by {name}; no update is lost, and the same command will continue\n"
    ]


def test_a_compiler_does_not_delay_the_exit():
    code, out, err = signalled(HELD_UP, signal.SIGTERM)
    assert (code, out, len(err)) == (EXIT_STOPPED, "", 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_training_process_saves_a_checkpoint(number):
    code, out, err = signalled(AT_WORK, number)
    assert (code, out) == (EXIT_STOPPED, "checkpoint\ncleared\n")
    assert len(err) == 1
    assert f"{signal.Signals(number).name}: stopping with a checkpoint" in err[0]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait(second):
    code, out, err = signalled(LONG_STEP, signal.SIGTERM, second)
    assert (code, out, len(err)) == (EXIT_STOPPED, "", 2)
    assert f"{second.name} again: stopped" in err[1]


def test_repeated_sighup_does_not_count_as_a_second_signal():
    code, out, err = signalled(LONG_STEP, signal.SIGTERM, signal.SIGHUP, signal.SIGTERM)
    assert (code, out) == (EXIT_STOPPED, "")
    assert len(err) == 2


def test_nohup_is_respected():
    code, out, err = signalled(WAIT, signal.SIGHUP, signal.SIGTERM, prefix="nohup")
    assert (code, out) == (EXIT_STOPPED, "cleared\n")
    assert "SIGTERM" in err[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_sweep_is_interrupted(number):
    assert signalled(SWEEP, number) == (0, "interrupted\ncleared\n", [])


def test_signal_handlers_are_restored():
    script = CHILD.format(
        body="signals.close(); import signal\n"
        "    # A process that a shell starts in the background ignores SIGINT from the start.\n"
        "    say([signal.getsignal(one) in (signal.SIG_DFL, signal.default_int_handler,"
        " signal.SIG_IGN) for one in processes._STOPPING]); say(signal.set_wakeup_fd(-1))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[True, True, True]\n-1\ncleared\n"


def test_little_is_imported_before_the_signals_are_handled():
    script = "import json, sys, s2s_jax.lab.cli; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    loaded = set(json.loads(done.stdout))
    assert "s2s_jax.lab.base.processes" in loaded
    assert not loaded & {"jax", "numpy", "argparse", "absl", "ml_collections"}


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """No home folder: a user id without an account."""

    def unknown(number):
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path / f"s2s_jax-{os.getuid()}"


def test_a_temporary_folder_replaces_a_missing_home(homeless, capsys, monkeypatch):
    provide_home()
    assert Path.home() == homeless
    assert homeless.stat().st_mode & 0o777 == 0o700
    assert capsys.readouterr().err == (
        f"s2s: there is no home folder; {homeless} takes its place (set HOME to choose another)\n"
    )
    provide_home()  # now there is one
    assert not capsys.readouterr().err


def test_a_command_has_a_home_before_it_looks_at_its_paths(
    homeless: Path, s2s: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = s2s("compare", "~/nowhere")
    assert code == 2
    assert f"{homeless}/nowhere" in err.splitlines()[-1]


def test_another_users_folder_is_not_used_as_home(homeless, monkeypatch):
    homeless.mkdir()
    uid = os.getuid() + 1
    homeless.rename(homeless.with_name(f"s2s_jax-{uid}"))
    monkeypatch.setattr(os, "getuid", lambda: uid)
    with pytest.raises(LabError, match="belongs to another user"):
        provide_home()
    assert "HOME" not in os.environ


def test_a_process_keeps_freed_memory(monkeypatch):
    calls = []
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: calls.append("keep"))
    prepare_jax()
    assert calls == ["keep"]
