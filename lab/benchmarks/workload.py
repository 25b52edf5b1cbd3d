"""The works of the benchmark: the model, texts and lengths that every side gets."""

import json
import random
import shutil
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lab.benchmarks.amounts import USUAL_AMOUNTS, Amounts
from lab.config.methods import make_config
from lab.config.run_config import RunConfig
from lab.data.batching import encode_examples
from lab.data.examples import Pair
from lab.data.resampling import unpair
from lab.data.token_rows import TextPair
from lab.distributed import collectives
from lab.experiments.costs import shape_of, write_model
from lab.models.tokenizer import load_tokenizer
from lab.tasks.base import Problem
from lab.tasks.registry import TASKS
from lab.training.methods.kto import mismatched

BENCH_LORA_RANK, BENCH_PAIRS, BENCH_SEED = 16, 16, 0
LETTERS = "0123456789+-*;"  # Each is one token in every tokenizer that the benchmark makes.
CHAIN_SAMPLING = {"grpo": (16, 8, 64), "decode": (8, 8, 64)}
"""For each work that samples on the shipped model: prompts, completions per prompt, and the most
tokens of a completion.
"""


@dataclass(frozen=True)
class Work:
    """One job on one model: `pairs` to train on, or `prompts` with `group` completions each, of at
    most `longest` tokens.

    `model` is a value for --model, `data` the path of a file with the pairs. `trained` holds the
    lengths (prompt, completion) in tokens of the sequences that an update trains on, `read` those
    of the sequences that it passes through the model without gradient. Both are empty for a work
    that samples, whose lengths are not known before.
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
        """The method that trains; empty for sampling alone."""
        return {"decode": "", "padding": "dpo", "padding, longer": "dpo"}.get(self.name, self.name)

    @property
    def tokens(self) -> int:
        """Tokens without padding that an update trains on; 0 for a work that samples."""
        return sum(prompt + completion for prompt, completion in self.trained)


class Prompts:
    """The chain task with fixed training prompts, so that all sides sample from equal prompts at
    every update.
    """

    def __init__(self, prompts: list[str]) -> None:
        self._problems = [
            TASKS["chain"].problem(p) if p.endswith("=") else Problem(p, "0") for p in prompts
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(TASKS["chain"], name)

    def train_problems(self, n: int, seed: int, step: int) -> list[Problem]:
        """Returns the first `n` of the fixed prompts at every step."""
        return self._problems[:n]

    def reward(self, prompts: list[str], completions: list[str]) -> list[float]:
        """Returns a random reward for each completion, with the arguments that TRL passes. By the
        task's rule all completions of a model with random weights would get equal rewards.
        """
        problem_of = {p.prompt: p for p in self._problems}
        return self.rewards["random"]([problem_of[p] for p in prompts], completions, seed=0)


def make_works(
    names: list[str], size: str, folder: Path, where: torch.device, amounts: Amounts = USUAL_AMOUNTS
) -> list[Work]:
    """Makes the works of these names on a model of this size. Unless `size` is "embedded", the
    shipped model with amounts of its own, `folder` gets a model with random weights; one that is
    there already stays.
    """
    embedded = size == "embedded"
    if not embedded and not (folder / "config.json").is_file():
        _write_whole_model(size, folder, where)
    tokenizer = load_tokenizer("embedded" if embedded else str(folder))
    works: list[Work] = []
    for name in names:
        if name in ("grpo", "decode"):
            prompts, group, longest = _sampled(name, embedded, _small(size), amounts)
            works.append(
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
            works += [
                _training(title, size, folder, tokenizer, pairs)
                for title, pairs in zip(("padding", "padding, longer"), padding_pairs())
            ]
        else:
            works.append(
                _training(
                    name,
                    size,
                    folder,
                    tokenizer,
                    shipped_pairs() if embedded else random_pairs(amounts),
                )
            )
    return works


def _write_whole_model(size: str, folder: Path, where: torch.device) -> None:
    """Writes the model elsewhere first, so that `folder` never holds a part of one."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    write_model(shape_of(size), part, where)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def lab_config(work: Work, where: torch.device, checkpointing: bool = False) -> RunConfig:
    """Returns the config of the run that does `work` in the lab: LoRA on every linear layer, all
    data in one batch, and a learning rate too small to change the model.
    """
    knobs: dict[str, Any] = {
        "model": work.model,
        "device": str(where),
        "lora_rank": BENCH_LORA_RANK,
        "lora_alpha": 2.0 * BENCH_LORA_RANK,
        "learning_rate": 1e-8,
        "gradient_checkpointing": checkpointing,
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
    """Whether the vocabulary is so small that a model with random weights soon samples the end token."""
    return shape_of(size)["vocab_size"] < 10_000


def _sampled(
    name: str, embedded: bool, small: bool, amounts: Amounts
) -> tuple[list[str], int, int]:
    if embedded:
        count, group, longest = CHAIN_SAMPLING[name]
        return (
            [
                p.prompt
                for p in TASKS["chain"].train_problems(
                    count * collectives.world_size(), BENCH_SEED, 1
                )
            ],
            group,
            longest,
        )
    state = random.Random(f"bench/{name}")
    count = amounts.prompts * collectives.world_size()
    return (
        [_text(state, amounts.prompt) for _ in range(count)],
        amounts.group,
        amounts.longest // 8 if small else amounts.longest,
    )


def _training(
    name: str, size: str, folder: Path, tokenizer: PreTrainedTokenizerBase, pairs: list[Pair]
) -> Work:
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{name.replace(', ', '-')}.jsonl"
    data.write_text("".join(json.dumps(vars(p)) + "\n" for p in pairs), encoding="utf-8")
    unpaired = unpair(pairs)
    trained = _lengths(tokenizer, [(x.prompt, x.completion) for x in unpaired])
    read: list[tuple[int, int]] = []
    if name == "kto":
        mismatches = zip(unpaired, mismatched(unpaired))
        texts: list[TextPair] = [(x.prompt, unpaired[j].completion) for x, j in mismatches]
        read = 2 * _lengths(tokenizer, texts)  # The policy and the reference read each text.
    return Work(
        name, size, _model(size, folder), tokenizer, pairs, str(data), trained=trained, read=read
    )


def _lengths(tokenizer: PreTrainedTokenizerBase, texts: list[TextPair]) -> list[tuple[int, int]]:
    return [
        (e.prompt_length, len(e.ids) - e.prompt_length)
        for e in encode_examples(tokenizer, texts, 1 << 16, "benchmark")
    ]


def _text(state: random.Random, length: int) -> str:
    return "".join(state.choices(LETTERS, k=length))


def shipped_pairs() -> list[Pair]:
    """Returns the first pairs of the data that the lab ships."""
    path = TASKS["chain"].pairs_path
    assert path is not None
    with path.open(encoding="utf-8") as lines:
        return [
            Pair(**json.loads(line))
            for line in islice(lines, BENCH_PAIRS * collectives.world_size())
        ]


def random_pairs(amounts: Amounts) -> list[Pair]:
    """Returns pairs of random letters, as many for each process. Their lengths are those of
    `amounts`, the end token included.
    """
    state = random.Random("bench/pairs")
    pairs = [
        Pair(
            _text(state, state.randint(*amounts.pair_prompt)),
            *(_text(state, state.randint(*amounts.pair_completion) - 1) for _ in range(2)),
        )
        for _ in range(BENCH_PAIRS)
    ]
    return pairs * collectives.world_size()


def padding_pairs() -> tuple[list[Pair], list[Pair]]:
    """Returns two lists of pairs with equally many tokens. In the first all completions are equally
    long; in the second one completion is twice as long and the others are a little shorter.
    """
    even = [80] * (2 * BENCH_PAIRS)
    odd = [160] + [78, 77] * BENCH_PAIRS
    odd = odd[: 2 * BENCH_PAIRS]
    odd[-1] += sum(even) - sum(odd)
    state = random.Random("bench/padding")
    prompts = [_text(state, 16) for _ in range(BENCH_PAIRS)]

    def pairs(lengths: list[int]) -> list[Pair]:
        return [
            Pair(prompt, _text(state, chosen - 1), _text(state, rejected - 1))
            for prompt, chosen, rejected in zip(prompts, lengths[::2], lengths[1::2])
        ]

    return pairs(even), pairs(odd)
