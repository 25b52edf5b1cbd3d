"""Looking never steers, in real browsers: two people on a slow server come, leave, go back and
forth between two runs, and only a hand sends a command.
"""

import os
import re
import signal
import threading

import pytest
from support.browser import SECONDS, VIEWPORT, go_to, grow, running, wait_for
from support.visitor import sent

sync_api = pytest.importorskip("playwright.sync_api")

SLIDER = re.compile("β of this run")


@pytest.fixture
def slow(own_server):
    """The server stands still for a quarter of every half second, as on a machine that is busy
    training.
    """
    end = threading.Event()

    def stutter():
        while not end.is_set():
            for number, seconds in ((signal.SIGSTOP, 0.25), (signal.SIGCONT, 0.25)):
                os.kill(own_server.process.pid, number)
                end.wait(seconds)
        os.kill(own_server.process.pid, signal.SIGCONT)

    thread = threading.Thread(target=stutter)
    thread.start()
    yield own_server
    end.set()
    thread.join()


def come_back(page, slider):
    """Go on until the live slider is there: on the way back every change of an address is a step of
    its own.
    """
    for _ in range(12):
        try:
            return slider.wait_for(timeout=5000)
        except sync_api.TimeoutError:
            if "/runs" in page.url:
                page.go_back(wait_until="commit")
            else:
                go_to(page, "Train")
    raise TimeoutError("The page Train does not come back.")


@pytest.mark.timeout(600)
def test_two_browsers_that_look_at_two_runs_of_a_slow_server_steer_neither_until_a_key_is_pressed(
    browser, slow, trainer
):
    folders = [running(slow.runs, name, trainer) for name in ("a", "b")]
    other = browser.browser.new_context(viewport=VIEWPORT)
    pages = [browser.new_page(), other.new_page()]
    sliders = [page.get_by_role("slider", name=SLIDER) for page in pages]
    try:
        for page, focus in zip(pages, "ab"):
            page.goto(f"{slow.url}/?run=a&run=b&focus={focus}")
        for slider in sliders:
            slider.wait_for(timeout=SECONDS)
        for turn in range(2):
            for page in pages:
                go_to(page, "Runs")
            for page in pages:
                page.wait_for_url(re.compile("/runs"), timeout=SECONDS, wait_until="commit")
                page.go_back(wait_until="commit")  # The page has hardly come.
            for page, slider in zip(pages, sliders):
                come_back(page, slider)
            for folder in folders:
                grow(folder, 10 + turn, 11 + turn)
            for page, name in zip(pages, "ba" if turn % 2 == 0 else "ab"):
                page.get_by_role("radio", name=name, exact=True).or_(
                    page.get_by_role("button", name=name, exact=True)
                ).first.click(timeout=SECONDS)
            for slider in sliders:
                slider.wait_for(timeout=SECONDS)
        pages[0].reload()
        sliders[0].wait_for(timeout=SECONDS)
        assert [sent(folder) for folder in folders] == [[], []]
        sliders[0].press("ArrowRight")
        rows = wait_for(lambda: [row for folder in folders for row in sent(folder)])
        assert [(row["action"], row["knob"]) for row in rows] == [("set", "beta")] and rows[0][
            "value"
        ] > 0
    finally:
        pages[0].close()
        other.close()
