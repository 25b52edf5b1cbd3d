"""The commands that rebuild what the lab ships: build-base, build-pairs, build-talk."""

import json
from typing import Annotated

from lab.cli.arguments import Device, OutFile, OutFolder, Run
from lab.config.input_checks import SEED_RANGE, Range, require_writable
from lab.errors import LabError
from lab.models import sources
from lab.runs import catalogue


def build_talk(run: Run, /, out: OutFolder = None, device: Device = "auto") -> None:
    """Ship a trained policy with its answers to the first held-out prompts, for the page Talk.

    Args:
        run: Name or folder of the run.
        out: Folder to write; left out, the lab's own recorded GRPO run.
        device: auto, cpu, cuda or cuda:N.
    """
    from lab.recipes.record_chat import record_chat
    from lab.serving.side_by_side import RECORDED_RUN

    folder = out or RECORDED_RUN
    require_writable("out", folder, folder=True)
    print(record_chat(catalogue.open_run(run), folder, device))


def build_base_command(
    out: OutFolder = None,
    seed: Annotated[int, SEED_RANGE] = 0,
    steps: Annotated[int, Range(int, 1, 1_000_000)] = 1500,
    device: Device = "auto",
) -> None:
    """Train the embedded base model from a seed.

    Args:
        out: Where to write it; left out, the lab's own base is replaced.
        seed: Seeds weights and data.
        steps: Optimizer updates.
        device: auto, cpu, cuda or cuda:N.
    """
    from lab.recipes import pretrain_base

    folder = out or sources.EMBEDDED
    require_writable("out", folder, folder=True)
    print(json.dumps(pretrain_base.build_base(folder, seed, steps, device), indent=2))


def build_pairs_command(
    out: OutFile = None,
    task: str = "chain",
    reward: str = "answer",
    model: str = "embedded",
    count: Annotated[int, Range(int, 1, 1_000_000)] = 4000,
    seed: Annotated[int, SEED_RANGE] = 0,
    max_tokens: Annotated[int, Range(int, 1, 8192)] = 64,
    device: Device = "auto",
    template_options: str = "",
) -> None:
    """Sample preference pairs from a base model: the chosen completion has the higher reward (is
    right), the rejected one the lower (is wrong).

    Args:
        out: JSONL file to write; left out, the lab's own pairs are replaced, and those of another
        task go to runs/pairs-TASK.jsonl.
        task: chain, sentiment, gym:NAME or prompts of your own.
        reward: Rule of the task, or MODULE:FUNCTION; answer is its ground truth.
        model: Base model to sample from.
        count: Number of pairs.
        seed: Seeds prompts and noise.
        max_tokens: Longest completion in tokens.
        device: auto, cpu, cuda or cuda:N.
        template_options: Options of the model's chat template, such as enable_thinking=false.
    """
    if out and out.suffix != ".jsonl":
        raise LabError(
            f"out is '{out}', but takes a file that ends in .jsonl; the counts go beside it, into"
            " one that ends in .json."
        )
    from lab.recipes import generate_pairs

    path = out or generate_pairs.pairs_path(task)
    require_writable("out", path, folder=False)
    print(
        json.dumps(
            generate_pairs.build_pairs(
                path, model, count, seed, device, task, reward, max_tokens, template_options
            ),
            indent=2,
        )
    )
