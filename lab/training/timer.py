"""Where the time of a run goes: sampling, scoring, updating, evaluating."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

PHASES = ("sampling", "scoring", "updating", "evaluating")


class PhaseTimer:
    """Adds up the seconds of each phase of a run; `phases` maps each name of `PHASES` to its seconds."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._nested_seconds = 0.0

    @property
    def training_seconds(self) -> float:
        """Seconds of sampling, scoring and updating so far, without evaluation and pauses."""
        return sum(self.phases.values()) - self.phases["evaluating"]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Within it, time counts as `name`'s; the time of a phase inside another counts for the inner
        phase alone.

        On CUDA a phase ends when its work has been queued. Sampling and updating read a result, so
        their work is done by then.
        """
        outer_nested, self._nested_seconds = self._nested_seconds, 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.phases[name] += elapsed - self._nested_seconds
            self._nested_seconds = outer_nested + elapsed
