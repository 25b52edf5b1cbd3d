"""The measured cost of one update of every method with equally many completions, and the estimate
for comparison.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from lab.config.methods import make_config
from lab.errors import unknown
from lab.experiments.arms import device_name
from lab.experiments.protocol import Log
from lab.models.device import compute_dtype, resolve_device
from lab.models.sources import EMBEDDED
from lab.profiling.estimate import UpdateSettings, estimate_shape_memory
from lab.profiling.model_shapes import MODEL_SHAPES
from lab.profiling.profiler import UpdateCost, as_row, profile_update
from lab.recipes.pretrain_base import build_tokenizer
from lab.runs.folder import create
from lab.storage.jsonl import replace_file
from lab.training.loop import prepare
from lab.training.trained_model import save_adapter

CPU_SHAPES: dict[str, dict[str, Any]] = {
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
"""Shapes of models small enough to be profiled on a CPU in seconds."""
COST_COMPLETIONS, COST_MAX_TOKENS, COST_LORA_RANK = 32, 48, 16
COST_ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpo": ("dpo", {"batch_size": COST_COMPLETIONS // 2, "pairs": 64}),
    "kto": ("kto", {"batch_size": COST_COMPLETIONS, "pairs": 64}),
    "grpo": (
        "grpo",
        # By the task's rule a model with random weights would have no gradient.
        {"batch_size": COST_COMPLETIONS, "group_size": 8, "reward": "random"},
    ),
    "ppo.shared": ("ppo", {"batch_size": COST_COMPLETIONS, "minibatches": 1}),
    "ppo.separate": (
        "ppo",
        {"batch_size": COST_COMPLETIONS, "minibatches": 1, "model_layout": "separate"},
    ),
}
"""Every method with `COST_COMPLETIONS` completions in an update; PPO with a reward model, in both
layouts.
"""


def shape_of(size: str) -> dict[str, Any]:
    """Returns the architecture of a size; "embedded" is the shipped model. Raises `LabError`."""
    if size == "embedded":
        shipped = AutoConfig.from_pretrained(EMBEDDED)
        return {name: getattr(shipped, name) for name in CPU_SHAPES["1m"]}
    shapes = MODEL_SHAPES | CPU_SHAPES
    if size not in shapes:
        raise unknown("size", size, ["embedded", *shapes])
    return shapes[size]


def write_model(shape: dict[str, Any], folder: Path, where: torch.device) -> None:
    """Writes a model of this shape with random weights, and its tokenizer, into `folder`."""
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


def check_estimates(
    sizes: list[str], device: str = "auto", say: Log = lambda text: None, out: Path | None = None
) -> dict[str, Any]:
    """Measures every arm of `COST_ARMS` on every size and estimates its peak memory. Returns the
    table; `out` is rewritten after every row.

    On CUDA the peak is that of the allocator, on a CPU the sum that the profiler tracks.
    """
    where = resolve_device(device)
    shapes = {size: shape_of(size) for size in sizes}
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
    out_argument = "" if out is None else f" --out {out.name}"
    table: dict[str, Any] = {
        "command": f"python -m lab estimate --check {','.join(sizes)}{out_argument}",
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "completions": COST_COMPLETIONS,
        "rows": [],
    }
    for size, shape in shapes.items():
        with tempfile.TemporaryDirectory() as folder:
            if size != "embedded":
                write_model(shape, Path(folder) / "base", where)
            common = {
                "model": "embedded" if size == "embedded" else str(Path(folder) / "base"),
                "device": device,
                "lora_rank": COST_LORA_RANK,
            }
            judge = make_config("reward_model", common)
            # An untrained reward model costs as much as a trained one.
            judge_folder = create(Path(folder) / "judge", judge).path
            save_adapter(prepare(judge), judge_folder / "adapter")
            for name, (method, knobs) in COST_ARMS.items():
                online = (
                    {} if method in ("dpo", "kto") else {"max_completion_tokens": COST_MAX_TOKENS}
                )
                scored = {"reward_from": str(judge_folder)} if method == "ppo" else {}
                config = make_config(method, common | knobs | online | scored)
                cost = profile_update(config, rollouts=1)
                table["rows"].append(cost_row(size, name, cost, shape, where))
                say(cost_line(table["rows"][-1]))
                if out:
                    replace_file(out, (json.dumps(table, indent=1) + "\n").encode())
                if where.type == "cuda":
                    torch.cuda.empty_cache()
    return table


def cost_row(
    size: str, name: str, cost: UpdateCost, shape: dict[str, Any], where: torch.device
) -> dict[str, Any]:
    """Returns the row of one measured arm with its estimate; `error` is estimate / measurement − 1."""
    count, tokens, longest = cost.batch
    estimated = estimate_shape_memory(
        size,
        shape,
        cost.method,
        UpdateSettings(
            batch_size=count // 2 if cost.method == "dpo" else count,
            prompt_tokens=10,
            completion_tokens=round(tokens / count) - 10,
            group_size=8,
            full=False,
            lora_rank=COST_LORA_RANK,
            bf16=where.type == "cuda",
            checkpointing=False,
            layout=cost.config.get("model_layout", "shared"),
            micro_batches=1,
            longest_row=longest,
        ),
    )
    measured = cost.allocated or cost.peak
    measurements = {
        key: value for key, value in as_row(cost).items() if key not in ("config", "device")
    }
    return (
        {"size": size, "arm": name, "parameters": estimated.parameters - estimated.trainable}
        | measurements
        | {
            "measured": measured,
            "estimated": estimated.peak,
            "error": estimated.peak / measured - 1,
            "estimated_memory": estimated.memory,
        }
    )


def cost_line(row: dict[str, Any]) -> str:
    """Returns a row as a line of text."""
    rows, tokens, _ = row["batch"]
    return (
        f"{row['size']:8} {row['arm']:12} {rows} completions, {tokens} tokens: measured"
        f" {row['measured'] / 2**20:,.1f} MiB, estimated {row['estimated'] / 2**20:,.1f} MiB"
        f" ({row['error']:+.1%}), {row['copies']:.2f} copies of the weights,"
        f" {row['seconds']['all']:.2f} s an update"
    )
