"""How much arithmetic and memory traffic a work needs, and how fast the device could do it."""

import time
from collections.abc import Callable
from typing import Any

import torch

from lab.benchmarks.workload import BENCH_LORA_RANK, Work
from lab.data.encoding import prompt_ids
from lab.data.examples import Text
from lab.distributed import collectives
from lab.engine.cpu_products import product
from lab.experiments.costs import shape_of
from lab.models.device import compute_dtype


def forward_flops(
    shape: dict[str, Any], lengths: list[tuple[int, int]], scored: int
) -> tuple[int, int, int]:
    """Counts the floating point operations of one forward pass in three parts: frozen matrices,
    LoRA's matrices of rank `BENCH_LORA_RANK`, attention.

    `lengths` are (prompt, completion) in tokens. The vocabulary's logits are computed at `scored`
    positions. Padding costs nothing, and attention is causal: n (n + 1) / 2 pairs for n tokens.
    """
    width, inner, layers = (
        shape["hidden_size"],
        shape["intermediate_size"],
        shape["num_hidden_layers"],
    )
    kv_width = width // shape["num_attention_heads"] * shape["num_key_value_heads"]
    matrices = [
        (width, width),
        (width, kv_width),
        (width, kv_width),
        (width, width),
        (width, inner),
        (width, inner),
        (inner, width),
    ]
    tokens = sum(p + c for p, c in lengths)
    attended_pairs = sum((p + c) * (p + c + 1) // 2 for p, c in lengths)
    frozen = (
        2 * tokens * layers * sum(a * b for a, b in matrices)
        + 2 * scored * width * shape["vocab_size"]
    )
    return (
        frozen,
        2 * tokens * layers * BENCH_LORA_RANK * sum(a + b for a, b in matrices),
        4 * layers * width * attended_pairs,
    )


def training_flops(
    shape: dict[str, Any], trained: list[tuple[int, int]], read: list[tuple[int, int]]
) -> int:
    """Counts the operations of one LoRA update: forward and backward over `trained`, forward alone
    over `read`. Backward computes no weight gradient of a frozen matrix.
    """
    frozen, lora, attention = forward_flops(shape, trained, sum(c for _, c in trained))
    return (
        2 * frozen
        + 3 * lora
        + 3 * attention
        + sum(forward_flops(shape, read, sum(c for _, c in read)))
    )


def decoding_bytes(
    shape: dict[str, Any], prompts: list[int], group: int, generated: list[int], itemsize: int
) -> int:
    """Counts the bytes that sampling must read: all weights, and the key-value cache of the sequences
    that still run, once for every token after the first.

    The cache of a prompt counts for each of its `group` completions. `generated` are the lengths of
    the completions, in the order of the prompts.
    """
    width, inner, layers = (
        shape["hidden_size"],
        shape["intermediate_size"],
        shape["num_hidden_layers"],
    )
    kv_width = width // shape["num_attention_heads"] * shape["num_key_value_heads"]
    weights = (
        layers * (2 * width * width + 2 * width * kv_width + 3 * width * inner)
        + width * shape["vocab_size"]
    )
    cells = sum((n - 1) * prompts[i // group] + n * (n - 1) // 2 for i, n in enumerate(generated))
    return itemsize * ((max(generated) - 1) * weights + 2 * layers * kv_width * cells)


def best_seconds(
    work: Work, limits: dict[str, float], generated: list[int], where: torch.device
) -> float:
    """Returns the seconds that one device would need for its share of `work` at its peak rates.

    `limits` comes from `device_limits`; `generated` are the lengths of the sampled completions.
    Arithmetic limits training and prefill, bandwidth limits decoding.
    """
    shape = shape_of(work.size)
    if not work.prompts:
        return (
            training_flops(shape, work.trained, work.read)
            / limits["flops"]
            / collectives.world_size()
        )
    texts: list[Text] = [*collectives.shard_for_rank(work.prompts, "prompts")]
    prompts = [len(ids) for ids in prompt_ids(work.tokenizer, texts)]
    prefill = sum(forward_flops(shape, [(n, 0) for n in prompts], len(prompts)))
    decoding = (
        decoding_bytes(shape, prompts, work.group, generated, compute_dtype(where).itemsize)
        / limits["bandwidth"]
    )
    sequences = [(prompts[i // work.group], n) for i, n in enumerate(generated)]
    return (
        decoding
        + (prefill + (training_flops(shape, sequences, []) if work.method else 0)) / limits["flops"]
    )


def device_limits(where: torch.device) -> dict[str, float]:
    """Measures the device's peak rates in the lab's compute dtype: "flops", operations per second of
    a large matrix product by the faster library, and "bandwidth", bytes per second of a copy.
    """
    cuda = where.type == "cuda"
    n, size = (8192, 1 << 30) if cuda else (1024, 1 << 27)
    matrix = torch.randn(n, n, device=where, dtype=compute_dtype(where))
    block, copy = (torch.ones(size, dtype=torch.uint8, device=where) for _ in range(2))
    products = (lambda: matrix @ matrix, lambda: product(matrix, matrix))
    return {
        "flops": 2 * n**3 / min(_fastest(action, where) for action in products),
        "bandwidth": 2 * size / _fastest(lambda: copy.copy_(block), where),
    }


def _fastest(action: Callable[[], Any], where: torch.device, times: int = 30) -> float:
    seconds = []
    for _ in range(times):
        began = synchronized_seconds(where)
        action()
        seconds.append(synchronized_seconds(where) - began)
    return min(seconds)


def synchronized_seconds(where: torch.device) -> float:
    """Reads the clock in seconds after the device has finished all queued work."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)
    return time.perf_counter()
