"""Trains the embedded base model that the lab ships, and makes its tokenizer."""

import json
import platform
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from lab.config.methods import make_config
from lab.data.batching import TokenBatch, collate, encode_examples
from lab.data.token_rows import EncodedExample, TextPair
from lab.models.device import resolve_device
from lab.models.loading import load_policy
from lab.models.sources import EMBEDDED
from lab.models.tokenizer import load_tokenizer
from lab.tasks.chain import sample_problem, scratchpad
from lab.tasks.registry import TASKS
from lab.training.evaluation import evaluate

CHAIN_VOCABULARY = ["<pad>", "<eos>", "<unk>", "<think>", "</think>", *"0123456789+-*=;"]
SCRATCHPAD_SHARE = 0.2
BATCH_SIZE = 384
PEAK_LEARNING_RATE = 3e-3


def build_tokenizer(size: int = len(CHAIN_VOCABULARY)) -> PreTrainedTokenizerFast:
    """Returns the tokenizer of chains: a token for each character and each think tag.

    Up to `size` further tokens, which no text has, stand in for a larger vocabulary.
    """
    names = CHAIN_VOCABULARY + [f"<{i}>" for i in range(len(CHAIN_VOCABULARY), size)]
    words = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(names)}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Split(Regex("<think>|</think>|[\\s\\S]"), "isolated")
    words.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def new_model() -> LlamaForCausalLM:
    """Returns the untrained base: Llama's architecture, 2 layers, width 112."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(CHAIN_VOCABULARY),
            hidden_size=112,
            intermediate_size=336,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            pad_token_id=CHAIN_VOCABULARY.index("<pad>"),
            eos_token_id=CHAIN_VOCABULARY.index("<eos>"),
            bos_token_id=None,
        )
    )


def build_base(
    out: Path = EMBEDDED,
    seed: int = 0,
    steps: int = 1500,
    device: str = "auto",
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains the embedded base from `seed` on sampled chains, a fifth of them with scratchpads, and
    writes it to `out`.

    The loss is over completion tokens only. `report` gets each line of progress. Returns, and
    writes to `out`/BUILD.json, the settings and the measured starting point.
    """
    torch_device = resolve_device(device)
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    state = random.Random(f"base/{seed}")
    model = new_model()
    model.to(torch_device)  # type: ignore[arg-type]  # transformers' wrapper hides torch's types.
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01
    )
    began = time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LEARNING_RATE * min(1.0, (step + 1) / 100) * (1 - step / steps)
        loss = 0.0
        for micro_batch, total in _micro_batches(tokenizer, state):
            loss += _backward(model, collate(micro_batch, tokenizer.pad_token_id), total)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 250 == 0 or step + 1 == steps:
            report(
                f"step {step + 1}/{steps}  loss {loss:.3f} nats per token  {time.perf_counter() - began:.0f} s"
            )
    out = Path(out)
    model.cpu().save_pretrained(out)
    tokenizer.save_pretrained(out)
    build = {
        "command": f"python -m lab build-base --seed {seed} --steps {steps}",
        "device": torch_device.type,
        "machine": platform.machine(),
        "seed": seed,
        "steps": steps,
        "seconds": round(time.perf_counter() - began),
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "parameters": sum(w.numel() for w in model.parameters()),
        "starting_point": starting_point(out),
    }
    (out / "BUILD.json").write_text(json.dumps(build, indent=2) + "\n")
    return build


def _micro_batches(
    tokenizer: PreTrainedTokenizerBase, state: random.Random
) -> list[tuple[list[EncodedExample], int]]:
    """A batch of sampled chains in two parts of different length, so that short rows carry little
    padding. Each comes with the number of completion tokens of the whole batch.
    """
    problems = [sample_problem(state, held_out=False) for _ in range(BATCH_SIZE)]
    thinking = round(BATCH_SIZE * SCRATCHPAD_SHARE)
    texts = [scratchpad(p.prompt) for p in problems[:thinking]] + [
        p.answer for p in problems[thinking:]
    ]
    pairs: list[TextPair] = [(p.prompt, text) for p, text in zip(problems, texts)]
    examples = encode_examples(tokenizer, pairs, 256, "chain")
    total = sum(len(e.ids) - e.prompt_length for e in examples)
    return [(examples[:thinking], total), (examples[thinking:], total)]


def _backward(model: LlamaForCausalLM, batch: TokenBatch, total: int) -> float:
    """Adds the gradient of the loss of a micro-batch, which is divided by `total` tokens; returns
    the loss in nats.
    """
    tokens = batch.to(model.device)
    logits = model(input_ids=tokens.ids, use_cache=False).logits[:, :-1]
    targets = tokens.ids.masked_fill(~tokens.completion_mask, -100)[:, 1:]
    loss = (
        torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
        )
        / total
    )
    loss.backward()
    return loss.item()


def starting_point(model: Path, prompts: int = 2000) -> dict[str, Any]:
    """Returns what the base in a folder does at temperature 1 on held-out prompts, before any
    preference learning: its accuracy, metrics and mean length.
    """
    device = torch.device("cpu")
    tokenizer = load_tokenizer(str(model))
    policy = load_policy(make_config("grpo", {"model": str(model)}), device)
    result = evaluate(
        policy, tokenizer, TASKS["chain"], prompts=prompts, max_tokens=64, seed=0, device=device
    )
    thinking = [c["gold"] for c in result.completions if c["completion"].startswith("<think>")]
    at_once = [c["gold"] for c in result.completions if not c["completion"].startswith("<think>")]
    return {
        "prompts": prompts,
        "accuracy": result.accuracy,
        **result.facts,
        "mean_length": result.mean_length,
        "scratchpad_accuracy": sum(thinking) / max(len(thinking), 1),
        "answer_alone_accuracy": sum(at_once) / max(len(at_once), 1),
    }
