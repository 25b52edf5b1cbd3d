"""Output whose reader may go away, such as `| head` or a closed terminal: printing ends then, and the
work goes on.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class TolerantStream:
    """A text stream that discards its text once nobody reads it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._gone = stream, False

    def write(self, text: str) -> int:
        """Write `text`, or discard it when nobody reads; return its length."""
        return self._try(lambda: self._stream.write(text)) or len(text)

    def flush(self) -> None:
        """Flush the stream, unless nobody reads it."""
        self._try(self._stream.flush)

    def _try(self, operation: Callable[[], Any]) -> Any:
        if self._gone:
            return None
        try:
            return operation()
        except OSError:  # A closed pipe, a closed terminal, or a full disk behind a redirection.
            self._gone = True
            self._discard()
            return None

    def _discard(self) -> None:
        """Redirect the stream's file to the null device, so that its buffer raises no error when the
        process ends.
        """
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
        except (OSError, ValueError, AttributeError):
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def tolerate_closed_output() -> Iterator[None]:
    """Within it, printing to standard output or standard error never ends the work."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (TolerantStream(stream) if stream else stream for stream in before)
    try:
        yield
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        sys.stdout, sys.stderr = before
