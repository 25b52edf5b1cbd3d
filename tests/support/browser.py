"""The dashboard in a real browser: fixtures `page`, `server` and `own_server`, known to every test.

What costs seconds is kept: the server for the session, the browser and what it has loaded for a
module. A page and the runs are new for each test.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from lab.config.methods import make_config
from lab.course.chromium import chromium_path
from lab.dashboard.pages.registry import PAGES
from lab.runs.folder import RunFolder, create
from lab.runs.records import StepRecord
from lab.storage.jsonl import append_rows

ROOT = Path(__file__).parents[2]
CHROMIUM = chromium_path()
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
VIEWPORT = {"width": 1280, "height": 1000}
IDLE = "document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'"
SECONDS = 120_000  # milliseconds that a page may take on a busy machine


@pytest.fixture(scope="module")
def browser():
    """Not for the session: while playwright is there, an event loop runs, and tests of notebooks
    start their own.
    """
    if not CHROMIUM:
        if os.environ.get("CI"):
            pytest.fail("CI has no Chromium: .ci/run installs it.")
        pytest.skip("No Chromium on this machine; install it to run the browser tests.")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser.new_context(viewport=VIEWPORT)
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page()
    yield page
    page.close()


class Server:
    """The dashboard on a free port of this machine, with its own runs folder."""

    def __init__(self, runs: Path, *arguments: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url, self.runs, self.arguments = f"http://localhost:{self.port}", runs, arguments
        self.start()

    def start(self) -> None:
        self.output = tempfile.TemporaryFile()  # noqa: SIM115
        command = [
            sys.executable,
            "-m",
            "streamlit",
            "run",
            "app.py",
            "--server.port",
            str(self.port),
            "--server.headless",
            "true",
            *self.arguments,
        ]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"LAB_RUNS": str(self.runs)},
            stdout=self.output,
            stderr=self.output,
            start_new_session=True,
        )
        for _ in range(600):
            try:
                if urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=5).status == 200:
                    return
            except OSError:
                time.sleep(0.1)
        raise TimeoutError("The dashboard did not come up.")

    def said(self) -> str:
        """What it has printed so far."""
        return os.pread(self.output.fileno(), 100_000, 0).decode("utf-8", "replace")

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.output.close()


@pytest.fixture(scope="session")
def warm_server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("dashboard") / "runs")
    yield server
    server.kill()


@pytest.fixture
def server(warm_server):
    """The dashboard that every test visits, without runs."""
    yield warm_server
    end_runs(warm_server.runs)
    shutil.rmtree(warm_server.runs, ignore_errors=True)


@pytest.fixture
def own_server(tmp_path):
    """A dashboard that a test may kill."""
    server = Server(tmp_path / "runs")
    yield server
    server.kill()
    end_runs(server.runs)


def end_runs(root: Path) -> None:
    """Kill what still trains there."""
    for run in root.glob("*"):
        if RunFolder(run).state in ("running", "paused"):
            os.kill(RunFolder(run).status()["pid"], signal.SIGKILL)


@pytest.fixture
def trainer():
    """A process that stands for the training of any number of runs."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def running(root: Path, name: str, trainer: subprocess.Popen, steps: int = 10) -> RunFolder:
    """A run that counts as trained by the process `trainer`."""
    folder = create(root / name, make_config("grpo", {"steps": 1000}))
    grow(folder, 0, steps)
    status = {
        "state": "running",
        "pid": trainer.pid,
        "process_started": psutil.Process(trainer.pid).create_time(),
        "step": steps,
    }
    (folder.path / "status.json").write_text(json.dumps(status))
    return folder


def grow(folder: RunFolder, first: int, last: int) -> None:
    """Append steps `first` to `last` − 1 to the run's record."""
    append_rows(
        folder.path / "metrics.jsonl",
        [
            StepRecord(i, {"loss": 1 / (i + 1), "gold/accuracy": 0.5}, float(i), i).row()
            for i in range(first, last)
        ],
    )


def wait_for(condition, seconds=120, told=lambda: ""):
    """Wait until `condition` is true and return its value; after `seconds` the error says what `told`
    returns then.
    """
    for _ in range(seconds * 10):
        if value := condition():
            return value
        time.sleep(0.1)
    raise TimeoutError(f"It did not happen in time. {told()}")


def box_at_rest(locator) -> dict[str, float]:
    """Where the element stands, in pixels, once it stands still: one that is drawn anew or moves while
    it is measured (playwright then says None, or an old place) is measured again.
    """
    places = [None]

    def rests():
        places.append(locator.bounding_box(timeout=SECONDS))
        return places[-1] is not None and places[-1] == places[-2]

    wait_for(rests)
    return places[-1]


def opened(page, server, path: str):
    """Open a page of the dashboard and wait until plotly has drawn its first figure."""
    page.goto(f"{server.url}/{path}")
    page.locator(".lab-figure .main-svg").first.wait_for(timeout=SECONDS)
    return page


def go_to(page, label: str) -> None:
    """Open a page of the dashboard by its menu."""
    section = next(entry.section for entry in PAGES if entry.title == label)
    page.get_by_test_id("stTopNavSection").filter(has_text=section).click(timeout=SECONDS)
    page.get_by_test_id("stTopNavDropdownLink").filter(has_text=re.compile(f"^{label}$")).click()
