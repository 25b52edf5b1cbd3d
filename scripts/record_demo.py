"""Records the animated picture of the README: `python scripts/record_demo.py [OUT.webp]`.

Drives the first page of a real dashboard in Chromium: a recorded run of DPO plays, β is dragged down,
which forks the run into a live one, then β is dragged up while it trains, and the twin without that change
becomes the dashed line. Writes an animated WebP of at most `MAX_BYTES`; the default OUT is
docs/demo.webp. A frame shows a state of the page, however long the machine took to reach it. It takes
a few minutes, and needs Linux or macOS, Chromium and playwright.
"""

import io
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from lab.runs.catalogue import list_runs
from lab.runs.states import ACTIVE_STATES

ROOT = Path(__file__).parents[1]
DEFAULT_OUT = ROOT / "docs" / "demo.webp"
MAX_BYTES = 1_500_000
QUALITIES = (80, 65, 50, 35, 20)  # the first that is small enough is taken
METHOD = "dpo"
FIRST_DRAG, SECOND_DRAG = 50, 75  # after so many updates
AFTER_TWIN = 45  # updates of the live run after its twin has begun
LOW_BETA, HIGH_BETA = "0.01", "0.5"
DRAG_PIXELS = 6  # between two frames
EVERY = 3  # updates between two frames of a live run
VIEWPORT = {"width": 1100, "height": 680}
PLAY, WATCH, DRAG, END = 100, 110, 70, 2600  # milliseconds for which a frame is shown
PLAY_STEP = 240  # milliseconds of the recorded play between two frames
TIMEOUT_SECONDS = 400
WITHOUT_MENU = "header, .lab-present-link { display: none !important; }"
POINTER = """() => {
  const pointer = document.createElement("div");
  pointer.style.cssText = "position:fixed;z-index:1000000;width:22px;height:22px;border-radius:50%;" +
    "margin:-13px 0 0 -13px;background:rgba(213,94,0,.45);border:2px solid #D55E00;pointer-events:none;left:-50px";
  document.body.append(pointer);
  addEventListener("pointermove", (event) => {
    pointer.style.left = `${event.clientX}px`;
    pointer.style.top = `${event.clientY}px`;
  }, true);
}"""


@dataclass
class Film:
    """Frames of a page, each with the milliseconds for which it is shown."""

    page: Any
    frames: list[Image.Image] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)

    def take(self, milliseconds: int) -> None:
        """Append what the page shows now; what looks like the frame before makes that one longer."""
        frame = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        if self.frames and frame.tobytes() == self.frames[-1].tobytes():
            self.durations[-1] += milliseconds
            return
        self.frames.append(frame)
        self.durations.append(milliseconds)

    def save(self, out: Path) -> None:
        """Write an animated WebP. Raises `ValueError` if no quality makes it small enough."""
        for quality in QUALITIES:
            self.frames[0].save(
                out,
                save_all=True,
                append_images=self.frames[1:],
                duration=self.durations,
                loop=0,
                quality=quality,
                method=4,
            )
            if out.stat().st_size <= MAX_BYTES:
                print(f"{out}: {len(self.frames)} frames, {out.stat().st_size:,} bytes")
                return
        raise ValueError(f"{out} has {out.stat().st_size:,} bytes, more than {MAX_BYTES:,}.")


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition. Raises `TimeoutError` with `what` after `TIMEOUT_SECONDS`."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen within {TIMEOUT_SECONDS} s.")
        time.sleep(0.05)


@contextmanager
def dashboard(runs: Path) -> Iterator[str]:
    """The address of a dashboard on a free port; it ends with the block, and its runs with it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://localhost:{port}"
    options = ["--server.port", str(port), "--server.headless", "true"]
    server = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", "app.py", *options],
        cwd=ROOT,
        env=os.environ | {"LAB_RUNS": str(runs)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _answers(f"{url}/_stcore/health"), "The start of the dashboard")
        yield url
    finally:
        server.terminate()
        server.wait()
        for folder in list_runs(runs):
            if folder.state in ACTIVE_STATES:
                os.kill(folder.status()["pid"], signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def shown_update(page: Any) -> int:
    """The update up to which the page draws the curves."""
    return int(re.findall(r"\d+", page.locator(".lab-bar output").inner_text())[0])


def watch_recorded(film: Film, last: int) -> None:
    """Take frames of the playing recorded run until update `last`. The page's clock stands between them."""
    while shown_update(film.page) < last:
        film.page.clock.run_for(PLAY_STEP)
        film.take(PLAY)


def watch_live(film: Film, last: int) -> None:
    """Take a frame whenever the live run has done some updates, until update `last`."""
    step = shown_update(film.page)
    while step < last:
        wait_until(
            lambda step=step: shown_update(film.page) >= min(step + EVERY, last),
            "The next update of the run",
        )
        step = shown_update(film.page)
        film.take(WATCH)


def drag(film: Film, value: str) -> None:
    """Drag β until its slider says `value`, taking frames, and let it go."""
    page = film.page
    slider = page.get_by_role("slider", name=re.compile("^β"))
    places = [int(slider.get_attribute(name) or 0) for name in ("min", "max")]
    track = slider.bounding_box()
    share = (int(slider.input_value()) - places[0]) / (places[1] - places[0])
    x, y = track["x"] + 8 + share * (track["width"] - 16), track["y"] + track["height"] / 2
    said = page.locator(".lab-knob", has=slider).locator("label span")
    step = DRAG_PIXELS if float(value) > float(said.inner_text().split()[0]) else -DRAG_PIXELS
    page.mouse.move(x, y)
    film.take(6 * DRAG)
    page.mouse.down()
    while said.inner_text().split()[0] != value:
        x += step
        if not track["x"] - 20 < x < track["x"] + track["width"] + 20:
            raise ValueError(f"The slider of β has no value {value}.")
        page.mouse.move(x, y)
        film.take(DRAG)
    film.take(6 * DRAG)
    page.mouse.up()


def await_twin(page: Any) -> None:
    """Pause the live run until its twin has passed the change, which takes long on a busy machine."""
    page.locator(".lab-mark-text", has_text=f"→ {HIGH_BETA}").first.wait_for()
    page.get_by_role("button", name="Pause the live run").click()
    page.get_by_role("status").filter(has_text="Dashed: the twin").wait_for()
    page.get_by_role("button", name="Continue the live run").click()
    page.get_by_role("button", name="Pause the live run").wait_for()


def record(out: Path) -> None:
    """Record the picture."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu"],
        )
        with dashboard(Path(folder)) as url:
            page = browser.new_page(viewport=VIEWPORT, color_scheme="light")
            page.set_default_timeout(1000 * TIMEOUT_SECONDS)
            page.clock.install()
            page.goto(f"{url}/?play={METHOD}")
            page.locator(".lab-holder path").first.wait_for()
            page.add_style_tag(content=WITHOUT_MENU)
            page.evaluate("dispatchEvent(new Event('resize'))")
            page.evaluate(POINTER)
            page.clock.pause_at(page.evaluate("Date.now() + 1000"))
            page.get_by_role("button", name="Back to the recorded run").click()
            film = Film(page)
            watch_recorded(film, FIRST_DRAG)
            drag(film, LOW_BETA)
            page.clock.resume()
            page.locator("div.lab-play[data-mode=live]").wait_for()
            watch_live(film, SECOND_DRAG)
            drag(film, HIGH_BETA)
            await_twin(page)
            watch_live(film, shown_update(page) + AFTER_TWIN)
            film.take(END)
        film.save(out)
        browser.close()


if __name__ == "__main__":
    record(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_OUT)
