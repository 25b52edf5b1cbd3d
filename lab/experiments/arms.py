"""The arms of an experiment: methods with their knobs, each trained from the base with several
seeds and measured on the same held-out prompts.
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
from lab.data.batching import collate, encode_examples
from lab.data.token_rows import TextPair
from lab.errors import LabError
from lab.experiments.protocol import Log
from lab.models.device import resolve_device
from lab.models.loading import fitting_threads, load_policy
from lab.models.tokenizer import load_tokenizer
from lab.runs.folder import RunFolder, create
from lab.runs.states import RunState
from lab.storage.jsonl import replace_file
from lab.storage.paths import with_absolute_paths
from lab.tasks.registry import task_of
from lab.training.driver import drive
from lab.training.evaluation import EVAL_BATCH_ROWS, Evaluation, evaluate
from lab.training.heads import ScalarHeadModel, load_trained_reward_model
from lab.training.loop import prepare
from lab.training.resume import load_checkpoint
from lab.training.state import TrainState

EVALUATION_PROMPTS, EVALUATION_SAMPLES, EVALUATION_SEED = 512, 4, 0
"""Every run is measured on so many held-out prompts, with so many completions each, by this seed."""
Until = Callable[[TrainState], bool]
"""Whether a run has used up its budget and stops before its last step."""


@dataclass(frozen=True)
class Arm:
    """A method and the knobs that differ from its defaults.

    `reward_model` holds the knobs of the reward model that scores the policy's completions; None
    means that the task's rule scores them. A run is written to the folder `name`-SEED.
    """

    name: str
    method: str
    knobs: dict[str, Any] = field(default_factory=dict)
    reward_model: dict[str, Any] | None = None


def cached_json(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns the JSON object in the file `path`; without the file, makes and writes it first."""
    if not path.is_file():
        replace_file(path, (json.dumps(make(), indent=1) + "\n").encode())
    return json.loads(path.read_text("utf-8"))


def trained_run(folder: Path, config: RunConfig, until: Until) -> TrainState:
    """Returns the run of `config` in `folder` after training it until `until` or its last step.

    Training starts anew, continues from the checkpoint, or is skipped when the run is complete.
    Raises `LabError` when the folder has another config, or training was stopped early.
    """
    run = RunFolder(folder) if folder.exists() else create(folder, config)
    if to_dict(run.config) != to_dict(with_absolute_paths(config)):
        raise LabError(
            f"{folder} was started with another config. Choose another --out, or give the arguments"
            " of the experiment that is there."
        )
    checkpoint = load_checkpoint(run)
    trained = prepare(config, checkpoint) if checkpoint else None
    # A run that was killed in its last save is complete but has no adapter yet.
    complete = (
        trained and _done(trained, until) and run.state in (RunState.FINISHED, RunState.STOPPED)
    )
    if not trained or not complete:
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
    """Returns the folder of the reward model with these knobs and this seed, and trains it first if
    necessary. Arms share reward models.

    The folder's name has the numbers among the knobs. It leaves out texts, such as the model and
    the task, because they are equal for all runs in `out`.
    """
    config = make_config("reward_model", {"seed": seed, "eval_every": 0, "device": device} | knobs)
    suffixes = [
        f"{name}{value:g}" for name, value in sorted(knobs.items()) if not isinstance(value, str)
    ]
    folder = out / "-".join(["reward_model", *suffixes, str(seed)])
    trained_run(folder, config, lambda run: False)
    return folder


def reward_source(out: Path, arm: Arm, seed: int, device: str) -> dict[str, str]:
    """Returns the knob that makes the arm's reward model score; empty for an arm without one."""
    if arm.reward_model is None:
        return {}
    return {"reward_from": str(reward_model_run(out, arm.reward_model, seed, device))}


def run_arm(
    out: Path,
    arm: Arm,
    seed: int,
    device: str,
    until: Until = lambda run: False,
    judge: Path | None = None,
    shown: int = 0,
) -> dict[str, Any]:
    """Trains one arm with one seed in `out` and measures it, or reads an earlier measurement.

    `judge` is the folder of a reward model, by default the arm's own; its mean score of the final
    completions becomes "proxy". "shown" holds the first completion of each of the first `shown`
    held-out prompts.
    """

    def make() -> dict[str, Any]:
        source = reward_source(out, arm, seed, device)
        config = make_config(
            arm.method,
            {"seed": seed, "eval_every": 0, "eval_prompts": 64, "device": device}
            | arm.knobs
            | source,
        )
        run = trained_run(out / f"{arm.name}-{seed}", config, until)
        folder = str(judge or source.get("reward_from", ""))
        model = (
            load_trained_reward_model(folder, config, run.tokenizer, run.device) if folder else None
        )
        return measure_run(run, model, shown)

    return cached_json(out / f"{arm.name}-{seed}.json", make)


def run_arms(
    out: Path, arms: Sequence[Arm], seeds: int, device: str, jobs: int, say: Log, shown: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Runs every arm with the seeds 0 to `seeds` − 1, `jobs` at a time, each in its own process.
    Returns for each arm its measurements in the order of the seeds.

    Reward models are trained first, because arms share them. With more jobs than idle cores the
    runs slow each other down, but their results do not change.
    """
    models = {
        tuple(sorted(arm.reward_model.items())) for arm in arms if arm.reward_model is not None
    }
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for folder in [
            pool.submit(reward_model_run, out, dict(knobs), seed, device)
            for knobs in sorted(models)
            for seed in range(seeds)
        ]:
            say(f"reward model {folder.result().name}")
        futures = {
            (arm.name, seed): pool.submit(run_arm, out, arm, seed, device, shown=shown)
            for seed in range(seeds)
            for arm in arms
        }
        for (name, seed), future in futures.items():
            result = future.result()
            say(
                f"{name:28} seed {seed}: gold {result['gold/accuracy']:.3f}  KL {result['kl']:.2f} "
                f" {result['updates']} updates"
            )
    return {arm.name: [futures[arm.name, seed].result() for seed in range(seeds)] for arm in arms}


def measure_run(
    run: TrainState, judge: ScalarHeadModel | None = None, shown: int = 0
) -> dict[str, Any]:
    """Evaluates a finished run on held-out prompts and returns the measurements with its updates,
    tokens and seconds.

    `judge` scores the same completions for "proxy"; `first_completions` describes "shown".
    """
    with fitting_threads(run.model):
        result = evaluate(
            run.model,
            run.tokenizer,
            run.task,
            prompts=EVALUATION_PROMPTS,
            max_tokens=run.config.max_completion_tokens,
            seed=EVALUATION_SEED,
            device=run.device,
            samples=EVALUATION_SAMPLES,
        )
        proxy = {} if judge is None else {"proxy": mean_score(judge, run, result.completions)}
    return {
        **result.as_record(),
        **proxy,
        "updates": run.step,
        "tokens": run.tokens,
        "seconds": run.timer.training_seconds,
        **first_completions(result, shown),
    }


def first_completions(result: Evaluation, shown: int) -> dict[str, list[dict[str, Any]]]:
    """Returns under "shown" the first completion of each of the first `shown` prompts, with its
    gold score; an empty dict when `shown` is 0.
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
    """Returns the reward model's mean score of completions on their prompts."""
    texts: list[TextPair] = [(c["prompt"], c["completion"]) for c in completions]
    examples = encode_examples(
        run.tokenizer, texts, max_length=run.config.max_completion_tokens + 64, where="completion"
    )
    total = 0.0
    for start in range(0, len(examples), EVAL_BATCH_ROWS):
        tokens = collate(examples[start : start + EVAL_BATCH_ROWS], run.tokenizer.pad_token_id).to(
            run.device
        )
        total += judge.scores(tokens).sum().item()
    return total / len(examples)


def measure_base(config: RunConfig, shown: int = 0) -> dict[str, Any]:
    """Evaluates the policy of `config` before training, as `measure_run` does after it."""
    where = resolve_device(config.device)
    policy = load_policy(config, where)
    with fitting_threads(policy):
        tokenizer = load_tokenizer(config.model, config.template_options)
        result = evaluate(
            policy,
            tokenizer,
            task_of(config),
            prompts=EVALUATION_PROMPTS,
            max_tokens=config.max_completion_tokens,
            seed=EVALUATION_SEED,
            device=where,
            samples=EVALUATION_SAMPLES,
        )
    return {**result.as_record(), **first_completions(result, shown)}


def record_plan(out: Path, plan: dict[str, Any]) -> None:
    """Writes the plan into `out`. Raises `LabError` when `out` holds another plan."""
    out.mkdir(parents=True, exist_ok=True)
    plan = json.loads(json.dumps(plan))
    recorded = cached_json(out / "plan.json", lambda: plan)
    if recorded != plan:
        raise LabError(f"{out} holds another experiment: {recorded}. Choose another --out.")


def command_line(experiment: str, seeds: int | None, device: str) -> str:
    """Returns the command line of an experiment; `seeds` is None for one that takes one seed."""
    return (
        f"python -m lab experiment {experiment}"
        + (f" --seeds {seeds}" if seeds else "")
        + (f" --device {device}" if device != "auto" else "")
    )


def device_name(device: str) -> str:
    """Returns the name of the GPU, or the kind and number of the CPU's cores."""
    where = resolve_device(device)
    return (
        torch.cuda.get_device_name(where)
        if where.type == "cuda"
        else f"{platform.machine()} CPU with {os.cpu_count()} cores"
    )
