"""Sides of a benchmark that do no work. They stand apart from the tests so that a process of theirs imports
little.
"""

import os
import signal
import time


def told():
    """A side that tells its process and what that has computed since it began to wait."""
    while True:
        began = time.process_time()
        yield began, [os.getpid()]


def killed():
    yield 1.0, [1]
    os.kill(os.getpid(), signal.SIGKILL)


def met(text, own, other):
    """A side whose first step waits until the other side takes its first step."""
    own.touch()
    while not other.exists():
        time.sleep(0.01)
    while True:
        yield float(len(text)), [1]
