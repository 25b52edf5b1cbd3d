"""TRL's side of the benchmark: its trainers, and the generation that its GRPO trainer calls, on the
lab's model, texts and dtype.

A trainer runs its own loop in a thread that waits before every step. The benchmark times it from
`on_step_begin` to `on_step_end`: sampling, scoring, loss, gradients, clipping and the optimizer. It
does not time data loading, logging, or reference log-probabilities that were computed before; the
lab's time includes data loading.
"""

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import torch

from lab.benchmarks.device_limits import synchronized_seconds
from lab.benchmarks.side_process import Steps
from lab.benchmarks.trl_settings import CACHE_MEMORY_SHARE
from lab.benchmarks.trl_trainers import build_trainer, import_trainers
from lab.benchmarks.workload import Work, lab_config
from lab.engine.generate import is_end
from lab.models.loading import load_policy
from lab.models.tokenizer import end_token_ids


def preload() -> None:
    """Imports TRL before the first side is timed: it takes seconds."""
    import_trainers()


@contextmanager
def finite_sampling() -> Iterator[None]:
    """Within this context, sampling from probabilities that are not finite raises `ValueError`; on
    CUDA it would otherwise end the process.
    """
    original: Callable[..., torch.Tensor] = torch.multinomial

    def multinomial(probabilities: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        capturing = probabilities.is_cuda and torch.cuda.is_current_stream_capturing()
        if not capturing and not bool(probabilities.isfinite().all()):
            raise ValueError("the probabilities to sample from hold NaN or infinity")
        return original(probabilities, *args, **named)

    vars(torch)["multinomial"] = multinomial
    try:
        yield
    finally:
        vars(torch)["multinomial"] = original


class Turns:
    """Runs `body(pause)` in a thread, one turn at a time: `take()` lets the thread run until it calls
    `pause` again.

    `take()` raises an error of the thread. `close()` ends the thread at its pause.
    """

    def __init__(self, body: Callable[[Callable[[], None]], object], threads: int) -> None:
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, args=(body, threads), daemon=True)

    def _run(self, body: Callable[[Callable[[], None]], object], threads: int) -> None:
        self._go.acquire()
        try:
            torch.set_num_threads(threads)
            body(self._pause)
        except BaseException as error:  # `take` raises it again.
            self._error = error
        self._paused.release()

    def _pause(self) -> None:
        self._paused.release()
        self._go.acquire()
        if self._closing:
            raise SystemExit

    def take(self) -> None:
        """Lets the thread run until its next pause."""
        if not self._thread.is_alive():
            self._thread.start()
        self._go.release()
        self._paused.acquire()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Ends the thread."""
        self._closing = True
        if self._thread.is_alive():
            self._go.release()
            self._thread.join()


def trl_steps(work: Work, knobs: dict[str, Any], where: torch.device) -> Steps:
    """Does `work` in TRL, one step for each value. A value is the seconds of the step, and the
    lengths in tokens of the sequences that it trained on or, for sampling alone, that it sampled.

    The first two steps, which are not timed, run within `finite_sampling`.
    """
    knobs = dict(knobs)
    threads = knobs.pop("threads", torch.get_num_threads())
    with closing(
        (_training_steps if work.method else _decoding_steps)(work, knobs, where, threads)
    ) as steps:
        for _ in range(2):
            with finite_sampling():
                step = next(steps)
            yield step
        yield from steps


def _training_steps(work: Work, knobs: dict[str, Any], where: torch.device, threads: int) -> Steps:
    lengths: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        turns = Turns(
            lambda pause: build_trainer(work, knobs, where, folder, pause, lengths).train(), threads
        )
        try:
            turns.take()  # Builds the trainer and stops before its first step.
            while True:
                lengths.clear()
                began = synchronized_seconds(where)
                turns.take()  # The step.
                seconds = synchronized_seconds(where) - began
                tokens = [int(n) for n in lengths]
                turns.take()  # Everything between two steps.
                yield seconds, tokens
        finally:
            turns.close()


@torch.no_grad()
def _decoding_steps(work: Work, knobs: dict[str, Any], where: torch.device, threads: int) -> Steps:
    """Samples as TRL's GRPO trainer does: all prompts left-padded, the adapter apart from the weights
    unless the setting merges it.
    """
    from transformers import ContinuousBatchingConfig, GenerationConfig

    tokenizer, rows = work.tokenizer, [p for p in work.prompts for _ in range(work.group)]
    model: Any = load_policy(lab_config(work, where), where)
    if knobs.get("merge"):
        model = model.merge_and_unload()
    ends = end_token_ids(model, tokenizer)
    config = GenerationConfig(
        max_new_tokens=work.longest,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=ends,
        cache_implementation=knobs.get("cache_implementation"),
    )
    batch = tokenizer(
        rows, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False
    ).to(where)
    while True:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        began = synchronized_seconds(where)
        if knobs.get("continuous"):
            outputs = model.generate_batch(
                [tokenizer(r)["input_ids"] for r in rows],
                generation_config=config,
                progress_bar=False,
                continuous_batching_config=ContinuousBatchingConfig(
                    max_memory_percent=CACHE_MEMORY_SHARE
                ),
            )
            seconds, sampled = (
                synchronized_seconds(where) - began,
                [len(o.generated_tokens) for o in outputs.values()],
            )
        else:
            ids = model.generate(**batch, generation_config=config)[
                :, batch["input_ids"].shape[1] :
            ]
            seconds = synchronized_seconds(where) - began
            ended = is_end(ids, ends)
            sampled = torch.where(ended.any(1), ended.int().argmax(1) + 1, ids.shape[1]).tolist()
        torch.set_num_threads(before)
        yield seconds, sampled
