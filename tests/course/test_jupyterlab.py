"""A notebook in a real browser: JupyterLab opens it, runs it, and the curve follows the slider."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from support.browser import box_at_rest, wait_for

from lab.course.build_notebooks import notebooks

ROOT = Path(__file__).parents[2]
SECONDS = 120_000  # milliseconds that a step may take on a busy machine


@pytest.fixture
def jupyterlab(tmp_path):
    """The address of a JupyterLab on a free port that serves a copy of the notebooks, with settings
    and runs of its own.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for path in notebooks():
        shutil.copy(path, tmp_path / path.name)
    folders = (
        "JUPYTER_CONFIG_DIR",
        "JUPYTER_DATA_DIR",
        "JUPYTER_RUNTIME_DIR",
        "JUPYTERLAB_SETTINGS_DIR",
        "JUPYTERLAB_WORKSPACES_DIR",
        "IPYTHONDIR",
    )
    own = {name: str(tmp_path / "jupyter" / name.lower()) for name in folders}
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        f"--port={port}",
        "--ip=127.0.0.1",
        "--IdentityProvider.token=",
        "--allow-root",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        command,
        env=os.environ
        | own
        | {"LAB_RUNS": str(tmp_path / "runs"), "LAB_FAST": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status", timeout=5)
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def reach(page, selector):
    """The first such element, scrolled into view: JupyterLab draws only the cells that are near the
    window.
    """
    page.mouse.move(700, 600)
    found = page.locator(f".jp-NotebookPanel {selector}").first
    for _ in range(400):
        if found.is_visible():
            found.scroll_into_view_if_needed()
            return found
        page.mouse.wheel(0, 300)
        page.wait_for_timeout(250)
    raise TimeoutError(selector)


def heights(figure):
    """The heights of the figure's second line, once it is drawn."""
    return wait_for(
        lambda: figure.evaluate("figure => figure.data?.[1] && Array.from(figure.data[1].y)")
    )


@pytest.mark.timeout(600)
def test_the_slider_of_a_notebook_moves_the_curve(page, jupyterlab):
    page.goto(f"{jupyterlab}/lab/tree/02-derivation.ipynb")
    page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for(timeout=SECONDS)
    assert (
        len(heights(reach(page, ".js-plotly-plot"))) == 5
    )  # The committed figure, drawn before anything has run.

    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click(timeout=SECONDS)
    page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTop = 0")
    slider = reach(page, ".widget-slider [role=slider]")
    figure = page.locator(".jp-NotebookPanel .jupyter-widgets .js-plotly-plot").first
    figure.wait_for(timeout=SECONDS)
    before = heights(figure)
    for _ in range(
        60
        # While its cell still runs, JupyterLab may draw slider and figure once more: a key pressed
        # before is lost.
    ):
        slider.press("ArrowRight")
        page.wait_for_timeout(1000)
        if any(abs(now - then) > 0.01 for now, then in zip(heights(figure), before, strict=True)):
            break
    else:
        raise TimeoutError("the curve does not follow the keys")
    assert abs(sum(heights(figure)) - 1) < 1e-6

    box = box_at_rest(slider)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, 4):
        before = heights(figure)
        page.mouse.move(x - 35 * step, y)
        wait_for(lambda before=before: heights(figure) != before)  # while it is dragged
    page.mouse.up()
    slider.press("Home")
    wait_for(lambda: heights(figure)[0] > 0.9)  # β = 0.2 follows the reward


QUESTION = """from lab.course.predictions import outcome, predict

guess = predict("Which is larger?", ("one", "two"))"""
ANSWER = 'outcome(guess, "two", "Two is larger by one.")'


@pytest.mark.timeout(600)
def test_an_outcome_waits_for_the_click_of_a_prediction(page, jupyterlab, tmp_path):
    cells = [nbformat.v4.new_code_cell(source) for source in (QUESTION, ANSWER, "print('later')")]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=nbformat.read(notebooks()[0], 4).metadata),
        tmp_path / "question.ipynb",
    )
    page.goto(f"{jupyterlab}/lab/tree/question.ipynb")
    page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for(timeout=SECONDS)
    page.get_by_text("| Idle").wait_for(timeout=SECONDS)  # Before, "Run" asks for a kernel.
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click(timeout=SECONDS)
    outputs = page.locator(".jp-NotebookPanel .jp-OutputArea-output")
    outputs.get_by_text("Predict first").wait_for(timeout=SECONDS)
    assert outputs.get_by_text("Two is larger").count() == 0
    assert outputs.get_by_text("Traceback").count() == 0
    page.get_by_role("button", name="two", exact=True).click(timeout=SECONDS)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click(timeout=SECONDS)
    outputs.get_by_text("You said: two. Measured: two. Right. Two is larger by one.").wait_for(
        timeout=SECONDS
    )
    outputs.get_by_text("Your predictions in this notebook: 1 of 1 right.").wait_for(
        timeout=SECONDS
    )
    assert outputs.get_by_text("Predict first").count() == 0
