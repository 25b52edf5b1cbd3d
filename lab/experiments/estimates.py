"""The estimator against measurement: models of known shapes with random weights, trained for a few updates."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from lab.base import build_tokenizer
from lab.config import make_config
from lab.errors import unknown
from lab.estimate import SHAPES, estimate_shape
from lab.experiments.arms import Say, device_name
from lab.models import compute_dtype, resolve_device
from lab.resources import profile

SMALL: dict[str, dict[str, Any]] = {
    "1m": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 512,
           "tie_word_embeddings": True},
    "5m": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 1024,
           "tie_word_embeddings": True},
}
"""Shapes that a CPU profiles in seconds."""
KNOBS: dict[str, dict[str, Any]] = {
    "dpo": {"batch_size": 16, "pairs": 64}, "grpo": {"batch_size": 32, "group_size": 8, "max_completion_tokens": 64},
    "ppo": {"batch_size": 32, "minibatches": 1, "max_completion_tokens": 64},
}


def write_model(shape: dict[str, Any], folder: Path, dtype: torch.dtype) -> None:
    """A model of that shape with random weights, and a tokenizer of its vocabulary."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(shape["vocab_size"])
    llama = LlamaConfig(**shape, max_position_embeddings=8192, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None)
    AutoModelForCausalLM.from_config(llama, dtype=dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def check(sizes: list[str], device: str = "auto", say: Say = lambda text: None) -> dict[str, Any]:
    """Measured and estimated peak memory of DPO, GRPO and PPO for every size, with the error of the estimate.

    Measured is what the CUDA allocator says; on the CPU, where no allocator tells, what the tracker counts.
    """
    where, shapes, rows = resolve_device(device), SHAPES | SMALL, []
    for size in sizes:
        if size not in shapes:
            raise unknown("size", size, list(shapes))
        with tempfile.TemporaryDirectory() as folder:
            write_model(shapes[size], Path(folder), compute_dtype(where))
            for method, knobs in KNOBS.items():
                found = profile(make_config(method, knobs | {"model": folder, "device": device, "lora_rank": 16}), rollouts=1)
                count, length = found.batch
                guess = estimate_shape(size, shapes[size], method, batch_size=count // 2 if method == "dpo" else count, prompt_tokens=10,
                                       completion_tokens=length - 10, group_size=8, full=False, lora_rank=16, bf16=where.type == "cuda", checkpointing=False,
                                       layout="shared", micro_batches=1)
                measured = found.allocated or found.peak
                rows.append({"size": size, "method": method, "rows": count, "length": length, "measured": measured, "estimated": guess.peak,
                             "error": guess.peak / measured - 1, "tracked": found.memory, "guessed": guess.memory, "seconds": found.seconds,
                             "flops": found.flops, "joules": found.joules, "tokens": found.tokens})
                say(f"{size:5} {method:5} {count} x {length} tokens: measured {measured / 2**30:.2f} GiB, estimated {guess.peak / 2**30:.2f} GiB "
                    f"({rows[-1]['error']:+.0%}), {found.seconds['all']:.2f} s an update")
                if where.type == "cuda":
                    torch.cuda.empty_cache()
    return {"command": f"python -m lab estimate --check {','.join(sizes)}", "device": device_name(device), "torch": torch.__version__.partition("+")[0],
            "rows": rows}


def write_check(table: dict[str, Any], out: Path) -> None:
    """The table as JSON."""
    out.write_text(json.dumps(table, indent=1) + "\n", "utf-8")


def profile_row(method: str, knobs: dict[str, Any]) -> dict[str, Any]:
    """A measured profile as one JSON object."""
    return asdict(profile(make_config(method, knobs)))
