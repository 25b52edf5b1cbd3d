"""Measure on the page Taste what fifty labels and a training on them cost on this machine.

    python tests/measure_taste.py --pool chain
    python tests/measure_taste.py --pool tone --labels 50

A browser opens the page on a server of its own and labels with the keys F and J, without a pause: it
prefers the longer answer. Printed are the milliseconds from a key until the page counts its label as written,
then the seconds from a press of Train until each run has finished and until the page shows the last result, the
CPU seconds of each run's process since it began, and those of the server with all its processes meanwhile.
`--picks` labels some more where the model is least sure and prints their milliseconds. The load stands beside,
because it slows all of them but the CPU time. The pool tone needs `python -m lab fetch smollm2-135m`.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
from measure_pages import cpu_seconds, load, wait_for_rest
from playwright.sync_api import Page, sync_playwright
from support.browser import CHROMIUM, FLAGS, SECONDS, VIEWPORT, Server, end_runs

from lab.figures.palette import METHOD_NAMES
from lab.runs.folder import RunFolder
from lab.runs.states import RunState
from lab.taste.labels import LabelSet
from lab.taste.training import noted_trainings

ANSWERS = ".lab-labeller .lab-answer .lab-answer-text"
POLL_SECONDS, MOST_SECONDS = 0.02, 3600
ENDED = (RunState.FINISHED, RunState.FAILED, RunState.STOPPED, RunState.INTERRUPTED)


def label(page: Page, count: int) -> list[float]:
    """Give `count` labels by keys; returns the milliseconds from each key until its label is counted."""
    spent = []
    for _ in range(count):
        page.wait_for_function(f"document.querySelectorAll('{ANSWERS}').length === 2")
        left, right = (own.inner_text() for own in page.locator(ANSWERS).all())
        before = page.locator(".lab-label-status").inner_text()
        began = time.perf_counter()
        page.keyboard.press("f" if len(left) >= len(right) else "j")
        page.wait_for_function(
            "before => document.querySelector('.lab-label-status')?.innerText !== before",
            arg=before,
            timeout=SECONDS,
            polling=5,
        )
        spent.append(1000 * (time.perf_counter() - began))
    return spent


class Meter:
    """The CPU seconds of a process, all its descendants and the runs, also of those that have ended."""

    def __init__(self, process: psutil.Process) -> None:
        self.process, self.spent = process, dict[int, float]()
        self.look(())
        self.before = sum(self.spent.values())

    def look(self, pids: Iterable[int]) -> None:
        """Look once. `pids` are the processes of runs: the server is no longer the parent of some."""
        found = [self.process, *self.process.children(recursive=True)]
        for pid in {own.pid for own in found} | {pid for pid in pids if pid}:
            try:
                times = psutil.Process(pid).cpu_times()
                self.spent[pid] = times.user + times.system
            except psutil.Error:
                pass

    def seconds(self) -> float:
        """Return the CPU seconds since the meter was made."""
        return sum(self.spent.values()) - self.before


def train(page: Page, labels: LabelSet, server: Server) -> None:
    """Press Train, and print when each run ended and when the page showed the last result."""
    meter = Meter(psutil.Process(server.process.pid))
    began = time.perf_counter()
    page.get_by_role("button", name="Train on").click()
    ended: dict[str, float] = {}
    runs: dict[str, str] = {}
    pids: dict[str, int] = {}
    while not runs or len(ended) < len(runs):
        if noted := noted_trainings(labels):
            runs = noted[-1]["runs"]
        for method, name in runs.items():
            folder = RunFolder(server.runs / name)
            pids[method] = folder.status()["pid"] or pids.get(method, 0)
            if method not in ended and folder.state in ENDED:
                ended[method] = time.perf_counter() - began
        meter.look(pids.values())
        assert time.perf_counter() - began < MOST_SECONDS, f"still training: {runs}"
        time.sleep(POLL_SECONDS)
    text = "each method agrees with"
    names = [METHOD_NAMES[method] for method in runs]
    page.wait_for_function(
        "([text, names]) => [...document.querySelectorAll('p')].some((p) => p.innerText.includes(text)"
        " && names.every((name) => p.innerText.includes(name)))",
        arg=[text, names],
        timeout=SECONDS,
    )
    shown = time.perf_counter() - began
    meter.look(pids.values())
    for method, seconds in ended.items():
        state = RunFolder(server.runs / runs[method]).state
        cpu = meter.spent.get(pids[method], 0.0)
        print(f"  {METHOD_NAMES[method]}: {state} after {seconds:.1f} s, CPU {cpu:.1f} s")
    print(f"  last result on the page after {shown:.1f} s; CPU {meter.seconds():.1f} s; {load()}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", choices=("chain", "tone"), default="chain")
    parser.add_argument("--labels", type=int, default=50)
    parser.add_argument("--picks", type=int, default=0, help="labels where the model is least sure")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = Server(Path(folder) / "runs")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = browser.new_page(viewport=VIEWPORT)
            page.goto(f"{server.url}/taste?set=measure&pool={asked.pool}")
            page.locator(ANSWERS).first.wait_for(timeout=SECONDS)
            wait_for_rest(psutil.Process())
            print(f"{asked.pool}, {os.cpu_count()} cores, {load()}")
            before = cpu_seconds(psutil.Process())
            spent = label(page, asked.labels)
            cpu = cpu_seconds(psutil.Process()) - before
            print(
                f"  {len(spent)} labels in {sum(spent) / 1000:.1f} s; median"
                f" {statistics.median(spent):.0f} ms, longest {max(spent):.0f} ms; CPU {cpu:.1f} s"
                f" of server and browser; {load()}"
            )
            wait_for_rest(psutil.Process())
            train(page, LabelSet("measure", asked.pool, server.runs), server)
            if asked.picks:
                began = time.perf_counter()
                page.goto(f"{server.url}/taste?set=measure&pool={asked.pool}&pick=uncertain")
                page.get_by_text("one of the least sure").wait_for(timeout=SECONDS)
                print(f"  first least sure pair after {time.perf_counter() - began:.1f} s")
                spent = label(page, asked.picks)
                print(f"  {len(spent)} more labels: median {statistics.median(spent):.0f} ms")
        finally:
            browser.close()
            server.kill()
            end_runs(server.runs)


if __name__ == "__main__":
    main()
