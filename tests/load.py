"""How the dashboard bears many visitors: sessions that watch runs which grow, for some minutes, on
a server of this script's own on this machine.

    python tests/load.py --sessions 50 --minutes 15
    python tests/load.py --sessions 50 --minutes 2 --first-page

Every session opens the Train page with two runs, ticks once a second as a browser does, moves to
another page and back now and then, and steers nothing. With `--first-page` every session opens the
first page, on which a recorded run plays in the browser, and moves to another page and back every
few seconds; nothing ticks. Printed are the seconds of a page and of a
tick, errors, and the server's memory over time; the exit code is 1 when an answer fails, one in
twenty pages or ticks takes longer than 2 s, memory grows by more than a tenth after the first
third, or a run was sent a command.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from support.browser import Server, grow, running
from support.visitor import Visitor, resting, sent
from websockets.sync.client import connect

RUNS = 8
ARRIVAL = 20.0  # seconds, or a fifth of the time, over which the sessions come
TICK = 1.0  # seconds, as the page's own
VISITS = 30  # ticks between two visits to another page
FIRST_PAGE_VISITS = 5  # seconds between them, where nothing ticks
LIMIT = 2.0  # seconds that 95 % of the answers may take
GROWTH = 0.1  # of the server's memory after the first third of the time


class Load:
    """The sessions, and what was measured."""

    def __init__(self, server, folders, sessions, seconds, first_page=False):
        self.server, self.folders, self.until = server, folders, time.monotonic() + seconds
        self.visits = FIRST_PAGE_VISITS if first_page else VISITS
        self.first_page = first_page
        self.pace = min(ARRIVAL, seconds / 5) / sessions
        self.pages, self.ticks, self.errors, self.memory = [], [], [], []

    def connected(self):
        """A websocket to the server, as the browser opens it."""
        return connect(
            f"ws://localhost:{self.server.port}/_stcore/stream",
            subprotocols=["streamlit"],
            max_size=None,
            origin=self.server.url,
        )

    def session(self, number):
        """One visitor from the first page to the end of the time."""
        time.sleep(number * self.pace)
        names = [self.folders[(number + i) % RUNS].name for i in range(2)]
        try:
            with self.connected() as socket:
                query = "" if self.first_page else f"run={names[0]}&run={names[1]}"
                visitor = self.timed(self.pages, Visitor, socket, query)
                for count in range(1, 1_000_000):
                    if time.monotonic() > self.until:
                        break
                    began, held = time.monotonic(), resting(visitor.sliders)
                    if count % self.visits == number % self.visits:
                        for page in ("map", ""):
                            self.timed(self.pages, visitor.rerun, page=page, **held)
                    elif not self.first_page:
                        self.timed(
                            self.ticks, visitor.rerun, next(reversed(visitor.fragments)), **held
                        )
                    time.sleep(max(0, began + TICK - time.monotonic()))
                self.errors += visitor.exceptions
        except Exception as error:
            self.errors.append(f"session {number}: {type(error).__name__}: {error}")

    @staticmethod
    def timed(found, act, *given, **named):
        """What `act` returns, with its seconds appended to `found`."""
        began = time.monotonic()
        result = act(*given, **named)
        found.append(time.monotonic() - began)
        return result

    def watch(self):
        """Let the runs grow, and note the server's memory every second."""
        process, began, step = psutil.Process(self.server.process.pid), time.monotonic(), 10
        while time.monotonic() < self.until:
            for folder in self.folders:
                grow(folder, step, step + 1)
            step += 1
            everyone = [process, *process.children(recursive=True)]
            self.memory.append(
                (
                    time.monotonic() - began,
                    sum(p.memory_info().rss for p in everyone if p.is_running()),
                )
            )
            time.sleep(TICK)


def p95(seconds):
    return (
        statistics.quantiles(seconds, n=20)[-1] if len(seconds) > 1 else max(seconds, default=0.0)
    )


def report(load):
    """Print what was measured; returns what is wrong with it."""
    for name, seconds in (("pages", load.pages), ("ticks", load.ticks)):
        if not seconds:
            continue
        print(
            f"{name}: {len(seconds)}, median {statistics.median(seconds):.2f} s, 95 % within"
            f" {p95(seconds):.2f} s, longest {max(seconds):.2f} s"
        )
    third = load.memory[-1][0] / 3
    settled = [size for at, size in load.memory if third <= at <= third + max(10, third / 5)]
    last = [size for _, size in load.memory[-len(settled) :]]
    before, after = statistics.median(settled) / 2**20, statistics.median(last) / 2**20
    print(
        f"memory: {before:.0f} MiB after a third of the time, {after:.0f} MiB at its end, at most"
        f" {max(size for _, size in load.memory) / 2**20:.0f} MiB"
    )
    steered = [row for folder in load.folders for row in sent(folder)]
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    print(f"errors: {len(load.errors)}; commands: {len(steered)}")
    for error in load.errors[:10]:
        print(f"  {error}")
    slow = [
        name
        for name, seconds in (("pages", load.pages), ("ticks", load.ticks))
        if p95(seconds) > LIMIT
    ]
    return [*load.errors, *steered, *slow, *["memory"] * (after > before * (1 + GROWTH))]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=50, choices=range(1, 201), metavar="1..200")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--first-page", action="store_true")
    asked = parser.parse_args()
    if not 0 < asked.minutes <= 60:
        parser.error("--minutes takes a number above 0 and up to 60")
    trainer = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(4000)"])
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "runs")
        try:
            load = Load(
                server,
                [running(server.runs, f"run-{i}", trainer) for i in range(RUNS)],
                asked.sessions,
                60 * asked.minutes,
                asked.first_page,
            )
            with load.connected() as socket:
                Visitor(socket, "")  # The first visitor waits until the pages are loaded.
            watch = threading.Thread(target=load.watch)
            watch.start()
            with ThreadPoolExecutor(asked.sessions) as pool:
                list(pool.map(load.session, range(asked.sessions)))
            watch.join()
            wrong = report(load)
        finally:
            server.kill()
            trainer.kill()
            trainer.wait()
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
