"""The command app, which opens the dashboard."""

import runpy
import socket
import sys

from lab.config.input_checks import Range
from lab.errors import LabError
from lab.storage.paths import top_level

PORT_RANGE = Range(int, 0, 65535)


def app(*options: str) -> None:
    """Open the dashboard in the browser; it shows the runs in LAB_RUNS, or in `runs` in this folder.
    Ctrl-C ends it, and runs that train go on.

    Args:
        options: Options of `streamlit run`, such as --server.port 8600 or --server.headless true; and
        behind `--` what the dashboard itself takes.
    """
    if options and not options[0].startswith("-"):
        raise LabError(
            f"app does not take '{' '.join(options)}', but options of streamlit run, such as"
            " --server.port 8600."
        )
    _require_free_port(options)
    sys.argv = ["streamlit", "run", str(top_level("app.py")), *options]
    runpy.run_module("streamlit", run_name="__main__", alter_sys=True)


def _require_free_port(options: tuple[str, ...]) -> None:
    """Raise `LabError` when `options` name a port that another program has. Without the option Streamlit
    takes the next free port from 8501 on.
    """
    words = [word for option in options for word in option.split("=", 1)]
    if "--server.port" not in words[:-1]:
        return
    port = PORT_RANGE.read("--server.port", words[words.index("--server.port") + 1])
    if port == 0:
        return
    with socket.socket() as probe:
        probe.settimeout(1.0)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise LabError(
                f"Port {port} is in use, perhaps by a dashboard that is still open. Take another"
                f" one: alab app --server.port {port + 1 if port < 65535 else port - 1}"
            )
