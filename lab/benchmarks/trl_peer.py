"""The other side of the benchmark: TRL's trainers and the generation that they call, on the same
model, texts and dtype.

A trainer runs its own loop, in a thread of its own that waits wherever a step may begin. What
counts is the time from its `on_step_begin` to its `on_step_end`: sampling, scoring, loss,
gradients, clipping and the optimizer, but not loading data, logging or reference log-probabilities
that were computed before. (The lab's time has its data loading in it.) Every setting after the
first also turns off gradient checkpointing, TRL's default, because that costs time.
"""

import importlib.util
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import torch

from lab.benchmarks.side_process import Steps
from lab.benchmarks.workload import RANK, Prompts, Work, lab_config, now
from lab.engine.generate import is_end
from lab.errors import LabError
from lab.models.device import compute_dtype
from lab.models.loading import load_policy
from lab.models.sources import model_source
from lab.models.tokenizer import end_token_ids

SHARE = {
    "max_memory_percent": 0.3
}  # Of the free memory, which all sides share; by itself it would take nearly all for its cache.
FAST = {"gradient_checkpointing": False}
FROZEN = FAST | {"precompute_ref_log_probs": True}
PREFERENCE = {
    "default": {},
    "no checkpointing": FAST,
    "reference precomputed": FROZEN,
    "fused kernels": FAST | {"use_liger_kernel": True},
}
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "dpo": PREFERENCE,
    "ipo": PREFERENCE,
    "kto": PREFERENCE,
    "padding": {"reference precomputed": FROZEN},
    "padding, longer": {"reference precomputed": FROZEN},
    "grpo": {
        "default": {},
        "no checkpointing": FAST,
        "continuous batching": (
            FAST
            | {
                "use_transformers_continuous_batching": True,
                "transformers_continuous_batching_config": SHARE,
            }
        ),
        "fused kernels": FAST | {"use_liger_kernel": True},
    },
    "decode": {
        "default": {},
        "adapter merged": {"merge": True},
        "static cache": {"merge": True, "cache_implementation": "static"},
        "continuous batching": {"merge": True, "continuous": True},
    },
}
"""The settings of each work: TRL's own defaults first."""
LAST_RESORT = {
    "grpo": {
        "eager attention": FAST | {"model_init_kwargs": {"attn_implementation": "eager"}},
        "float32": FAST | {"bf16": False, "model_init_kwargs": {"dtype": torch.float32}},
    }
}
"""What is tried where nothing else runs."""


def version() -> str:
    """Such as "trl 1.16.0"; `LabError` where it is not installed."""
    if importlib.util.find_spec("trl") is None:
        raise LabError(
            "TRL is not installed here, so there is nothing to compare with. Install it: pip"
            ' install "alignment-lab[peers]"'
        )
    import trl

    return f"trl {trl.__version__}"


def settings_of(work: Work, where: torch.device) -> dict[str, dict[str, Any]]:
    """The settings that are tried for a work on this device; on the CPU the default, and the best
    of those that are made for it in all threads and in one.
    """
    found = SETTINGS[work.name]
    if where.type == "cuda":
        return found
    best = next(
        name
        for name in ("reference precomputed", "adapter merged", "no checkpointing")
        if name in found
    )
    return {name: found[name] for name in ("default", best) if name in found} | {
        f"{best}, one thread": found[best] | {"threads": 1}
    }


def unavailable(knobs: dict[str, Any]) -> str:
    """Why a setting cannot be tried here; empty when it can."""
    return (
        "skipped: liger-kernel is not installed"
        if "use_liger_kernel" in knobs and importlib.util.find_spec("liger_kernel") is None
        else ""
    )


@contextmanager
def checked() -> Iterator[None]:
    """Within it, sampling from probabilities that are not finite is an ordinary error; on CUDA it
    would end the whole process.
    """
    original = torch.multinomial

    def multinomial(probabilities: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        capturing = probabilities.is_cuda and torch.cuda.is_current_stream_capturing()
        if not capturing and not bool(probabilities.isfinite().all()):
            raise ValueError("the probabilities to sample from hold NaN or infinity")
        return original(probabilities, *args, **named)

    torch.multinomial = multinomial
    try:
        yield
    finally:
        torch.multinomial = original


class Turns:
    """Lets `body(pause)` run in a thread, from one call of `pause` to the next: `take()` lets it go
    on and waits until it pauses again.

    An error in the thread is raised where the turn was taken. `close()` ends the thread at its
    pause.
    """

    def __init__(self, body: Callable[[Callable[[], None]], None], threads: int) -> None:
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, args=(body, threads), daemon=True)

    def _run(self, body: Callable[[Callable[[], None]], None], threads: int) -> None:
        self._go.acquire()
        try:
            torch.set_num_threads(threads)
            body(self._pause)
        except BaseException as error:  # Whatever ends the thread is the caller's to see.
            self._error = error
        self._paused.release()

    def _pause(self) -> None:
        self._paused.release()
        self._go.acquire()
        if self._closing:
            raise SystemExit

    def take(self) -> None:
        """One turn."""
        if not self._thread.is_alive():
            self._thread.start()
        self._go.release()
        self._paused.acquire()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        if self._thread.is_alive():
            self._go.release()
            self._thread.join()


def contender(work: Work, knobs: dict[str, Any], where: torch.device) -> Steps:
    """Do `work` once for every value asked for: seconds, and the lengths in tokens that it trained
    on (of sampling: that it drew).

    The first steps, which nobody times, are `checked`.
    """
    knobs = dict(knobs)
    threads = knobs.pop("threads", torch.get_num_threads())
    with closing((_trained if work.method else _decoded)(work, knobs, where, threads)) as steps:
        for _ in range(2):
            with checked():
                done = next(steps)
            yield done
        yield from steps


def _trained(work: Work, knobs: dict[str, Any], where: torch.device, threads: int) -> Steps:
    lengths: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        turns = Turns(
            lambda pause: _trainer(work, knobs, where, folder, pause, lengths).train(), threads
        )
        try:
            turns.take()  # Builds the trainer, and leaves it where its first step begins.
            while True:
                lengths.clear()
                began = now(where)
                turns.take()  # The step.
                took = now(where) - began
                done = [int(n) for n in lengths]
                turns.take()  # What lies between two steps.
                yield took, done
        finally:
            turns.close()


def _trainer(
    work: Work,
    knobs: dict[str, Any],
    where: torch.device,
    folder: str,
    pause: Callable[[], None],
    lengths: list[int],
) -> Any:
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, KTOConfig, KTOTrainer

    class Steps(TrainerCallback):
        def on_step_begin(self, *args: Any, **rest: Any) -> None:
            pause()

        def on_step_end(self, *args: Any, **rest: Any) -> None:
            pause()

    disable_progress_bars()
    model_init = {"dtype": compute_dtype(where)} | knobs.get("model_init_kwargs", {})
    common = {
        "output_dir": folder,
        "max_steps": 1_000_000,
        "learning_rate": 1e-8,
        "lr_scheduler_type": "constant",
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "bf16": where.type == "cuda",
        "use_cpu": where.type == "cpu",
    }
    common |= knobs | {"model_init_kwargs": model_init}
    lora = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    shared = {"processing_class": work.tokenizer, "peft_config": lora, "callbacks": [Steps()]}
    if work.method == "grpo":

        def reward(
            prompts: list[str], completions: list[str], completion_ids: list[list[int]], **rest: Any
        ) -> list[float]:
            lengths.extend(map(len, completion_ids))
            return Prompts(work.prompts).reward(prompts, completions)

        config = GRPOConfig(
            **common,
            per_device_train_batch_size=len(work.prompts) * work.group,
            num_generations=work.group,
            max_completion_length=work.longest,
        )
        return GRPOTrainer(
            model_source(work.model),
            reward,
            config,
            Dataset.from_list([{"prompt": p} for p in work.prompts]),
            **shared,
        )
    if work.method == "kto":
        rows = [
            {"prompt": p.prompt, "completion": text, "label": good}
            for p in work.pairs
            for text, good in ((p.chosen, True), (p.rejected, False))
        ]
        config = KTOConfig(**common, per_device_train_batch_size=len(rows), max_length=None)
        trainer = KTOTrainer(
            model_source(work.model), None, config, train_dataset=Dataset.from_list(rows), **shared
        )
    else:
        config = DPOConfig(
            **common,
            per_device_train_batch_size=len(work.pairs),
            max_length=None,
            loss_type=["ipo" if work.method == "ipo" else "sigmoid"],
        )
        trainer = DPOTrainer(
            model_source(work.model),
            None,
            config,
            train_dataset=Dataset.from_list([vars(p) for p in work.pairs]),
            **shared,
        )
    step = trainer.training_step

    def counted(model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        lengths.append(
            inputs["attention_mask"].sum()
        )  # Read after the step, so that counting waits for nothing.
        return step(model, inputs, *rest, **named)

    trainer.training_step = counted
    return trainer


@torch.no_grad()
def _decoded(work: Work, knobs: dict[str, Any], where: torch.device, threads: int) -> Steps:
    """Sampling alone, as TRL's GRPO calls it: the prompts of all completions, left-padded, with the
    adapter beside the weights unless it is merged.
    """
    from transformers import ContinuousBatchingConfig, GenerationConfig

    tokenizer, rows = work.tokenizer, [p for p in work.prompts for _ in range(work.group)]
    model = load_policy(lab_config(work, where), where)
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
        began = now(where)
        if knobs.get("continuous"):
            outputs = model.generate_batch(
                [tokenizer(r)["input_ids"] for r in rows],
                generation_config=config,
                progress_bar=False,
                continuous_batching_config=ContinuousBatchingConfig(**SHARE),
            )
            took, drawn = now(where) - began, [len(o.generated_tokens) for o in outputs.values()]
        else:
            ids = model.generate(**batch, generation_config=config)[
                :, batch["input_ids"].shape[1] :
            ]
            took = now(where) - began
            ended = is_end(ids, ends)
            drawn = torch.where(ended.any(1), ended.int().argmax(1) + 1, ids.shape[1]).tolist()
        torch.set_num_threads(before)
        yield took, drawn
