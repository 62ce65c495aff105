"""A process of a sweep: the jobs it is sent, and what it does when the sweep dies."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from s2s_jax.lab.sweeps.assignment import Assignment
from s2s_jax.lab.sweeps.sent_jobs import NO_MORE_JOBS, SentJobs


@pytest.fixture
def pipe():
    """Both ends of a pipe from a sweep; the test closes the second."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


@pytest.fixture
def terminated():
    """An event that SIGTERM sets instead of ending the process."""
    event = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    yield event
    signal.signal(signal.SIGTERM, before)


def send(writer, *lines):
    os.write(writer, "".join(f"{line}\n" for line in lines).encode())


def test_jobs_arrive_in_order_until_there_are_no_more(pipe, terminated):
    reader, writer = pipe
    long = ["x" * 200_000]
    sent = threading.Thread(target=send, args=(writer, "[1]", json.dumps(long), NO_MORE_JOBS))
    sent.start()
    assert list(SentJobs(reader)) == [[1], long]
    sent.join()
    os.close(writer)
    assert not terminated.is_set()


def test_a_dying_sweep_causes_a_sigterm_in_a_busy_process(pipe, terminated):
    reader, writer = pipe
    jobs = iter(SentJobs(reader))
    send(writer, "[1]")
    assert next(jobs) == [1]
    os.write(writer, b'["half a jo')
    os.close(writer)
    assert terminated.wait(20)
    assert list(jobs) == []


def test_a_dying_sweep_ends_an_idle_process(pipe, terminated):
    reader, writer = pipe
    send(writer, "[1]")
    found = []
    for job in SentJobs(reader):
        found.append(job)
        # When the next line arrives, it is waiting.
        threading.Timer(0.1, os.close, [writer]).start()
    assert found == [[1]]
    assert not terminated.is_set()


def test_errors_that_the_user_can_fix_before_the_first_job_are_one_line():
    program = (
        "import sys\n"
        "from s2s_jax.lab.base import errors\n"
        "from s2s_jax.lab.sweeps import worker\n"
        "def fail(): raise errors.LabError('no such platform')\n"
        "worker.prepare_jax = fail\n"
        "sys.exit(worker.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "s2s: no such platform\n")


def test_an_answer_that_nobody_reads_ends_a_process(tmp_path):
    run = Assignment("tiny.py", tmp_path / "run")
    program = (
        "import sys\n"
        "from s2s_jax.lab.sweeps import worker\n"
        "worker.prepare_jax = lambda: None\n"
        "worker.work = lambda *_: 0\n"
        "sys.exit(worker.main())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        process.stdin.write(f"{json.dumps([run.to_json()])}\n".encode())
        process.stdin.flush()
        assert process.wait(60) == 0
    assert (tmp_path / "run.log").read_text() == ""


@pytest.mark.slow
def test_a_process_without_its_sweep_stops_training(experiment_file, tmp_path):
    run = Assignment(str(experiment_file), tmp_path / "run", ("--config.train.num_steps=300000",))
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "s2s_jax.lab.sweeps.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    assert process.stdin is not None
    process.stdin.write(f"{json.dumps([run.to_json()])}\n".encode())
    process.stdin.flush()
    log = Path(f"{run.workdir}.log")
    while process.poll() is None and not (log.exists() and "loss " in log.read_text()):
        time.sleep(0.05)
    process.communicate(timeout=300)  # closes the pipe, as a sweep's death does
    said = (tmp_path / "errors").read_text() + log.read_text()
    assert process.returncode == 75, said
    found = json.loads((run.workdir / "result.json").read_text())
    assert found["status"] == "stopped", said
    assert 0 < found["steps"] < 300_000
    assert (run.workdir / "checkpoints" / str(found["steps"])).is_dir()
