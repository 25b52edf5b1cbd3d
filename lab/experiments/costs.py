"""What an update costs with every method at the same number of completions, measured; and beside it
what the estimator says.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from lab.config.methods import make_config
from lab.errors import unknown
from lab.experiments.arms import Log, device_name
from lab.models.device import compute_dtype
from lab.models.loading import resolve_device
from lab.models.sources import EMBEDDED
from lab.profiling.estimate import SHAPES, estimate_shape
from lab.profiling.profiler import UpdateCost, as_row, profile
from lab.recipes.pretrain_base import build_tokenizer
from lab.runs.folder import create
from lab.storage.jsonl import replace
from lab.training.loop import prepare, save_adapter

SMALL: dict[str, dict[str, Any]] = {
    "1m": {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 512,
        "tie_word_embeddings": True,
    },
    "5m": {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "vocab_size": 1024,
        "tie_word_embeddings": True,
    },
}
"""Shapes that a CPU profiles in seconds."""
ROWS, LONGEST, RANK = 32, 48, 16
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpo": ("dpo", {"batch_size": ROWS // 2, "pairs": 64}),
    "kto": ("kto", {"batch_size": ROWS, "pairs": 64}),
    "grpo": (
        "grpo",
        {"batch_size": ROWS, "group_size": 8, "reward": "random"},
    ),  # By the rule a model of random weights learns nothing.
    "ppo.shared": ("ppo", {"batch_size": ROWS, "minibatches": 1}),
    "ppo.separate": ("ppo", {"batch_size": ROWS, "minibatches": 1, "model_layout": "separate"}),
}
"""Every method with `ROWS` completions in an update; PPO with a trained reward model, in both
layouts.
"""


def shape_of(size: str) -> dict[str, Any]:
    """The architecture of a size; "embedded" is the model that the lab ships."""
    if size == "embedded":
        shipped = AutoConfig.from_pretrained(EMBEDDED)
        return {name: getattr(shipped, name) for name in SMALL["1m"]}
    shapes = SHAPES | SMALL
    if size not in shapes:
        raise unknown("size", size, ["embedded", *shapes])
    return shapes[size]


def write_model(shape: dict[str, Any], folder: Path, where: torch.device) -> None:
    """A model of that shape with random weights, and a tokenizer of its vocabulary."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(shape["vocab_size"])
    llama = LlamaConfig(
        **shape,
        max_position_embeddings=8192,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with where:
        AutoModelForCausalLM.from_config(llama, dtype=compute_dtype(where)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def check(
    sizes: list[str], device: str = "auto", say: Log = lambda text: None, out: Path | None = None
) -> dict[str, Any]:
    """Measure every arm of `ARMS` on every size and estimate its peak memory; `out` gets the table
    as it grows.

    Measured is what the CUDA allocator says; on the CPU, where no allocator tells, what the tracker
    counts.
    """
    where = resolve_device(device)
    shapes = {size: shape_of(size) for size in sizes}
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
    named = "" if out is None else f" --out {out.name}"
    table: dict[str, Any] = {
        "command": f"python -m lab estimate --check {','.join(sizes)}{named}",
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "completions": ROWS,
        "rows": [],
    }
    for size, shape in shapes.items():
        with tempfile.TemporaryDirectory() as made:
            if size != "embedded":
                write_model(shape, Path(made) / "base", where)
            common = {
                "model": "embedded" if size == "embedded" else str(Path(made) / "base"),
                "device": device,
                "lora_rank": RANK,
            }
            judge = make_config("reward_model", common)
            save_adapter(
                prepare(judge), create(Path(made) / "judge", judge).path / "adapter"
            )  # Untrained, it costs what a trained one does.
            for name, (method, knobs) in ARMS.items():
                online = {} if method in ("dpo", "kto") else {"max_completion_tokens": LONGEST}
                scored = {"reward_from": str(Path(made) / "judge")} if method == "ppo" else {}
                found = profile(make_config(method, common | knobs | online | scored), rollouts=1)
                table["rows"].append(row(size, name, found, shape, where))
                say(line(table["rows"][-1]))
                if out:
                    replace(out, (json.dumps(table, indent=1) + "\n").encode())
                if where.type == "cuda":
                    torch.cuda.empty_cache()
    return table


def row(
    size: str, name: str, found: UpdateCost, shape: dict[str, Any], where: torch.device
) -> dict[str, Any]:
    """One measured profile with its estimate; `error` is the estimate over the measurement, less
    one.
    """
    count, tokens, longest = found.batch
    guess = estimate_shape(
        size,
        shape,
        found.method,
        batch_size=count // 2 if found.method == "dpo" else count,
        prompt_tokens=10,
        completion_tokens=round(tokens / count) - 10,
        group_size=8,
        full=False,
        lora_rank=RANK,
        bf16=where.type == "cuda",
        checkpointing=False,
        layout=found.config.get("model_layout", "shared"),
        micro_batches=1,
        longest=longest,
    )
    measured = found.allocated or found.peak
    kept = {key: value for key, value in as_row(found).items() if key not in ("config", "device")}
    return (
        {"size": size, "arm": name, "parameters": guess.parameters - guess.trainable}
        | kept
        | {
            "measured": measured,
            "estimated": guess.peak,
            "error": guess.peak / measured - 1,
            "estimated_memory": guess.memory,
        }
    )


def line(row: dict[str, Any]) -> str:
    """One row in words."""
    rows, tokens, _ = row["batch"]
    return (
        f"{row['size']:8} {row['arm']:12} {rows} completions, {tokens} tokens: measured"
        f" {row['measured'] / 2**20:,.1f} MiB, estimated {row['estimated'] / 2**20:,.1f} MiB"
        f" ({row['error']:+.1%}), {row['copies']:.2f} copies of the weights,"
        f" {row['seconds']['all']:.2f} s an update"
    )
