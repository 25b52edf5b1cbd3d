"""Measure the dashboard's pages in a browser on this machine.

    python tests/measure_pages.py drag                  # each slider of each page: CPU a move
    python tests/measure_pages.py drag --pages dpo grpo
    python tests/measure_pages.py drag --site build/site  # the live figures of the built site
    python tests/measure_pages.py first                 # time until the first figure stands there

`drag` presses the mouse on a slider, moves it in steps of one value, waits two frames after each
move, and at last puts the slider back. Printed are the milliseconds of CPU that the page's main
thread takes a move: the median, the 95th percentile, and the median in scripts. `first` starts a
server, opens a page in a new browser (cold), and opens it again in a new tab of the same browser
(warm), each time when server and browser are at rest. Printed are the seconds until the first
figure has been painted, and the CPU seconds of server and browser in this time. The machine's load
stands beside both, because it slows all of them but the CPU time. The last line says which are
above the goal.
"""

import argparse
import functools
import http.server
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, Locator, Page, sync_playwright
from support.browser import CHROMIUM, FLAGS, SECONDS, VIEWPORT, Server

from lab.dashboard.pages.registry import PAGES

MOVES = 24
DRAG_GOAL_MS = 16.0  # of CPU a move
FIRST_GOAL_SECONDS = 1.5
REST = 0.05  # CPU seconds a second of a server and a browser at rest
WARM_UP_MOVES = 3  # before the measured ones: the browser compiles the script
URLS = tuple("" if entry.default else entry.url for entry in PAGES)
TABS = {  # of pages that have sliders on more than their first one
    "grpo": ("from=the base&more=Clipping", "more=Learning to think"),
    "evidence": ("show=LoRA rank",),
}
SLIDERS = ":is(.lab-slider, .lab-replay, .lab-knob, .lab-pair) input[type=range]"
FIGURES = (
    ".lab-figure .main-svg .trace, .lab-plot .main-svg .trace, .lab-play path.lab-run,"
    " [data-testid=stImage] img, .lab-token, .lab-card, .lab-diagram-picture > *"
)
FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
QUIET = """() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState !== 'running'
  && [...document.querySelectorAll('.lab-figure, .lab-plot')].every((figure) => figure.querySelector('.main-svg'))"""
FIRST_FIGURE = f"""
const look = () => {{
  if (document.querySelector("{FIGURES}")) requestAnimationFrame(() => {{ window.firstFigure = performance.now(); }});
  else requestAnimationFrame(look);
}};
look();
"""


def load() -> str:
    return f"load {os.getloadavg()[0]:.1f}"


def main_thread_ms(session: Any) -> tuple[float, float]:
    """CPU milliseconds of the page's main thread so far: of all tasks, and of scripts."""
    found = session.send("Performance.getMetrics")["metrics"]
    metrics = {metric["name"]: metric["value"] for metric in found}
    return 1000 * metrics["TaskDuration"], 1000 * metrics["ScriptDuration"]


@dataclass(frozen=True)
class Drag:
    """CPU milliseconds of each move of a slider: of all tasks, of scripts, and of all tasks when the
    same moves are made without pressing the button, which is what moves and frames cost alone.
    """

    tasks: list[float]
    scripts: list[float]
    hover: list[float]


def drag(page: Page, session: Any, slider: Locator) -> Drag:
    """Drag the slider, one value a move, and put it back where it stood."""
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box
    last, stood = int(slider.get_attribute("max") or 1), int(slider.input_value())
    y = box["y"] + box["height"] / 2
    all_places = [box["x"] + 9 + (box["width"] - 18) * at / last for at in range(last + 1)]
    there_and_back = [abs(i % (2 * last) - last) for i in range(MOVES + WARM_UP_MOVES + 1)]
    places = [all_places[at] for at in there_and_back]

    def moved(to: Sequence[float]) -> tuple[list[float], list[float]]:
        tasks, scripts = [], []
        for place in to:
            before = main_thread_ms(session)
            page.mouse.move(place, y)
            page.evaluate(FRAMES)
            after = main_thread_ms(session)
            tasks.append(after[0] - before[0])
            scripts.append(after[1] - before[1])
        return tasks, scripts

    hover = moved(places[WARM_UP_MOVES + 1 :])[0]
    page.mouse.move(places[0], y)
    page.mouse.down()
    moved(places[1 : WARM_UP_MOVES + 1])
    found = Drag(*moved(places[WARM_UP_MOVES + 1 :]), hover)
    page.mouse.move(all_places[stood], y)
    page.mouse.up()
    page.wait_for_timeout(1000)  # the server answers
    page.wait_for_function(QUIET, timeout=SECONDS)
    return found


def shown_sliders(page: Page) -> Iterator[Locator]:
    """Each slider of the page once, while it is in view: the story shows one at some of its steps."""
    seen = set()
    for part in page.locator(".lab-step").all() or [page.locator("body")]:
        part.scroll_into_view_if_needed()
        if page.locator(".lab-step").count():
            part.evaluate("(node) => node.scrollIntoView({ block: 'center' })")
            page.wait_for_timeout(800)  # the slider glides to the step's value
        for slider in page.locator(SLIDERS).all():
            name = slider.get_attribute("id")
            if name not in seen and slider.is_visible() and slider.is_enabled():
                seen.add(name)
                yield page.locator(f'[id="{name}"]')


def drag_page(browser: Browser, url: str, name: str) -> dict[str, float]:
    """Print the CPU of each slider of a page; returns the median milliseconds of each."""
    page = browser.new_page(viewport=VIEWPORT)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(url)
    page.locator(FIGURES).first.wait_for(timeout=SECONDS, state="attached")
    for figure in page.locator(".lab-live[data-figure]").all():  # the site fetches what is near
        figure.scroll_into_view_if_needed()
        figure.locator(".main-svg").first.wait_for(timeout=SECONDS)
    page.wait_for_timeout(1500)
    page.wait_for_function(QUIET, timeout=SECONDS)
    found = {}
    for slider in shown_sliders(page):
        moves, label = drag(page, session, slider), slider.get_attribute("id")
        found[f"{name} {label}"] = median = statistics.median(moves.tasks)
        late = statistics.quantiles(moves.tasks, n=20)[-1]
        print(
            f"{name:12} {label:28} median {median:5.1f} ms, 95 % {late:5.1f} ms,"
            f" {statistics.median(moves.scripts):5.1f} in scripts;"
            f" {statistics.median(moves.hover):.1f} ms without pressing; {load()}",
            flush=True,
        )
    page.close()
    return found


def cpu_seconds(process: psutil.Process) -> float:
    """CPU seconds of a process and its children so far."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
            total += times.user + times.system
        except psutil.Error:
            pass
    return total


def wait_for_rest(*processes: psutil.Process) -> None:
    """Wait until the processes and their children rest: the imports in the background have ended."""
    for _ in range(60):
        before = sum(map(cpu_seconds, processes))
        time.sleep(1)
        if sum(map(cpu_seconds, processes)) - before < REST:
            return
    print("The server or the browser did not come to rest within a minute.")


def open_page(context: Any, url: str, server: psutil.Process) -> tuple[float, float, float]:
    """Seconds until the first figure of a page, CPU seconds of the server, of the browser."""
    page = context.new_page()
    page.add_init_script(FIRST_FIGURE)
    own = psutil.Process()
    before = cpu_seconds(server), cpu_seconds(own) - cpu_seconds(server)
    began = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_function("window.firstFigure", timeout=SECONDS)
    seconds = time.perf_counter() - began
    after = cpu_seconds(server), cpu_seconds(own) - cpu_seconds(server)
    page.close()
    return seconds, after[0] - before[0], after[1] - before[1]


def first_figure(playwright: Any, url: str, repeats: int) -> dict[str, float]:
    """Print the time to the first figure of a page; returns the seconds, cold and warm (median)."""
    name, seconds = url or "play", []
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "runs")
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            context = browser.new_context(viewport=VIEWPORT)
            process = psutil.Process(server.process.pid)
            for at in range(repeats + 1):
                found = open_page(context, f"{server.url}/{url}", process)
                print(
                    f"{name:12} {'warm' if at else 'cold'}: {found[0]:5.2f} s; CPU: server"
                    f" {found[1]:5.2f} s, browser {found[2]:5.2f} s; {load()}",
                    flush=True,
                )
                seconds.append(found[0])
                if at < repeats:
                    wait_for_rest(psutil.Process())
            browser.close()
        finally:
            server.kill()
    return {f"{name} cold": seconds[0], f"{name} warm": statistics.median(seconds[1:])}


def site_address(folder: Path) -> str:
    """Serve the built site from a thread; returns its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *given: None  # type: ignore[attr-defined]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def verdict(found: dict[str, float], goal: float, unit: str) -> None:
    """Print which of the measured values are above the goal."""
    above = [f"{name} {value:.2f}" for name, value in found.items() if value > goal]
    print(f"{len(above)} of {len(found)} above {goal} {unit}. {', '.join(above)}".strip())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("drag", "first"))
    parser.add_argument("--pages", nargs="+", default=URLS)
    parser.add_argument("--url", help="a dashboard that runs already")
    parser.add_argument("--site", type=Path, help="the folder of the built documentation site")
    parser.add_argument(
        "--repeats", type=int, default=3, choices=range(1, 21), metavar="1..20", help="warm visits"
    )
    asked = parser.parse_args()
    found: dict[str, float] = {}
    with sync_playwright() as playwright:
        if asked.what == "first":
            for url in asked.pages:
                found |= first_figure(playwright, url, asked.repeats)
            verdict(found, FIRST_GOAL_SECONDS, "s")
            return
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with tempfile.TemporaryDirectory() as folder:
            server = None if asked.url or asked.site else Server(Path(folder) / "runs")
            base = asked.url or (site_address(asked.site) if asked.site else server.url)
            try:
                for url in asked.pages:
                    for tab in TABS.get(url, ("",)):
                        query = f"?guess=Skip&{tab}" if url else ""  # no figure is covered
                        found |= drag_page(browser, f"{base}/{url}{query}", url or "play")
            finally:
                if server:
                    server.kill()
    verdict(found, DRAG_GOAL_MS, "ms of CPU a move")


if __name__ == "__main__":
    main()
