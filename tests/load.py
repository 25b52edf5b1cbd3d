"""How the dashboard bears many visitors, for some minutes, on a server of this script's own on this
machine.

    python tests/load.py --sessions 50               # of page Train, for 15 minutes
    python tests/load.py --sessions 50 --first-page  # of the first page, for 1 minute

Every session opens the Train page with two runs that grow, ticks once a second as a browser does,
moves to another page and back now and then, and steers nothing. With `--first-page` every session
opens the first page, on which a recorded run plays in the browser, and moves to another page and
back every few seconds; nothing ticks.

A line says every ten seconds how far it is. Printed at the end are the seconds of the first page, of
further pages and of ticks, errors, the server's CPU time and its memory, and a verdict. It fails,
with exit code 1, when an answer fails or is missing, one in twenty pages or ticks takes longer than
2 s, memory grows by more than a tenth after the first third, or a run was sent a command. The verdict
comes at most a minute after the time: a session that has no answer then counts as an error.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
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
MINUTES, FIRST_PAGE_MINUTES = 15.0, 1.0
PATIENCE = 60.0  # seconds after the time until a session without an answer is given up
SAYS = 10  # seconds between two lines on how far it is
LIMIT = 2.0  # seconds that 95 % of the answers may take
GROWTH = 0.1  # of the server's memory after the first third of the time


def say(text):
    print(text, flush=True)


class Load:
    """The sessions, and what was measured."""

    def __init__(self, server, folders, sessions, seconds, first_page=False):
        self.server, self.folders, self.sessions, self.seconds = server, folders, sessions, seconds
        self.visits = FIRST_PAGE_VISITS if first_page else VISITS
        self.first_page = first_page
        self.pace = min(ARRIVAL, seconds / 5) / sessions
        self.first, self.pages, self.ticks, self.errors, self.memory = [], [], [], [], []
        self.cpu = self.own_cpu = 0.0

    def connected(self):
        """A websocket to the server, as the browser opens it."""
        return connect(
            f"ws://localhost:{self.server.port}/_stcore/stream",
            subprotocols=["streamlit"],
            max_size=None,
            origin=self.server.url,
        )

    def opened(self, socket, query):
        """A visitor who has loaded the page's HTML and seen the first run of its script."""
        request = urllib.request.Request(self.server.url, headers={"Accept": "text/html"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            answer.read()
        return Visitor(socket, query)

    def begin(self):
        """Open a page before all others: its visitor waits until the pages are imported."""
        began = time.monotonic()
        with self.connected() as socket:
            self.opened(socket, "")
        say(f"first visitor of the server: {time.monotonic() - began:.2f} s")

    def run(self, patience=PATIENCE):
        """Let the sessions come and watch them; returns at most `patience` seconds after the time."""
        began, own = time.monotonic(), time.process_time()
        self.until = began + self.seconds
        before = cpu_seconds(self.server.process.pid)
        threads = [
            threading.Thread(target=self.session, args=(number,), daemon=True)
            for number in range(self.sessions)
        ]
        for thread in threads:
            thread.start()
        self.watch(began)
        for thread in threads:
            thread.join(max(0.0, self.until + patience - time.monotonic()))
        self.errors += [
            f"session {number}: no answer after the time"
            for number, thread in enumerate(threads)
            if thread.is_alive()
        ]
        self.cpu = cpu_seconds(self.server.process.pid) - before
        self.own_cpu = time.process_time() - own

    def session(self, number):
        """One visitor from the first page to the end of the time."""
        time.sleep(number * self.pace)
        query = "" if self.first_page else self.runs_of(number)
        try:
            with self.connected() as socket:
                visitor = self.timed(self.first, self.opened, socket, query)
                try:
                    self.visit(visitor, number)
                finally:
                    self.errors += visitor.exceptions
        except Exception as error:
            self.errors.append(f"session {number}: {type(error).__name__}: {error}")

    def runs_of(self, number):
        """The two runs that a session watches, as its address names them."""
        return "&".join(f"run={self.folders[(number + i) % RUNS].name}" for i in range(2))

    def visit(self, visitor, number):
        """Tick, and move to another page and back, until the time is over."""
        for count in range(1, 1_000_000):
            if time.monotonic() > self.until:
                return
            began, held = time.monotonic(), resting(visitor.sliders)
            if count % self.visits == number % self.visits:
                for page in ("map", ""):
                    self.timed(self.pages, visitor.rerun, page=page, **held)
            elif not self.first_page:
                self.timed(self.ticks, visitor.rerun, next(reversed(visitor.fragments)), **held)
            time.sleep(max(0, began + TICK - time.monotonic()))

    @staticmethod
    def timed(found, act, *given, **named):
        """What `act` returns, with its seconds appended to `found`."""
        began = time.monotonic()
        result = act(*given, **named)
        found.append(time.monotonic() - began)
        return result

    def watch(self, began):
        """Until the time is over let the runs grow, note the server's memory every second, and say how
        far it is.
        """
        process, step = psutil.Process(self.server.process.pid), 10
        while time.monotonic() < self.until:
            if process.status() == psutil.STATUS_ZOMBIE:
                self.errors.append("the server has ended")
                return
            for folder in self.folders:
                grow(folder, step, step + 1)
            step += 1
            at = time.monotonic() - began
            self.memory.append((at, *memory_bytes(process)))
            if len(self.memory) % SAYS == 0:
                say(
                    f"  {at:4.0f} s of {self.seconds:.0f}: {len(self.first)} of {self.sessions} sessions"
                    f" have their first page, {len(self.pages)} further pages, {len(self.ticks)} ticks,"
                    f" {len(self.errors)} errors; load {os.getloadavg()[0]:.1f}"
                )
            time.sleep(TICK)


def cpu_seconds(pid):
    """CPU seconds of a process so far, without its children."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def memory_bytes(process):
    """Resident memory of a process, and of its children."""
    children = 0
    for child in process.children(recursive=True):
        try:
            children += child.memory_info().rss
        except psutil.Error:  # It has ended meanwhile.
            pass
    return process.memory_info().rss, children


def p95(seconds):
    return (
        statistics.quantiles(seconds, n=20)[-1] if len(seconds) > 1 else max(seconds, default=0.0)
    )


def report(load):
    """Print what was measured; returns what is wrong with it."""
    kinds = {"first page": load.first, "further pages": load.pages, "ticks": load.ticks}
    for name, seconds in kinds.items():
        if seconds:
            say(
                f"{name}: {len(seconds)}, median {statistics.median(seconds):.2f} s, 95 % within"
                f" {p95(seconds):.2f} s, longest {max(seconds):.2f} s"
            )
    wrong = [
        f"95 % of {name} took up to {p95(seconds):.1f} s, and {LIMIT:.0f} s are the limit"
        for name, seconds in kinds.items()
        if p95(seconds) > LIMIT
    ]
    say(
        f"CPU time of the server: {load.cpu:.1f} s, {load.cpu / load.sessions:.2f} s a session,"
        f" {1000 * load.cpu / max(1, sum(map(len, kinds.values()))):.0f} ms an answer; of the sessions:"
        f" {load.own_cpu:.1f} s; load of the machine: {os.getloadavg()[0]:.1f}"
    )
    wrong += memory_report(load)
    steered = [row for folder in load.folders for row in sent(folder)]
    say(f"errors: {len(load.errors)}; commands: {len(steered)}")
    for error in load.errors[:10]:
        say(f"  {error}")
    if load.errors or steered:
        wrong.insert(
            0, f"{len(load.errors)} errors and {len(steered)} commands, and 0 are accepted"
        )
    if len(load.first) < load.sessions:
        wrong.append(f"{load.sessions - len(load.first)} sessions never saw their first page")
    return wrong


def memory_report(load):
    """Print the memory over time; returns what is wrong with it."""
    third = load.memory[-1][0] / 3
    settled = [row[1] for row in load.memory if third <= row[0] <= third + max(10, third / 5)]
    before = statistics.median(settled) / 2**20
    after = statistics.median(row[1] for row in load.memory[-len(settled) :]) / 2**20
    say(
        f"memory of the server: {before:.0f} MiB after a third of the time, {after:.0f} MiB at its end,"
        f" at most {max(row[1] for row in load.memory) / 2**20:.0f} MiB; of the processes that it"
        f" started: at most {max(row[2] for row in load.memory) / 2**20:.0f} MiB"
    )
    grew = after > before * (1 + GROWTH)
    return [f"memory grew from {before:.0f} to {after:.0f} MiB"] if grew else []


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=50, choices=range(1, 201), metavar="1..200")
    parser.add_argument(
        "--minutes",
        type=float,
        help=f"default: {MINUTES:.0f}, with --first-page {FIRST_PAGE_MINUTES:.0f}",
    )
    parser.add_argument("--first-page", action="store_true")
    asked = parser.parse_args()
    minutes = asked.minutes
    if minutes is None:
        minutes = FIRST_PAGE_MINUTES if asked.first_page else MINUTES
    if not 0 < minutes <= 60:
        parser.error("--minutes takes a number above 0 and up to 60")
    say(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    say(
        f"{asked.sessions} sessions of {'the first page' if asked.first_page else 'page Train'} for"
        f" {60 * minutes:.0f} s, and at most {PATIENCE:.0f} s more; the server starts first"
    )
    trainer = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(4000)"])
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "runs")
        try:
            runs = [running(server.runs, f"run-{i}", trainer) for i in range(RUNS)]
            load = Load(server, runs, asked.sessions, 60 * minutes, asked.first_page)
            load.begin()
            load.run()
            wrong = report(load)
        finally:
            server.kill()
            trainer.kill()
            trainer.wait()
    say(f"verdict: {'failed: ' + '; '.join(wrong) if wrong else 'passed'}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
