"""Builds what the lab ships: the embedded base model with its tokenizer, and the preference pairs
sampled from it.
"""

import json
import math
import platform
import random
import time
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lab.config.methods import make_config
from lab.data.batching import collate, encode_examples
from lab.data.examples import template_columns
from lab.engine.sampler import sample
from lab.errors import LabError
from lab.models.loading import load_policy, resolve_device
from lab.models.sources import EMBEDDED
from lab.models.tokenizer import load_tokenizer
from lab.storage.paths import runs_root
from lab.tasks.chain import sample_problem, scratchpad
from lab.tasks.prompting import as_messages, render_prompts
from lab.tasks.registry import TASKS, Problem, compute_rewards, extra_metrics, rule_of, task_of
from lab.training.evaluation import evaluate

CHAIN_VOCABULARY = ["<pad>", "<eos>", "<unk>", "<think>", "</think>", *"0123456789+-*=;"]
SCRATCHPAD_SHARE = 0.2
BATCH_SIZE = 384
PEAK_LEARNING_RATE = 3e-3
MIN_PAIR_SHARE = 0.01  # Share of prompts that must give a pair, or sampling pairs would hardly end.


def build_tokenizer(size: int = len(CHAIN_VOCABULARY)) -> PreTrainedTokenizerFast:
    """One token a character, and one for each think tag; up to `size` tokens more, which no text
    has, to stand in for a larger vocabulary.
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
    """The untrained base: Llama's architecture, 2 layers, width 112."""
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
) -> dict:
    """Train the embedded base from `seed` on sampled chains, a fifth of them with scratchpads, and
    write it to `out`.

    Loss on completion tokens only. Returns, and writes to `out`/BUILD.json, the settings and the
    measured starting point.
    """
    where = resolve_device(device)
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    state = random.Random(f"base/{seed}")
    model = new_model().to(where)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01
    )
    began = time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LEARNING_RATE * min(1.0, (step + 1) / 100) * (1 - step / steps)
        problems = [sample_problem(state, held_out=False) for _ in range(BATCH_SIZE)]
        thinking = round(BATCH_SIZE * SCRATCHPAD_SHARE)
        texts = [scratchpad(p.prompt) for p in problems[:thinking]] + [
            p.answer for p in problems[thinking:]
        ]
        examples = encode_examples(
            tokenizer, [(p.prompt, text) for p, text in zip(problems, texts)], 256, "chain"
        )
        total = sum(len(e.ids) - e.prompt_length for e in examples)
        loss = 0.0
        for part in (
            examples[:thinking],
            examples[thinking:],
        ):  # Two lengths, so that short rows carry little padding.
            tokens = collate(part, tokenizer.pad_token_id).to(where)
            logits = model(input_ids=tokens.ids, use_cache=False).logits[:, :-1]
            targets = tokens.ids.masked_fill(~tokens.completion_mask, -100)[:, 1:]
            piece = (
                torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
                )
                / total
            )
            piece.backward()
            loss += piece.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 250 == 0 or step + 1 == steps:
            report(
                f"step {step + 1}/{steps}  loss {loss:.3f} nats per token "
                f" {time.perf_counter() - began:.0f} s"
            )
    out = Path(out)
    model.cpu().save_pretrained(out)
    tokenizer.save_pretrained(out)
    build = {
        "command": f"python -m lab build-base --seed {seed} --steps {steps}",
        "device": where.type,
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


def starting_point(model: Path, prompts: int = 2000) -> dict:
    """What the base does at temperature 1 on held-out prompts, before any preference learning."""
    device = torch.device("cpu")
    tokenizer = load_tokenizer(str(model))
    policy = load_policy(make_config("grpo", {"model": str(model)}), device)
    seen = evaluate(
        policy, tokenizer, TASKS["chain"], prompts=prompts, max_tokens=64, seed=0, device=device
    )
    thinking = [c["gold"] for c in seen.completions if c["completion"].startswith("<think>")]
    at_once = [c["gold"] for c in seen.completions if not c["completion"].startswith("<think>")]
    return {
        "prompts": prompts,
        "accuracy": seen.accuracy,
        **seen.facts,
        "mean_length": seen.mean_length,
        "scratchpad_accuracy": sum(thinking) / max(len(thinking), 1),
        "answer_alone_accuracy": sum(at_once) / max(len(at_once), 1),
    }


def pairs_path(task: str) -> Path:
    """Where a task's pairs go unless something else is said: to what the lab ships, or for a task
    without pairs into the runs folder.
    """
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in task)
    return (
        TASKS[task].pairs_path if task in TASKS else None
    ) or runs_root() / f"pairs-{name}.jsonl"


def build_pairs(
    out: Path = TASKS["chain"].pairs_path,
    model: str = "embedded",
    count: int = 4000,
    seed: int = 0,
    device: str = "auto",
    task: str = "chain",
    reward: str = "answer",
    max_tokens: int = 64,
    template_options: str = "",
) -> dict:
    """Sample preference pairs from `model` and write them to `out` in TRL's format, one a line.

    Eight completions of each training prompt; of those that are not empty the first with the
    highest `reward` is chosen, the first with the lowest rejected; "answer" is the task's ground
    truth. Prompts on which all are worth the same give no pair; none is used again before every
    other has been. Raises `LabError` when fewer than one prompt in a hundred gives a pair. Returns,
    and writes beside `out` as .json, the command and the counts: pairs, prompts tried, and of
    chosen and rejected the mean reward and what the task alone measures.
    """
    where, config = (
        resolve_device(device),
        make_config(
            "grpo",
            {"model": model, "task": task, "reward": reward, "template_options": template_options},
        ),
    )
    source = task_of(config)
    gold = rule_of(source, reward)
    tokenizer, policy = load_tokenizer(model, template_options), load_policy(config, where)
    found: list[tuple[Problem, str, str]] = []
    tokens: dict[tuple[str, str], list[int]] = {}
    seen, tried, prompts = set(), 0, 0
    while len(found) < count:
        problems = {p.prompt: p for p in source.train_problems(256, seed, -1 - tried)}
        if seen.issuperset(problems):
            seen.clear()
        problems = [p for p in problems.values() if p.prompt not in seen]
        seen |= {p.prompt for p in problems}
        prompts += len(problems)
        drawn = sample(
            policy,
            tokenizer,
            render_prompts(tokenizer, problems),
            8,
            max_tokens=max_tokens,
            temperature=1.0,
            seed=seed,
            step=tried,
            device=where,
            stream="pairs",
        )
        completion_ids = drawn.completion_ids
        for i, problem in enumerate(problems):
            rows = [row for row in range(8 * i, 8 * i + 8) if drawn.texts[row]]
            texts, ids = [drawn.texts[row] for row in rows], [completion_ids[row] for row in rows]
            tokens |= {(problem.prompt, text): own for text, own in zip(texts, ids)}
            worths = (
                compute_rewards(gold, [problem] * len(texts), texts, seed=seed, ids=ids)
                if texts
                else []
            )
            known = [(worth, t) for worth, t in zip(worths, texts) if not math.isnan(worth)]
            best, worst = (pick(known, key=itemgetter(0), default=(0.0, "")) for pick in (max, min))
            if best[0] > worst[0]:
                found.append((problem, best[1], worst[1]))
        tried += 1
        if len(found) < MIN_PAIR_SHARE * prompts:
            raise LabError(
                f"Of {prompts} prompts only {len(found)} have both a better and a worse completion"
                f" from '{model}'. Pairs need a model that does better at some times than at"
                " others."
            )
    found = found[:count]
    sides = [
        (as_messages(tokenizer, problem, chosen), as_messages(tokenizer, problem, rejected)[1])
        for problem, chosen, rejected in found
    ]
    rows = [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected} | template_columns(prompt)
        for (prompt, chosen), rejected in sides
    ]
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    owners = [problem for problem, *_ in found]
    build = {
        "command": (
            f"python -m lab build-pairs --model {model} --count {count} --seed {seed}"
            + (f" --task {task}" if task != "chain" else "")
            + (f" --reward {reward}" if reward != "answer" else "")
            + (f" --max-tokens {max_tokens}" if max_tokens != 64 else "")
            + (f" --template-options {template_options}" if template_options else "")
        ),
        "device": where.type,
        "seed": seed,
        "torch": torch.__version__.split("+")[0],
        "pairs": len(rows),
        "prompts": prompts,
    }
    for side, texts in (
        ("chosen", [chosen for _, chosen, _ in found]),
        ("rejected", [rejected for *_, rejected in found]),
    ):
        ids = [tokens[problem.prompt, text] for problem, text in zip(owners, texts)]
        build |= {
            f"reward_{side}": sum(compute_rewards(gold, owners, texts, seed=seed, ids=ids)) / count
        }
        build |= {
            f"{name}_{side}": value
            for name, value in extra_metrics(source, owners, texts, ids).items()
        }
    out.with_suffix(".json").write_text(json.dumps(build, indent=2) + "\n")
    return build
