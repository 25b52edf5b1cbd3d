"""One arm of an experiment: a method with its knobs, trained from the base with several seeds and
measured alike.
"""

import json
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from lab.config.json_format import to_dict
from lab.config.methods import make_config
from lab.config.run_config import RunConfig
from lab.data.batching import collate, encode
from lab.errors import LabError
from lab.models.loading import fitting_threads, load_policy, resolve_device
from lab.models.tokenizer import load_tokenizer
from lab.runs.folder import RunFolder, create
from lab.storage.jsonl import replace
from lab.storage.paths import anchored
from lab.tasks.registry import task_of
from lab.training.driver import drive
from lab.training.evaluation import ROWS, Evaluation, evaluate
from lab.training.heads import ScalarHeadModel, load_trained
from lab.training.loop import prepare
from lab.training.resume import load_checkpoint
from lab.training.state import TrainState

PROMPTS, SAMPLES, EVALUATION_SEED = 512, 4, 0
Until = Callable[[TrainState], bool]
Log = Callable[[str], None]


@dataclass(frozen=True)
class Arm:
    """A method and the knobs that differ from its defaults. `reward_model` holds the knobs of the
    reward model that scores what the policy writes; None leaves that to the task's rule. `name` is
    the run's folder, followed by the seed.
    """

    name: str
    method: str
    knobs: dict[str, Any] = field(default_factory=dict)
    reward_model: dict[str, Any] | None = None


def cached(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The JSON object in `path`, made and written there the first time."""
    if not path.is_file():
        replace(path, (json.dumps(make(), indent=1) + "\n").encode())
    return json.loads(path.read_text("utf-8"))


def trained_run(folder: Path, config: RunConfig, until: Until) -> TrainState:
    """The run of `config` in `folder`, trained until `until` or its last step: from nothing, from
    its checkpoint, or not at all when it is done.
    """
    run = RunFolder(folder) if folder.exists() else create(folder, config)
    if to_dict(run.config) != to_dict(anchored(config)):
        raise LabError(
            f"{folder} was started with another config. Choose another --out, or give the arguments"
            " of the experiment that is there."
        )
    held = load_checkpoint(run)
    trained = held and prepare(config, held)
    if (
        not trained or not _done(trained, until) or run.state not in ("finished", "stopped")
    ):  # Killed in its last save, it has no adapter yet.
        trained = drive(run, until=until)
    if not _done(trained, until):
        raise LabError(
            f"{folder} was stopped after {trained.step} updates. The same command goes on from"
            " there."
        )
    return trained


def _done(run: TrainState, until: Until) -> bool:
    return run.step >= run.config.steps or until(run)


def reward_model_run(out: Path, knobs: dict[str, Any], seed: int, device: str) -> Path:
    """The folder of the reward model with these knobs and this seed, trained if it is not there
    yet; arms share it.

    The numbers among the knobs name it; words, such as the model and the task, are the same for all
    that one folder holds.
    """
    config = make_config("reward_model", {"seed": seed, "eval_every": 0, "device": device} | knobs)
    parts = [
        f"{name}{value:g}" for name, value in sorted(knobs.items()) if not isinstance(value, str)
    ]
    folder = out / "-".join(["reward_model", *parts, str(seed)])
    trained_run(folder, config, lambda run: False)
    return folder


def run_arm(
    out: Path,
    arm: Arm,
    seed: int,
    device: str,
    until: Until = lambda run: False,
    judge: Path | None = None,
    shown: int = 0,
) -> dict[str, Any]:
    """Train one arm with one seed in `out` and measure it, or read what an earlier call measured.

    `judge` is a reward model's run whose mean score of the final completions is reported as
    "proxy"; by default the arm's own. "shown" holds the first completion of each of the first
    `shown` held-out prompts.
    """

    def make() -> dict[str, Any]:
        scored = (
            {}
            if arm.reward_model is None
            else {"reward_from": str(reward_model_run(out, arm.reward_model, seed, device))}
        )
        config = make_config(
            arm.method,
            {"seed": seed, "eval_every": 0, "eval_prompts": 64, "device": device}
            | arm.knobs
            | scored,
        )
        run = trained_run(out / f"{arm.name}-{seed}", config, until)
        judging = judge or scored.get("reward_from")
        return measure(
            run, judging and load_trained(str(judging), config, run.tokenizer, run.device), shown
        )

    return cached(out / f"{arm.name}-{seed}.json", make)


def run_arms(
    out: Path, arms: Sequence[Arm], seeds: int, device: str, jobs: int, say: Log, shown: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Every arm with seeds 0 to `seeds` − 1, `jobs` at a time in processes of their own; per arm
    the measurements in the order of the seeds.

    Reward models come first, since arms share them. With more jobs than idle cores the runs slow
    each other down, but reach the same results.
    """
    models = {
        tuple(sorted(arm.reward_model.items())) for arm in arms if arm.reward_model is not None
    }
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for done in [
            pool.submit(reward_model_run, out, dict(knobs), seed, device)
            for knobs in sorted(models)
            for seed in range(seeds)
        ]:
            say(f"reward model {done.result().name}")
        waiting = {
            (arm.name, seed): pool.submit(run_arm, out, arm, seed, device, shown=shown)
            for seed in range(seeds)
            for arm in arms
        }
        for (name, seed), done in waiting.items():
            result = done.result()
            say(
                f"{name:28} seed {seed}: gold {result['gold/accuracy']:.3f}  KL {result['kl']:.2f} "
                f" {result['updates']} updates"
            )
    return {arm.name: [waiting[arm.name, seed].result() for seed in range(seeds)] for arm in arms}


def measure(
    run: TrainState, judge: ScalarHeadModel | None = None, shown: int = 0
) -> dict[str, Any]:
    """What a finished run reached on held-out prompts, and what it cost; `judge` scores the same
    completions, and the first `shown` are kept.
    """
    with fitting_threads(run.model):
        result = evaluate(
            run.model,
            run.tokenizer,
            run.task,
            prompts=PROMPTS,
            max_tokens=run.config.max_completion_tokens,
            seed=EVALUATION_SEED,
            device=run.device,
            samples=SAMPLES,
        )
        proxy = {} if judge is None else {"proxy": mean_score(judge, run, result.completions)}
    return {
        "gold/accuracy": result.accuracy,
        "gold/format": result.format,
        **result.facts,
        "completions/mean_length": result.mean_length,
        "kl": result.kl,
        **proxy,
        "updates": run.step,
        "tokens": run.tokens,
        "seconds": run.seconds,
        **said(result, shown),
    }


def said(result: Evaluation, shown: int) -> dict[str, list[dict[str, Any]]]:
    """Under "shown", the first completion of each of the first `shown` prompts with what the task
    says of it; nothing when none is asked for.
    """
    firsts = result.completions[: shown * result.samples : result.samples]
    return (
        {
            "shown": [
                {name: row[name] for name in ("prompt", "completion", "gold")} for row in firsts
            ]
        }
        if shown
        else {}
    )


@torch.no_grad()
def mean_score(
    judge: ScalarHeadModel, run: TrainState, completions: Sequence[dict[str, Any]]
) -> float:
    """The reward model's mean score of completions on their prompts."""
    texts = [(c["prompt"], c["completion"]) for c in completions]
    examples = encode(
        run.tokenizer, texts, max_length=run.config.max_completion_tokens + 64, where="completion"
    )
    total = 0.0
    for start in range(0, len(examples), ROWS):
        tokens = collate(examples[start : start + ROWS], run.tokenizer.pad_token_id).to(run.device)
        total += judge.scores(tokens).sum().item()
    return total / len(examples)


def measure_base(config: RunConfig, shown: int = 0) -> dict[str, Any]:
    """The same measurement of the policy of `config` before any training."""
    where = resolve_device(config.device)
    policy = load_policy(config, where)
    with fitting_threads(policy):
        tokenizer = load_tokenizer(config.model, config.template_options)
        result = evaluate(
            policy,
            tokenizer,
            task_of(config),
            prompts=PROMPTS,
            max_tokens=config.max_completion_tokens,
            seed=EVALUATION_SEED,
            device=where,
            samples=SAMPLES,
        )
    return {
        "gold/accuracy": result.accuracy,
        "gold/format": result.format,
        **result.facts,
        "completions/mean_length": result.mean_length,
        "kl": result.kl,
        **said(result, shown),
    }


def keep_plan(out: Path, plan: dict[str, Any]) -> None:
    """Write the plan into `out`, or raise `LabError` when `out` holds another."""
    out.mkdir(parents=True, exist_ok=True)
    plan = json.loads(json.dumps(plan))
    kept = cached(out / "plan.json", lambda: plan)
    if kept != plan:
        raise LabError(f"{out} holds another experiment: {kept}. Choose another --out.")


def command_line(experiment: str, seeds: int | None, device: str) -> str:
    """The command line of an experiment; without seeds for one that takes none."""
    return (
        f"python -m lab experiment {experiment}"
        + (f" --seeds {seeds}" if seeds else "")
        + (f" --device {device}" if device != "auto" else "")
    )


def device_name(device: str) -> str:
    """The device in words."""
    where = resolve_device(device)
    return (
        torch.cuda.get_device_name(where)
        if where.type == "cuda"
        else f"{platform.machine()} CPU with {os.cpu_count()} cores"
    )
