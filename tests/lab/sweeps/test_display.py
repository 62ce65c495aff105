"""How a sweep is shown (in place on a terminal, else as lines) and interrupted."""

import contextlib
import dataclasses
import fcntl
import io
import json
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from s2s_jax.lab.base.metric_catalog import CATALOG, Metric
from s2s_jax.lab.runs.progress import RunProgress, read_progress
from s2s_jax.lab.sweeps import display as sweep_display
from s2s_jax.lab.sweeps.assignment import Assignment
from s2s_jax.lab.sweeps.display import LiveDisplay, PlainDisplay, make_display
from s2s_jax.lab.sweeps.lines import RunState, live_lines
from s2s_jax.lab.sweeps.plan import PlannedRun

NOW = 1000.0


def planned(name, folder=Path(), num_steps=2000):
    run = Assignment("", folder / name)
    return PlannedRun(name, run, "waiting", num_steps=num_steps, score="eval/own/wer")


def state(name, status, progress=None, **more):
    return RunState(planned(name), status, progress=progress or RunProgress(), **more)


class Screen:
    """What a terminal of a given width shows after some output; supports what the display uses."""

    def __init__(self, width):
        self.rows, self.row, self.column, self.width = [""], 0, 0, width

    def write(self, text):
        for part in re.findall(r"\x1b\[\d*[A-Z]|[^\x1b]", text):
            if part[0] == "\x1b":
                count, kind = int(part[2:-1] or 0), part[-1]
                if kind == "A":
                    assert count <= self.row, "moved above what it has drawn"
                    self.row -= count
                elif kind == "K":
                    self.rows[self.row] = self.rows[self.row][: self.column]
                else:
                    assert kind == "J"
                    self.rows[self.row] = self.rows[self.row][: self.column]
                    del self.rows[self.row + 1 :]
            elif part == "\r":
                self.column = 0
            elif part == "\n":
                self.row, self.column = self.row + 1, 0
                self.rows += [""] * (self.row + 1 - len(self.rows))
            else:
                assert self.column < self.width - 1, "wrote up to the edge"
                old = self.rows[self.row]
                self.rows[self.row] = old[: self.column] + part + old[self.column + 1 :]
                self.column += 1


@pytest.fixture
def terminal(monkeypatch):
    """A pseudo-terminal: its stream, a function that sets its size, and one that reads it."""
    monkeypatch.setenv("TERM", "xterm")
    outside, inside = pty.openpty()
    os.set_blocking(outside, False)

    def resize(width, height):
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def read():
        found = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                found += os.read(outside, 65536)
        return found.decode()

    resize(80, 24)
    with os.fdopen(inside, "w", encoding="utf-8") as stream:
        yield stream, resize, read
    os.close(outside)


def log(folder, *records):
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.jsonl").open("a") as file:
        for one in records:
            file.write(json.dumps(one) + "\n")


def test_a_custom_score_is_shown_in_its_unit():
    catalog = CATALOG.with_scores([Metric("mine", "my errors", "%", 100, digits=1)])
    run = dataclasses.replace(planned("a"), score="eval/own/mine", catalog=catalog)
    (line, _) = live_lines([RunState(run, "running", progress=RunProgress(8, 0.25))], 1, NOW, 9)
    assert "  my errors 25.0 %  " in line


def test_progress_is_read_from_the_record(tmp_path):
    assert read_progress(tmp_path / "nowhere", "eval/own/wer") == RunProgress()
    folder = tmp_path / "run"
    log(folder, {"step": 0, "train/compile_seconds": 40.0})
    assert math.isnan(read_progress(folder, "eval/own/wer").seconds_per_step)
    log(
        folder,
        {"step": 100, "train/loss": 1.0, "train/seconds": 80.0, "train/compile_seconds": 60.0},
        {"step": 100, "eval/own/wer": 40.0},
        {"step": 200, "train/loss": 1.0, "train/seconds": 110.0},
    )
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('broken\n{"step": 300, "train/sec')  # still being written
    found = read_progress(folder, "eval/own/wer")
    assert (found.step, found.score, found.seconds) == (200, 40.0, 110.0)
    assert found.seconds_per_step == pytest.approx((110 - 60) / 200)  # without compiling
    assert found.logged_at == (folder / "metrics.jsonl").stat().st_mtime


def test_only_the_ends_of_a_long_record_are_read(tmp_path):
    log(tmp_path, {"step": 0, "train/compile_seconds": 10.0})
    log(tmp_path, *({"step": step, "train/seconds": 10.0 + step} for step in range(1, 9001)))
    assert (tmp_path / "metrics.jsonl").stat().st_size > 300_000
    found = read_progress(tmp_path, "eval/own/wer")
    assert (found.step, found.seconds_per_step) == (9000, 1.0)


def test_one_line_per_run_and_a_total():
    running = RunProgress(500, 41.25, 200.0, 0.2, logged_at=NOW - 60)
    states = [
        state("a/seed_0", "finished", RunProgress(2000, 25.5, 3723.0, 0.2, NOW - 999)),
        state("linear/seed_0", "running", running, started_at=NOW - 500),
        state("b/seed_0", "running", running, started_at=NOW - 5),  # the record is from before
        state("c/seed_0", "failed", reason="exit code 2: the loss is gone"),
        state("d/seed_0", "waiting", reason="is being trained by process 7 on a"),
    ]
    assert live_lines(states, 2, NOW, 10) == [
        "a/seed_0       finished  2,000/2,000  WER 25.50 %  in 1:02:03",
        "linear/seed_0  running     500/2,000  WER 41.25 %  4:00 left",
        "b/seed_0       running     500/2,000  WER 41.25 %  starting",
        "c/seed_0       failed                              exit code 2: the loss is gone",
        "d/seed_0       waiting                             is being trained by process 7 on a",
        # (240 + 1500 * 0.2 + 2000 * 0.2) / 2 seconds.
        "1 of 5 runs done, 1 failed, 2 running, 1 waiting; about 7:50 left",
    ]


def test_the_total_time_is_at_least_that_of_the_longest_run():
    running = RunProgress(0, math.nan, 1.0, 1.0, logged_at=NOW)
    (one, two) = (state(name, "running", running) for name in ("a", "b"))
    two.run = planned("b", num_steps=10)
    assert live_lines([one, two], 2, NOW, 10)[-1] == "0 of 2 runs done, 2 running; about 33:20 left"
    assert live_lines([state("a", "waiting")], 1, NOW, 10)[-1] == "0 of 1 runs done, 1 waiting"


def test_with_few_rows_the_running_and_failed_runs_are_shown():
    kinds = ("finished", "waiting", "running", "waiting", "failed")
    states = [state(f"{kind}_{number}", kind) for number, kind in enumerate(kinds)]
    lines = live_lines(states, 1, NOW, 3)
    assert [line.split()[0] for line in lines[:-1]] == ["waiting_1", "running_2", "failed_4"]
    assert lines[-1] == "1 of 5 runs done, 1 failed, 1 running, 2 waiting"


def test_the_live_lines_are_drawn_in_place(terminal, tmp_path, monkeypatch):
    stream, resize, read = terminal
    monkeypatch.setattr(sweep_display, "_REDRAW_SECONDS", 0.0)
    states = [RunState(planned(name, tmp_path), "waiting") for name in ("a", "b")]
    display, screen = make_display(stream, print), Screen(80)
    assert isinstance(display, LiveDisplay)
    display.begin(states, 1)
    screen.write(read())
    assert screen.rows == ["a  waiting", "b  waiting", "0 of 2 runs done, 2 waiting", ""]
    states[0].status = "running"
    display.changed(states[0])
    log(tmp_path / "a", {"step": 0, "train/compile_seconds": 1.0})
    log(tmp_path / "a", {"step": 2000, "train/seconds": 5.0, "eval/own/wer": 12.0})
    display.tick()
    screen.write(read())
    assert screen.rows[0] == "a  running   2,000/2,000  WER 12.00 %  0:00 left"
    assert len(screen.rows) == 4
    states[0].status = "finished"
    states[1].status, states[1].reason = "failed", "exit code 2: no\x1b[2J such data " + "x" * 99
    display.changed(states[1])
    display.stopping()
    screen.write(read())
    first, failed, total, note, end = screen.rows
    assert first == "a  finished  2,000/2,000  WER 12.00 %  in 0:05"
    assert failed.startswith("b  failed ")
    assert " exit code 2: no [2J such data xxx" in failed
    assert (len(failed), failed[-1]) == (79, "…")
    assert (total, note[:8], end) == ("1 of 2 runs done, 1 failed", "stopping", "")
    # Now narrower: the old lines wrap onto more rows and are overwritten.
    resize(40, 24)
    display.stopping()
    drawn = read()
    assert drawn.startswith(f"\r\x1b[{2 + 2 + 1 + 2}A")
    lines = drawn.partition("A")[2].split("\x1b[K")
    assert [len(line.strip()) for line in lines[:4]] == [39, 39, 26, 39]
    states[1].reason = "exit code 2: no such data"
    resize(80, 24)
    display.close()
    assert read().splitlines()[-2:] == [
        "\x1b[J1 of 2 runs failed:",
        f"  b: exit code 2: no such data (full log: {tmp_path}/b.log)",
    ]


def test_wide_characters_take_two_columns(terminal):
    stream, resize, read = terminal
    resize(20, 24)
    display = LiveDisplay(stream)
    display.begin([state("\u6f22" * 9, "failed")], 1)
    assert read().split("\x1b[K")[0] == "\r" + "\u6f22" * 9 + "…"


def test_drawing_is_rate_limited(terminal):
    stream, _, read = terminal
    display = LiveDisplay(stream)
    display.begin([state("a", "running")], 1)
    read()
    for _ in range(50):
        display.tick()
    assert read() == ""


def test_plain_lines_are_used_without_a_terminal(terminal, monkeypatch):
    assert isinstance(make_display(io.StringIO(), print), PlainDisplay)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_display(terminal[0], print), PlainDisplay)


def test_plain_lines_are_of_this_attempt(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_display, "_REPORT_SECONDS", 0)
    running = RunState(planned("a", tmp_path), "running")
    log_file = running.run.log_file
    log_file.write_text("stopped at step 51; run the same command to continue\n")
    running.log_begin = log_file.stat().st_size
    lines = []
    display = PlainDisplay(lines.append)
    display.begin([running], 1)
    display.tick()
    with log_file.open("a") as log:
        log.write("resuming a at step 51\n")
    display.tick()
    assert lines == ["a: starting", "a: resuming a at step 51"]


SWEEP = """
import fcntl, os, signal, sys, termios
from pathlib import Path

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if tests run in the background
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C comes from this terminal
from s2s_jax.lab import cli
from s2s_jax.lab.sweeps import plan as sweep
from s2s_jax.lab.sweeps import worker_process

folder, script = Path(sys.argv[1]), sys.argv[2]
popen = worker_process.subprocess.Popen
worker_process.subprocess.Popen = lambda command, **options: popen(
    [sys.executable, "-c", script], **options)
sweep.plan_sweep = lambda *_, **__: [
    sweep.PlannedRun("a", sweep.Assignment("", folder / "a"), "finished", num_steps=4),
    sweep.PlannedRun("b", sweep.Assignment("", folder / "b"), "waiting", num_steps=4),
]
cli.main(["sweep", "--config=x", "--workdir=x"])
"""
RUN = """
import json, pathlib, signal, sys, time
folder = pathlib.Path(json.loads(sys.stdin.readline())[0]["workdir"])
folder.mkdir(exist_ok=True)
stopped = folder / "stopped"
def stop(*_):
    stopped.touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
if not stopped.exists():
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 3, "train/seconds": 1.0}) + "\\n")
    time.sleep(100)
(folder / "done").touch()
result = {"status": "finished", "steps": 4, "wall_seconds": 0, "metrics": {}}
(folder / "result.json").write_text(json.dumps(result))
print(0)
"""


def test_ctrl_c_stops_a_sweep_and_the_same_command_continues(tmp_path):
    def sweep(until, then):
        """Runs the sweep on its own terminal; types once something is shown."""
        outside, inside = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", SWEEP, str(tmp_path), RUN],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env=os.environ | {"TERM": "xterm"},
        )
        os.close(inside)
        shown = ""
        with contextlib.suppress(OSError):  # the terminal has been closed
            while found := os.read(outside, 65536):
                shown += found.decode()
                if until and until in shown:
                    os.write(outside, then)
                    until = ""
        os.close(outside)
        return process.wait(timeout=60), shown

    code, shown = sweep("3/4", b"\x03")
    assert code == 75, shown
    assert "stopped; run the same command to continue from the checkpoints" in shown
    assert "1 of 2 runs done, 1 stopped" in shown
    assert (tmp_path / "b" / "stopped").exists()
    assert not (tmp_path / "b" / "done").exists()
    code, shown = sweep("", b"")
    assert code == 0, shown
    assert "2 of 2 runs done" in shown
    assert (tmp_path / "b" / "done").exists()
    assert not (tmp_path / "a").exists()  # it was finished before
