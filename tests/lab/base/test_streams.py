"""Standard streams that are closed or full, or whose reader has gone."""

import subprocess
import sys

import pytest

from s2s_jax.lab.base.processes import EXIT_BAD_INPUT, EXIT_FAILED

# A command that prints and then writes a file; it is light, so that the process starts quickly.
COMMAND = """
import sys
from pathlib import Path
from s2s_jax.lab import cli
from s2s_jax.lab.base import streams

def work(options, overrides):
    if options.command == "train":
        streams.printing_is_decoration()
    for number in range(2000):
        print("a line of many", number)
    Path("result").write_text("whole")
    print("the end")
    return 0

cli._COMMANDS = dict.fromkeys(cli._COMMANDS, work)
cli.main(sys.argv[1:])
"""

ARGUMENTS = {"train": "--config=x --workdir=x", "evaluate": "x"}


@pytest.fixture
def shell(tmp_path):
    """Runs a command in a shell with the given redirections; returns exit code and stderr."""

    def run(command: str, redirection: str) -> tuple[int, str]:
        script = f'"{sys.executable}" -c "$0" {command} {ARGUMENTS[command]} {redirection}'
        done = subprocess.run(
            ["bash", "-c", f"{script}; exit ${{PIPESTATUS[0]}}", COMMAND],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (tmp_path / "result").read_text() == "whole"
        return done.returncode, done.stderr

    return run


@pytest.mark.parametrize(
    ("redirection", "reason"),
    [
        ("| head -1", "Broken pipe"),
        (">/dev/full", "No space left on device"),
        (">&-", "Bad file descriptor"),
        (">&- <&-", "Bad file descriptor"),
    ],
)
def test_training_continues_without_a_reader_and_warns_once(shell, redirection, reason):
    assert shell("train", redirection) == (
        0,
        f"s2s: cannot print: {reason}; the command continues without it\n",
    )


def test_training_continues_without_any_open_stream(shell):
    assert shell("train", ">&- 2>&-") == (0, "")
    assert shell("train", "2>/dev/full >/dev/full") == (0, "")


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [
        ("| head -1", EXIT_FAILED, ""),
        (
            ">/dev/full",
            EXIT_BAD_INPUT,
            "s2s: cannot write standard output: No space left on device\n",
        ),
        (">&-", EXIT_BAD_INPUT, "s2s: cannot write standard output: Bad file descriptor\n"),
    ],
)
def test_a_result_that_cannot_be_printed_is_an_error_after_the_work(
    shell, redirection, code, message
):
    assert shell("evaluate", redirection) == (code, message)


@pytest.mark.parametrize(
    ("redirection", "code"), [("| true", EXIT_FAILED), (">/dev/full", EXIT_BAD_INPUT)]
)
def test_unread_help_ends_in_at_most_one_line(redirection, code):
    script = f"{sys.executable} -m s2s_jax.lab.cli --help {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) <= 1
    assert "Exception ignored" not in done.stderr
