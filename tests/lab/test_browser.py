"""TensorBoard and the report page in a real browser, controlled by its protocol over a pipe.

What TensorBoard shows is in shadow trees, which a dump of the document leaves out; so the pages are
asked for their text by a script that walks into them.
"""

import contextlib
import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s2s_jax.lab.comparison.comparison import write_comparison
from s2s_jax.lab.comparison.tensorboard_layouts import address
from s2s_jax.lab.runs.tracking import Tracker

SECONDS = 240  # for a busy machine; a page is polled until it shows what it should
SCHEDULES = ("teacher_forcing", "linear")

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.skipif(os.name != "posix", reason="pipes"),
    pytest.mark.xdist_group("browser"),
]

TEXT_OF_ALL_TREES = """
(() => {
  const parts = [];
  const walk = (node) => {
    if (node.nodeType === Node.TEXT_NODE) parts.push(node.textContent.trim());
    if (["SCRIPT", "STYLE", "TEMPLATE", "NOSCRIPT"].includes(node.nodeName)) return;
    if (node.shadowRoot) walk(node.shadowRoot);
    node.childNodes.forEach(walk);
  };
  walk(document.body);
  return parts.filter(Boolean).join("\\n");
})()
"""


# Chromium reads from descriptor 3 and writes to descriptor 4.
START = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]]
for place, pipe in enumerate(pipes, start=3):
    os.dup2(pipe, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """Headless Chromium with one page."""

    def __init__(self, profile: Path):
        assert CHROMIUM is not None
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        command = [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--window-size=1500,1400", "--remote-debugging-pipe", f"--user-data-dir={profile}"),
            "about:blank",
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(to_read), str(to_write), *command],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_read)
        os.close(to_write)
        self._number, self._session, self._left = 0, "", b""

    def start(self) -> None:
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        found = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]

    def open(self, url: str) -> None:
        self._ask("Page.navigate", url="about:blank")
        self._ask("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        found = self._ask("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    def wait_for(self, *texts: str) -> str:
        """The page's text once it contains all of these; otherwise an error with the text."""
        text, end = "", time.monotonic() + SECONDS
        while time.monotonic() < end:
            text = self.evaluate(TEXT_OF_ALL_TREES) or ""
            if all(one in text for one in texts):
                return text
            time.sleep(0.5)
        raise AssertionError(f"{[one for one in texts if one not in text]} not in: {text[-3000:]}")

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._message())
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _message(self) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self._read, selectors.EVENT_READ)
            while b"\0" not in self._left:
                assert selector.select(SECONDS), "Chromium does not answer"
                read = os.read(self._read, 1 << 16)
                assert read, "Chromium has ended"
                self._left += read
        message, _, self._left = self._left.partition(b"\0")
        return message


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a finished sweep of two schedules and two seeds, compared twice."""
    folder = tmp_path_factory.mktemp("browser") / "sweep"
    for place, schedule in enumerate(SCHEDULES):
        for seed in range(2):
            run = folder / schedule / f"seed_{seed}"
            score = {"test/own/wer": 30.0 + place + seed / 4, "test/own/token_accuracy": 0.8}
            with Tracker(run) as tracker:
                tracker.hparams({"schedule": schedule, "coin": "token"}, trial_id=schedule)
                for step in (10, 20):
                    accuracy = 0.5 + step / 100 + seed / 50
                    tracker.scalars(step, {"train/teacher_prob": 1 - place * step / 20})
                    curves = {"gold/token_accuracy": accuracy, "own/token_accuracy": accuracy - 0.1}
                    curves |= {"gap": 0.1, "own/wer": 40.0 - step / 2}
                    tracker.scalars(step, {f"eval/{name}": one for name, one in curves.items()})
                tracker.text(20, "eval/examples", "| source |\n|---|\n| `abc` |")
                tracker.scalars(20, score)
            config = {
                "seed": seed,
                "data": {"name": "made"},
                "schedule": {"name": schedule},
                "rollout": {"coin": "token"},
            }
            result = {"status": "finished", "config": config, "overrides": {}, "steps": 20}
            result |= {"metrics": score, "wall_seconds": 1.0}
            (run / "result.json").write_text(json.dumps(result))
            rows = [
                {
                    "source": f"w{i}",
                    "references": ["A B"],
                    "hypothesis": "A B" if i % 4 else f"A {i}",
                }
                for i in range(40 + place)
            ]
            (run / "predictions_test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_comparison(folder)
    write_comparison(folder)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    try:
        browser.start()
        yield browser
    finally:
        browser.close()


@pytest.fixture(scope="module")
def port(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The address of a `tensorboard` for the sweep."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        number = free.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "tensorboard.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", f"--logdir={sweep}", f"--port={number}"],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", number), 1):
            break
        time.sleep(0.3)
    else:
        raise AssertionError(f"tensorboard did not start: {log.read_text()}")
    yield number
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    process.wait()


def has_no_error(text: str) -> bool:
    text = text.replace("word error rate", "")
    return not re.search(r"No (dashboards|scalar data|data)|not found|\b[Ee]rrors?\b|failed", text)


def test_every_run_is_in_the_time_series_once_in_its_schedules_colour(browser, port):
    names = [f"{schedule}/seed_{seed}" for schedule in SCHEDULES for seed in range(2)]
    names += [f"over_seeds/{schedule}" for schedule in SCHEDULES]
    browser.open(address(port))
    text = browser.wait_for(*names, "eval", "train")
    assert has_no_error(text)
    rows = """
        [...document.querySelectorAll("runs-data-table tb-data-table-content-row")].map((row) => [
          row.innerText.trim(),
          getComputedStyle(row.querySelector(".run-color-swatch, .color-swatch, button")).color,
          row.innerHTML.match(/(?:background|background-color): *([^;"]+)/)?.[1],
        ])
    """
    found = {name: color for name, *color in browser.evaluate(rows)}
    assert sorted(found) == sorted(names)  # no duplicates, no others
    colors = {name: found[name] for name in names}
    for schedule in SCHEDULES:
        assert len({str(color) for name, color in colors.items() if schedule in name}) == 1
    assert len({str(color) for color in colors.values()}) == len(SCHEDULES)


def test_hparams_has_one_row_per_schedule_with_its_seeds_averaged(browser, port):
    browser.open(f"http://localhost:{port}/#hparams")
    text = browser.wait_for("Trial ID", "WER (%), test", *SCHEDULES, "30.125", "31.125")
    assert has_no_error(text)
    assert "30.250" not in text


def test_custom_scalars_have_the_layout_once(browser, port):
    browser.open(f"http://localhost:{port}/#custom_scalars")
    names = ("Gold against own prefixes, over seeds", "Schedule against score")
    text = browser.wait_for(*names, *(f"over_seeds/{one}" for one in SCHEDULES))
    assert [text.count(name) for name in names] == [1, 1]
    assert has_no_error(text)


def test_the_report_shows_its_conclusion_and_all_its_figures(browser, sweep):
    browser.open((sweep / "report.html").as_uri())
    text = browser.wait_for("Conclusions", "linear:")
    assert "Examples where the schedules differ" not in text  # the items differ
    widths = "[...document.images].map((one) => one.complete && one.naturalWidth)"
    found = browser.evaluate(widths)
    assert len(found) == len(list(sweep.glob("*.svg")))
    assert all(width > 300 for width in found)
