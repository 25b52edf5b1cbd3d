"""What every test shares. The environment variables stand here because torch and the Hugging Face
libraries read them when they are imported.
"""

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import pytest

SCRATCH = Path(tempfile.mkdtemp(prefix="alignment-lab-"))

os.environ |= {
    # two workers on two cores; one thread also makes sums repeat to the last bit
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "LAB_RUNS": str(SCRATCH / "runs"),
    "HF_HOME": str(
        SCRATCH / "huggingface"
    ),  # a model in the developer's cache must not help a test to pass
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
}

pytest_plugins = ["support.browser"]
MAIN = sys.modules["__main__"]
LONGEST = {
    "test_notebooks.py",
    "test_parallel.py",
    "test_screens.py",
    "test_browser_access.py",
    "test_browser_play.py",
    "test_browser.py",
    "test_bench.py",
    "test_jupyterlab.py",
    "test_site.py",
}
"""Names of the test files that take half a minute or longer."""
connect = socket.socket.connect


def connect_to_this_machine_only(self: socket.socket, address) -> None:
    """`socket.connect` that refuses every host but this one, so that a test which needs the network
    fails here too.
    """
    if (
        self.family != getattr(socket, "AF_UNIX", None)
        and address[0] not in ("localhost", "::1")
        and not address[0].startswith("127.")
    ):
        raise OSError(f"The tests run offline; something tried to connect to {address}.")
    connect(self, address)


socket.socket.connect = connect_to_this_machine_only


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-architectures",
        action="store_true",
        help="test_architectures.py takes every architecture of its table, and every method",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that no worker begins one when the other is done."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def own_main(monkeypatch) -> None:
    """A new process runs the main module again; a test of the dashboard leaves the script of a page
    there.
    """
    monkeypatch.setitem(sys.modules, "__main__", MAIN)


@pytest.fixture(autouse=True)
def no_waiting_process(monkeypatch) -> None:
    """A page that a test opens starts no process that waits for a run: it would take the run of a
    later test.
    """
    from lab.runs.standby import STANDBY

    monkeypatch.setattr(STANDBY, "warm", lambda: None)


def pytest_sessionfinish() -> None:
    shutil.rmtree(SCRATCH, ignore_errors=True)
