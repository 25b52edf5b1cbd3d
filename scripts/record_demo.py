"""Records the animated picture of the README: `python scripts/record_demo.py [OUT.webp]`.

It starts the dashboard and a DPO run of its own, opens the page Train in headless Chromium, drags β
up and then down while the run learns, and writes an animated WebP of at most `MAX_BYTES`. The
default OUT is docs/demo.webp. The run stands still while a frame is taken, and the dashboard too
while β is dragged, so that a slow machine shows the same picture. It takes a few minutes, and needs
Linux or macOS, Chromium and playwright.
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

ROOT = Path(__file__).parents[1]
DEFAULT_OUT = ROOT / "docs" / "demo.webp"
MAX_BYTES = 1_500_000
QUALITIES = (80, 65, 50, 35, 20)  # the first that is small enough is taken
STEPS, EVAL_EVERY, SEED = 220, 5, 0
FIRST_DRAG, SECOND_DRAG, LAST = 50, 125, 200  # after so many updates
HIGH_BETA, LOW_BETA = "1", "0.01"
DRAG_PIXELS = 5  # between two frames
VIEWPORT = {"width": 1080, "height": 800}
WATCH, DRAG, END = 110, 70, 1800  # milliseconds for which a frame is shown
TIMEOUT_SECONDS = 120
WITHOUT_MENU = "header { display: none !important; }"
DRAWN = "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
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
    """Frames of a page, each with the milliseconds for which it is shown.

    trainer, server: the processes of the run and of the dashboard
    """

    page: Any
    trainer: subprocess.Popen[bytes]
    server: subprocess.Popen[bytes]
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


@contextmanager
def stopped(*processes: subprocess.Popen[bytes]) -> Iterator[None]:
    """Processes stand still meanwhile."""
    for each in processes:
        each.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for each in processes:
            each.send_signal(signal.SIGCONT)


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition. Raises `TimeoutError` with `what` after `TIMEOUT_SECONDS`."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen within {TIMEOUT_SECONDS} s.")
        time.sleep(0.05)


@contextmanager
def process(command: list[str], runs: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Python module that runs meanwhile, with the folder of its runs."""
    started = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=os.environ | {"LAB_RUNS": str(runs)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield started
    finally:
        started.terminate()
        started.wait()


@contextmanager
def dashboard(runs: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of a dashboard on a free port, and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://localhost:{port}"
    options = ["--server.port", str(port), "--server.headless", "true"]
    with process(["streamlit", "run", "app.py", *options], runs) as server:
        wait_until(lambda: _answers(f"{url}/_stcore/health"), "The start of the dashboard")
        yield url, server


def _answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def shown_step(page: Any) -> int:
    """The update that the page shows as the run's last."""
    found = re.search(rf"step (\d+) of {STEPS}", page.locator("body").inner_text())
    return int(found[1]) if found else 0


def watch(film: Film, last: int) -> None:
    """Take a frame whenever the page shows another update, until it shows update `last`."""
    step = -1

    def moved_on() -> bool:
        nonlocal step
        before, step = step, shown_step(film.page)
        return step != before

    while step < last:
        wait_until(moved_on, "The next update of the run")
        with stopped(film.trainer):
            film.take(WATCH)


def beta_slider(page: Any) -> Any:
    """The live slider of the page."""
    return page.get_by_role("slider", name=re.compile("β, live"))


def drag(film: Film, value: str) -> None:
    """Drag β until its slider says `value`, taking frames, and let it go."""
    page, slider = film.page, beta_slider(film.page)
    label = page.get_by_test_id("stSliderThumbValue").first  # β stands before the learning rate
    above, track = label.bounding_box(), slider.bounding_box()
    x, y = above["x"] + above["width"] / 2, track["y"] + track["height"] / 2
    step = DRAG_PIXELS if float(value) > float(label.inner_text()) else -DRAG_PIXELS
    with stopped(film.trainer, film.server):
        page.mouse.move(x, y)
        film.take(4 * DRAG)
        page.mouse.down()
        while label.inner_text() != value:
            x += step
            if not 0 < x < VIEWPORT["width"]:
                raise ValueError(f"The slider of β has no value {value}.")
            page.mouse.move(x, y)
            page.evaluate(DRAWN)
            film.take(DRAG)
        page.mouse.up()
        film.take(4 * DRAG)


def record(out: Path) -> None:
    """Record the picture."""
    from playwright.sync_api import sync_playwright

    train = ["lab", "train", "dpo", "--steps", str(STEPS), "--eval-every", str(EVAL_EVERY)]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        runs = Path(folder)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu"],
        )
        command = [*train, "--seed", str(SEED), "--out", str(runs / "dpo")]
        with dashboard(runs) as (url, server), process(command, runs) as trainer:
            wait_until((runs / "dpo" / "metrics.jsonl").is_file, "The first update")
            page = browser.new_page(viewport=VIEWPORT, color_scheme="light")
            page.goto(f"{url}/?run=dpo")
            beta_slider(page).wait_for(timeout=1000 * TIMEOUT_SECONDS)
            page.locator(".lab-plot .main-svg").first.wait_for(timeout=1000 * TIMEOUT_SECONDS)
            page.add_style_tag(content=WITHOUT_MENU)
            page.get_by_text(f"of {STEPS}").first.evaluate("line => line.scrollIntoView()")
            page.evaluate(POINTER)
            film = Film(page, trainer, server)
            watch(film, FIRST_DRAG)
            drag(film, HIGH_BETA)
            watch(film, SECOND_DRAG)
            drag(film, LOW_BETA)
            watch(film, LAST)
            film.take(END)
            film.save(out)
        browser.close()


if __name__ == "__main__":
    record(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_OUT)
