"""Output whose reader may go away, such as `| head` or a terminal that is closed: printing ends
then, and the work goes on.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class TolerantStream:
    """A text stream that is silent once nobody reads it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._gone = stream, False

    def write(self, text: str) -> int:
        """Write `text` if somebody reads."""
        return self._tried(lambda: self._stream.write(text)) or len(text)

    def flush(self) -> None:
        """Flush if somebody reads."""
        self._tried(self._stream.flush)

    def _tried(self, act: Any) -> Any:
        if self._gone:
            return None
        try:
            return act()
        except (
            OSError
        ):  # A closed pipe, a terminal that has hung up, a full disk behind a redirection.
            self._gone = True
            self._discard()
            return None

    def _discard(self) -> None:
        """Lead the stream's file nowhere, so that what is still in its buffer raises nothing when
        the process ends.
        """
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except (OSError, ValueError, AttributeError):
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def tolerate_closed_output() -> Iterator[None]:
    """Within it, what is printed to standard output and errors never ends the work."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (TolerantStream(stream) if stream else stream for stream in before)
    try:
        yield
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        sys.stdout, sys.stderr = before
