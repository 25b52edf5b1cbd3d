"""What the benchmark gives both sides to do, how much arithmetic and memory traffic that is, and
how fast the device could be.
"""

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lab.config.methods import make_config
from lab.config.run_config import RunConfig
from lab.data.batching import encode, unpair
from lab.data.encoding import prompt_ids
from lab.data.examples import Pair
from lab.distributed import collectives
from lab.experiments.costs import shape_of, write_model
from lab.models.device import compute_dtype
from lab.models.tokenizer import load_tokenizer
from lab.tasks.registry import TASKS, Problem
from lab.training.methods.kto import mismatched

RANK, PAIRS, SEED = 16, 16, 0
LETTERS = "0123456789+-*;"  # One token each, in every tokenizer that the benchmark makes.
PROMPT, COMPLETION, GENERATED = (32, 64), (16, 160), (48, 128)
"""Lengths in tokens on a model of random weights: of prompts and completions in pairs, and of the
prompts and completions of sampling.
"""
CHAINS = {"grpo": (16, 8, 64), "decode": (8, 8, 64)}
"""On the shipped model: how many chains are sampled, how many completions of each, and the most
tokens that one may have.
"""


@dataclass(frozen=True)
class Work:
    """One job on one model: `pairs` to train on, or `prompts` with `group` completions each of at
    most `longest` tokens.

    `model` is what --model takes, `data` a file with the pairs; `trained` are the lengths in
    tokens, prompt and completion, of the sequences that an update trains on, `read` those that it
    passes through the model without gradient; empty where sampling decides.
    """

    name: str
    size: str
    model: str
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    pairs: list[Pair] = field(default_factory=list, repr=False)
    data: str = ""
    prompts: list[str] = field(default_factory=list, repr=False)
    group: int = 1
    longest: int = 0
    trained: list[tuple[int, int]] = field(default_factory=list, repr=False)
    read: list[tuple[int, int]] = field(default_factory=list, repr=False)

    @property
    def method(self) -> str:
        """The method that trains; empty for decoding alone."""
        return {"decode": "", "padding": "dpo", "padding, longer": "dpo"}.get(self.name, self.name)

    @property
    def tokens(self) -> int:
        """Real tokens that an update trains on, 0 where sampling decides."""
        return sum(prompt + completion for prompt, completion in self.trained)


class Prompts:
    """The chain task with fixed prompts to train on, so that both sides sample from the same ones
    at every update.
    """

    def __init__(self, prompts: list[str]) -> None:
        self._problems = [
            TASKS["chain"].problem(p) if p.endswith("=") else Problem(p, "0") for p in prompts
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(TASKS["chain"], name)

    def train_problems(self, n: int, seed: int, step: int) -> list[Problem]:
        """The first `n` of the fixed prompts, whatever the step."""
        return self._problems[:n]

    def reward(self, prompts: list[str], completions: list[str]) -> list[float]:
        """A coin's reward of each completion, as another trainer asks for it: with the rule's, a
        model of random weights would have nothing to learn.
        """
        known = {p.prompt: p for p in self._problems}
        return self.rewards["random"]([known[p] for p in prompts], completions, seed=0)


def works(names: list[str], size: str, folder: Path, where: torch.device) -> list[Work]:
    """The works of those names on a model of that size, written to `folder` with random weights
    unless it is the shipped one.
    """
    embedded = size == "embedded"
    if not embedded:
        write_model(shape_of(size), folder, where)
    tokenizer = load_tokenizer("embedded" if embedded else str(folder))
    made = []
    for name in names:
        if name in ("grpo", "decode"):
            prompts, group, longest = _sampled(name, embedded, small=_small(size))
            made.append(
                Work(
                    name,
                    size,
                    _model(size, folder),
                    tokenizer,
                    prompts=prompts,
                    group=group,
                    longest=longest,
                )
            )
        elif name == "padding":
            made += [
                _training(said, size, folder, tokenizer, pairs)
                for said, pairs in zip(("padding", "padding, longer"), padded())
            ]
        else:
            made.append(
                _training(name, size, folder, tokenizer, shipped() if embedded else drawn())
            )
    return made


def lab_config(work: Work, where: torch.device) -> RunConfig:
    """The run that does `work` in the lab: LoRA on every linear layer, one batch, a learning rate
    that changes next to nothing.
    """
    knobs: dict[str, Any] = {
        "model": work.model,
        "device": str(where),
        "lora_rank": RANK,
        "lora_alpha": 2.0 * RANK,
        "learning_rate": 1e-8,
    }
    if work.prompts:
        return make_config(
            "grpo",
            knobs
            | {
                "batch_size": len(work.prompts) * work.group,
                "group_size": work.group,
                "max_completion_tokens": work.longest,
                "reward": "random",
            },
        )
    rows = len(work.pairs) * (2 if work.method == "kto" else 1)
    return make_config(
        work.method,
        knobs
        | {
            "data": work.data,
            "task": "chain",
            "pairs": 0,
            "batch_size": rows,
            "max_length": max(p + c for p, c in work.trained),
        },
    )


def _model(size: str, folder: Path) -> str:
    return "embedded" if size == "embedded" else str(folder)


def _small(size: str) -> bool:
    """Whether the vocabulary is so small that a random model would soon draw the end token."""
    return shape_of(size)["vocab_size"] < 10_000


def _sampled(name: str, embedded: bool, small: bool) -> tuple[list[str], int, int]:
    if embedded:
        count, group, longest = CHAINS[name]
        return (
            [
                p.prompt
                for p in TASKS["chain"].train_problems(count * collectives.world_size(), SEED, 1)
            ],
            group,
            longest,
        )
    state, (prompt, longest) = random.Random(f"bench/{name}"), GENERATED
    return (
        [_text(state, prompt) for _ in range(8 * collectives.world_size())],
        8,
        longest // 8 if small else longest,
    )


def _training(
    name: str, size: str, folder: Path, tokenizer: PreTrainedTokenizerBase, pairs: list[Pair]
) -> Work:
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{name.replace(', ', '-')}.jsonl"
    data.write_text("".join(json.dumps(vars(p)) + "\n" for p in pairs), encoding="utf-8")
    judged = unpair(pairs)
    trained = _lengths(tokenizer, [(x.prompt, x.completion) for x in judged])
    crossed = (
        [(x.prompt, judged[j].completion) for x, j in zip(judged, mismatched(judged))]
        if name == "kto"
        else []
    )
    read = (
        2 * _lengths(tokenizer, crossed) if crossed else []
    )  # By the policy and by the reference.
    return Work(
        name, size, _model(size, folder), tokenizer, pairs, str(data), trained=trained, read=read
    )


def _lengths(
    tokenizer: PreTrainedTokenizerBase, texts: list[tuple[str, str]]
) -> list[tuple[int, int]]:
    return [
        (e.prompt_length, len(e.ids) - e.prompt_length)
        for e in encode(tokenizer, texts, 1 << 16, "benchmark")
    ]


def _text(state: random.Random, length: int) -> str:
    return "".join(state.choices(LETTERS, k=length))


def shipped() -> list[Pair]:
    """The first pairs that the lab ships."""
    with TASKS["chain"].pairs_path.open(encoding="utf-8") as lines:
        return [
            Pair(**json.loads(line)) for line in islice(lines, PAIRS * collectives.world_size())
        ]


def drawn() -> list[Pair]:
    """Pairs of random letters, their lengths drawn from `PROMPT` and `COMPLETION`, the end token
    counted; once for each process.
    """
    state = random.Random("bench/pairs")
    pairs = [
        Pair(
            _text(state, state.randint(*PROMPT)),
            *(_text(state, state.randint(*COMPLETION) - 1) for _ in range(2)),
        )
        for _ in range(PAIRS)
    ]
    return pairs * collectives.world_size()


def padded() -> tuple[list[Pair], list[Pair]]:
    """Twice the same number of tokens: in the second the longest completion is twice as long, and
    all others a little shorter.
    """
    even = [80] * (2 * PAIRS)
    odd = [160] + [78, 77] * PAIRS
    odd = odd[: 2 * PAIRS]
    odd[-1] += sum(even) - sum(odd)
    state = random.Random("bench/padding")
    prompts = [_text(state, 16) for _ in range(PAIRS)]
    return tuple(
        [
            Pair(p, _text(state, a - 1), _text(state, b - 1))
            for p, a, b in zip(prompts, n[::2], n[1::2])
        ]
        for n in (even, odd)
    )


def forward_flops(
    shape: dict[str, Any], lengths: list[tuple[int, int]], scored: int
) -> tuple[int, int, int]:
    """Floating point operations of one pass over sequences, in three parts: frozen matrices, LoRA's
    matrices of rank `RANK`, attention.

    `lengths` are (prompt, completion) in tokens; of `scored` positions the vocabulary is computed.
    Nothing is spent on padding, and attention looks back only: n (n + 1) / 2 pairs a sequence.
    """
    width, inner, layers = (
        shape["hidden_size"],
        shape["intermediate_size"],
        shape["num_hidden_layers"],
    )
    keys = width // shape["num_attention_heads"] * shape["num_key_value_heads"]
    matrices = [
        (width, width),
        (width, keys),
        (width, keys),
        (width, width),
        (width, inner),
        (width, inner),
        (inner, width),
    ]
    tokens = sum(p + c for p, c in lengths)
    looks = sum((p + c) * (p + c + 1) // 2 for p, c in lengths)
    frozen = (
        2 * tokens * layers * sum(a * b for a, b in matrices)
        + 2 * scored * width * shape["vocab_size"]
    )
    return (
        frozen,
        2 * tokens * layers * RANK * sum(a + b for a, b in matrices),
        4 * layers * width * looks,
    )


def training_flops(
    shape: dict[str, Any], trained: list[tuple[int, int]], read: list[tuple[int, int]]
) -> int:
    """Operations of one LoRA update: forward and backward over `trained`, forward over `read`. A
    frozen matrix has no gradient of its own to compute.
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
    """Bytes that sampling must read: all weights and the cache of the sequences still running, once
    for every token after the first.

    A prompt's cache is counted for each of its `group` completions; `generated` are the lengths of
    the completions, prompt after prompt.
    """
    width, inner, layers = (
        shape["hidden_size"],
        shape["intermediate_size"],
        shape["num_hidden_layers"],
    )
    keys = width // shape["num_attention_heads"] * shape["num_key_value_heads"]
    weights = (
        layers * (2 * width * width + 2 * width * keys + 3 * width * inner)
        + width * shape["vocab_size"]
    )
    cells = sum((n - 1) * prompts[i // group] + n * (n - 1) // 2 for i, n in enumerate(generated))
    return itemsize * ((max(generated) - 1) * weights + 2 * layers * keys * cells)


def best_seconds(
    work: Work, limits: dict[str, float], generated: list[int], where: torch.device
) -> float:
    """Seconds that one device would need for its share of `work`, with the completions `generated`
    that it drew, at the measured peak rates.

    Arithmetic counts for training and for reading prompts, bandwidth for decoding.
    """
    shape = shape_of(work.size)
    if not work.prompts:
        return (
            training_flops(shape, work.trained, work.read)
            / limits["flops"]
            / collectives.world_size()
        )
    prompts = [
        len(ids)
        for ids in prompt_ids(work.tokenizer, collectives.shard_for_rank(work.prompts, "prompts"))
    ]
    reading = sum(forward_flops(shape, [(n, 0) for n in prompts], len(prompts)))
    spoken = (
        decoding_bytes(shape, prompts, work.group, generated, compute_dtype(where).itemsize)
        / limits["bandwidth"]
    )
    sequences = [(prompts[i // work.group], n) for i, n in enumerate(generated)]
    return (
        spoken
        + (reading + (training_flops(shape, sequences, []) if work.method else 0)) / limits["flops"]
    )


def device_limits(where: torch.device) -> dict[str, float]:
    """Measured peak rates in the dtype that the lab computes in: `flops` a second of a large matrix
    product, `bandwidth` in bytes a second of a copy.
    """
    cuda = where.type == "cuda"
    n, size = (8192, 1 << 30) if cuda else (1024, 1 << 27)
    matrix = torch.randn(n, n, device=where, dtype=compute_dtype(where))
    block, copy = (torch.ones(size, dtype=torch.uint8, device=where) for _ in range(2))
    return {
        "flops": 2 * n**3 / _fastest(lambda: matrix @ matrix, where),
        "bandwidth": 2 * size / _fastest(lambda: copy.copy_(block), where),
    }


def _fastest(action: Callable[[], Any], where: torch.device, times: int = 30) -> float:
    found = []
    for _ in range(times):
        began = now(where)
        action()
        found.append(now(where) - began)
    return min(found)


def now(where: torch.device) -> float:
    """The clock, once the device has done all that it was asked for."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)
    return time.perf_counter()
