"""TRL's trainers for the updates of the benchmark, with callbacks that pause at every step."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch

from lab.benchmarks.workload import BENCH_LORA_RANK, Prompts, Work
from lab.models.device import compute_dtype
from lab.models.sources import model_source

if TYPE_CHECKING:
    from transformers import Trainer

Lengths = list[Any]
"""Collects the lengths in tokens of a step: numbers, or tensors of one number."""


def import_trainers() -> None:
    """Imports TRL's trainers. TRL names the cache of precomputed log-probabilities by a hash of all
    weights, which takes a minute for 8 billion; here the name is random.
    """
    import_module("trl.trainer.grpo_trainer")
    for name in ("dpo", "kto"):
        vars(import_module(f"trl.trainer.{name}_trainer"))["hash_module"] = lambda model: (
            uuid4().hex
        )


def build_trainer(
    work: Work,
    knobs: dict[str, Any],
    where: torch.device,
    folder: str,
    pause: Callable[[], None],
    lengths: Lengths,
) -> "Trainer":
    """Builds the TRL trainer of a work; `knobs` are its settings beside the common ones.

    The trainer writes into `folder`, calls `pause` before and after every step, and appends the
    lengths in tokens of the sequences of a step to `lengths`.
    """
    from datasets import disable_progress_bars
    from peft import LoraConfig
    from transformers import TrainerCallback

    class Pauses(TrainerCallback):
        def on_step_begin(self, *args: Any, **rest: Any) -> None:
            pause()

        def on_step_end(self, *args: Any, **rest: Any) -> None:
            pause()

    disable_progress_bars()
    import_trainers()
    model_init = {"dtype": compute_dtype(where)} | knobs.get("model_init_kwargs", {})
    settings: dict[str, Any] = {
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
    settings |= knobs | {"model_init_kwargs": model_init}
    lora = LoraConfig(
        r=BENCH_LORA_RANK,
        lora_alpha=2 * BENCH_LORA_RANK,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    shared: dict[str, Any] = {
        "processing_class": work.tokenizer,
        "peft_config": lora,
        "callbacks": [Pauses()],
    }
    build = {"grpo": _grpo_trainer, "kto": _kto_trainer}.get(work.method, _dpo_trainer)
    return build(work, settings, shared, lengths)


def _grpo_trainer(
    work: Work, settings: dict[str, Any], shared: dict[str, Any], lengths: Lengths
) -> "Trainer":
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    def reward(
        prompts: list[str], completions: list[str], completion_ids: list[list[int]], **rest: Any
    ) -> list[float | None]:
        lengths.extend(map(len, completion_ids))
        return list(Prompts(work.prompts).reward(prompts, completions))

    config = GRPOConfig(
        **settings,
        per_device_train_batch_size=len(work.prompts) * work.group,
        num_generations=work.group,
        max_completion_length=work.longest,
    )
    dataset = Dataset.from_list([{"prompt": prompt} for prompt in work.prompts])
    return GRPOTrainer(model_source(work.model), reward, config, dataset, **shared)


def _kto_trainer(
    work: Work, settings: dict[str, Any], shared: dict[str, Any], lengths: Lengths
) -> "Trainer":
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    rows = [
        {"prompt": pair.prompt, "completion": text, "label": desirable}
        for pair in work.pairs
        for text, desirable in ((pair.chosen, True), (pair.rejected, False))
    ]
    config = KTOConfig(**settings, per_device_train_batch_size=len(rows), max_length=None)
    return _count_tokens(
        KTOTrainer(
            model_source(work.model), None, config, train_dataset=Dataset.from_list(rows), **shared
        ),
        lengths,
    )


def _dpo_trainer(
    work: Work, settings: dict[str, Any], shared: dict[str, Any], lengths: Lengths
) -> "Trainer":
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    config = DPOConfig(
        **settings,
        per_device_train_batch_size=len(work.pairs),
        max_length=None,
        loss_type=["ipo" if work.method == "ipo" else "sigmoid"],
    )
    dataset = Dataset.from_list([vars(pair) for pair in work.pairs])
    return _count_tokens(
        DPOTrainer(model_source(work.model), None, config, train_dataset=dataset, **shared), lengths
    )


def _count_tokens(trainer: "Trainer", lengths: Lengths) -> "Trainer":
    """Makes every training step append the number of its tokens to `lengths`."""
    step = trainer.training_step

    def counted(model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        # The tensor is read after the step, so that counting does not wait for the GPU.
        lengths.append(inputs["attention_mask"].sum())
        return step(model, inputs, *rest, **named)

    vars(trainer)["training_step"] = counted
    return trainer
