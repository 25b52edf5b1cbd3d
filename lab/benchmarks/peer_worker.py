"""A script that another Python interpreter runs: Unsloth or vLLM does a work of the benchmark there.

It imports nothing of the lab, whose libraries that environment need not have. Its argument is a JSON
file with the job. It writes a line of JSON to its standard output when it has imported its libraries
and after every turn; a turn begins with the line [LEAD, REPEAT] on its standard input. It loads the
model only when the first turn begins, since until then another side may be measured.
"""

import importlib.metadata
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

WARM_UP_STEPS = 3
"""Untimed steps before the first turn: the libraries compile in the first ones."""
NEWEST_TRL, NEWEST_DATASETS = (1, 15), (4,)
"""The newest versions with which Unsloth works."""
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
VLLM_MEMORY_SHARE = 0.5
UNENDING = 1_000_000


class Session:
    """Takes the commands of the benchmark and tells the result of every turn."""

    def __init__(self, commands: TextIO, answers: TextIO) -> None:
        self._commands, self._answers = commands, answers
        self._turn: list[int] = []
        self._untimed, self._timed, self._warm = 0, 0, False
        self._began = 0.0
        self._times: list[float] = []
        self._lengths: list[list[int]] = []

    def tell(self, **message: Any) -> None:
        """Writes one message."""
        print(json.dumps(message), file=self._answers, flush=True)

    def wait_for_turn(self) -> None:
        """Waits until the next turn is asked for. Ends this process when the benchmark has ended."""
        if not self._turn:
            line = self._commands.readline()
            if not line:
                raise SystemExit
            self._turn = json.loads(line)

    def begin(self) -> None:
        """Waits until a step is asked for, and begins to time it. Ends this process when the benchmark
        has ended.
        """
        if not self._untimed + self._timed:
            self.wait_for_turn()
            (self._untimed, self._timed), self._turn = self._turn, []
            self._untimed += 0 if self._warm else WARM_UP_STEPS
            self._warm = True
            self._times, self._lengths = [], []
            if cuda := _cuda():
                cuda.reset_peak_memory_stats()
        self._synchronize()
        self._began = time.perf_counter()

    def end(self, lengths: Sequence[Any]) -> None:
        """Ends a step that had sequences of these lengths in tokens."""
        self._synchronize()
        seconds = time.perf_counter() - self._began
        if self._untimed:
            self._untimed -= 1
        else:
            self._timed -= 1
            self._times.append(seconds)
            self._lengths.append([int(n) for n in lengths])
        if not self._untimed + self._timed:
            cuda = _cuda()
            peak = cuda.max_memory_allocated() if cuda else 0
            self.tell(times=self._times, lengths=self._lengths, peak=peak)

    @staticmethod
    def _synchronize() -> None:
        if cuda := _cuda():
            cuda.synchronize()


def _cuda() -> Any:
    """Returns `torch.cuda` where this process computes on a GPU, otherwise None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def versions(*names: str) -> str:
    """Returns the versions of packages, such as "vllm 0.24.0, torch 2.11.0"."""
    return ", ".join(
        f"{name} {importlib.metadata.version(name).partition('+')[0]}" for name in names
    )


def require_fitting_versions() -> None:
    """Raises `RuntimeError` where TRL or datasets is newer than what Unsloth works with."""
    for name, newest in (("trl", NEWEST_TRL), ("datasets", NEWEST_DATASETS)):
        given = importlib.metadata.version(name)
        if tuple(int(part) for part in given.split(".")[: len(newest)]) > newest:
            raise RuntimeError(
                f"{name} is {given}, but Unsloth takes at most"
                f" {'.'.join(map(str, newest))}; install that in its environment"
            )


def run_unsloth(job: dict[str, Any], session: Session) -> None:
    """Trains with Unsloth's model and TRL's trainer, as Unsloth's own notebooks do."""
    require_fitting_versions()
    import torch
    import unsloth  # First: it changes trl, transformers and peft when they are imported.

    session.tell(ready=versions("unsloth", "trl", "transformers", "torch"))
    session.wait_for_turn()
    # Both calls take the setting, and each has a default of its own.
    saving = "unsloth" if job["checkpointing"] else False
    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        model_name=job["model"],
        max_seq_length=job["max_length"],
        dtype=getattr(torch, job["dtype"]),
        load_in_4bit=False,
        use_gradient_checkpointing=saving,
    )
    model = unsloth.FastLanguageModel.get_peft_model(
        model,
        r=job["rank"],
        lora_alpha=2 * job["rank"],
        lora_dropout=0,
        target_modules=list(LINEAR_LAYERS),
        use_gradient_checkpointing=saving,
        random_state=0,
    )
    lengths: list[Any] = []
    build = _grpo_trainer if job["method"] == "grpo" else _dpo_trainer
    trainer = build(job, model, tokenizer, _settings(job), lengths)
    trainer.add_callback(_timing(session, lengths))
    trainer.train()
    raise RuntimeError(f"the trainer ended by itself after {trainer.state.global_step} steps")


def _settings(job: dict[str, Any]) -> dict[str, Any]:
    """Returns the trainer's settings. Accumulation and optimizer have other defaults in Unsloth, and
    with accumulation a small data set gives no step at all.
    """
    cuda = job["device"].startswith("cuda")
    return {
        "output_dir": job["folder"],
        "max_steps": UNENDING,
        "learning_rate": 1e-8,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused" if cuda else "adamw_torch",
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": job["checkpointing"],
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "bf16": cuda,
        "use_cpu": not cuda,
    } | job["knobs"]


def _timing(session: Session, lengths: list[Any]) -> Any:
    """Returns the callback that waits before every step and ends its time after it."""
    from transformers import TrainerCallback

    class Timing(TrainerCallback):
        def on_step_begin(self, *args: Any, **rest: Any) -> None:
            lengths.clear()
            session.begin()

        def on_step_end(self, *args: Any, **rest: Any) -> None:
            session.end(lengths)

    return Timing()


def _dpo_trainer(
    job: dict[str, Any], model: Any, tokenizer: Any, settings: dict[str, Any], lengths: list[Any]
) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    config = DPOConfig(
        **settings,
        per_device_train_batch_size=len(job["pairs"]),
        max_length=None,
        loss_type=["ipo" if job["method"] == "ipo" else "sigmoid"],
    )
    rows = Dataset.from_list(job["pairs"])
    trainer = DPOTrainer(model, None, config, train_dataset=rows, processing_class=tokenizer)
    step = trainer.training_step

    def counted(model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        lengths.append(inputs["attention_mask"].sum())
        return step(model, inputs, *rest, **named)

    vars(trainer)["training_step"] = counted
    return trainer


def _grpo_trainer(
    job: dict[str, Any], model: Any, tokenizer: Any, settings: dict[str, Any], lengths: list[Any]
) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    luck = random.Random(0)

    def reward(completion_ids: list[list[int]], **rest: Any) -> list[float | None]:
        lengths.extend(map(len, completion_ids))
        return [luck.random() for _ in completion_ids]

    config = GRPOConfig(
        **settings,
        per_device_train_batch_size=len(job["prompts"]) * job["group"],
        num_generations=job["group"],
        max_completion_length=job["longest"],
    )
    rows = Dataset.from_list([{"prompt": prompt} for prompt in job["prompts"]])
    return GRPOTrainer(model, reward, config, rows, processing_class=tokenizer)


def run_vllm(job: dict[str, Any], session: Session) -> None:
    """Samples with vLLM from the base, which computes what a merged adapter does."""
    import vllm

    session.tell(ready=versions("vllm", "torch"))
    session.wait_for_turn()
    engine = vllm.LLM(
        model=job["model"],
        dtype=job["dtype"],
        max_model_len=job["max_length"],
        gpu_memory_utilization=VLLM_MEMORY_SHARE,
        enable_prefix_caching=False,  # Or only the first step would read the prompts.
        disable_log_stats=True,
        **job["knobs"],
    )
    sampling = vllm.SamplingParams(
        n=job["group"],
        temperature=1.0,
        top_p=1.0,
        top_k=-1,
        max_tokens=job["longest"],
        detokenize=False,
    )
    prompts = [{"prompt_token_ids": ids} for ids in job["prompt_ids"]]
    while True:
        session.begin()
        outputs = engine.generate(prompts, sampling, use_tqdm=False)
        session.end([len(text.token_ids) for output in outputs for text in output.outputs])


def main(path: str) -> None:
    """Does the job in the file `path` until the standard input ends."""
    # The libraries print to standard output, so the answers go to a copy of it.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # Modules beside this script must not stand for libraries of the same name.
    sys.path[:] = [folder for folder in sys.path if folder != str(Path(__file__).parent)]
    session = Session(sys.stdin, answers)
    try:
        job = json.loads(Path(path).read_text("utf-8"))
        {"unsloth": run_unsloth, "vllm": run_vllm}[job["peer"]](job, session)
    except Exception as error:
        text = (str(error).splitlines() or [""])[0]
        session.tell(error=f"{type(error).__name__}: {text}")


if __name__ == "__main__":
    main(sys.argv[1])
