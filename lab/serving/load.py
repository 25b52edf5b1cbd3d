"""What an earlier run left: its adapter on its base, ready to be measured or talked to."""

import json
from dataclasses import replace
from typing import Any

from peft import PeftModel

from lab.config.methods import METHODS, method_of
from lab.config.run_config import RunConfig
from lab.config.user_code import names_code, require_code
from lab.errors import LabError
from lab.models import adapter_files
from lab.models.loading import fitting_threads, load_base, resolve_device
from lab.models.tokenizer import VOCABULARY, load_tokenizer, vocabulary
from lab.runs.folder import RunFolder
from lab.tasks.registry import DataTask, task_of
from lab.training.evaluation import evaluate
from lab.training.methods.offline import held_out_metrics, rows_of
from lab.training.state import TrainState


def load_run(folder: RunFolder, device: str = "auto") -> tuple[RunConfig, PeftModel]:
    """The config and trained policy of a run; raise `LabError` when it has no adapter or is no
    policy.
    """
    config = folder.config
    if method_of(config) == "reward_model":
        raise LabError(
            f"{folder.path} is a reward model: it scores completions and writes none. Its accuracy"
            " is in its record: python -m lab runs"
        )
    if not (folder.path / "adapter" / "adapter_config.json").is_file():
        go_on = f"python -m lab train --resume --out {folder.path}"
        remedy = {
            "finished": (
                f"It was removed, or the run is damaged; its checkpoint writes it again: {go_on}"
            ),
            "running": f"Let it finish, or stop it: python -m lab control {folder.path} stop",
            "paused": f"Let it finish, or stop it: python -m lab control {folder.path} stop",
        }
        raise LabError(
            f"{folder.path} has no adapter yet: it is {folder.state}."
            f" {remedy.get(folder.state, f'Let it go on: {go_on}')}"
        )
    where = resolve_device(device)
    adapter_files.require(folder.path / "adapter")
    if (was := _tokens(folder)) is not None and was != (
        now := vocabulary(load_tokenizer(config.model))
    ):
        raise LabError(
            f"The adapter of {folder.path} was trained on a model of {was.get('tokens')} tokens,"
            f" but '{config.model}' now has {now['tokens']}, or other ones. Put back the model that"
            " it was trained on."
        )
    base = load_base(config.model, where, config.quantization if where.type == "cuda" else None)
    return config, adapter_files.load(base, folder.path / "adapter").to(where).eval()


def _tokens(folder: RunFolder) -> dict[str, Any] | None:
    """What identifies the tokens of the base that an adapter was trained on, where that was written
    down.
    """
    path = folder.path / "adapter" / VOCABULARY
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise adapter_files.unreadable(path.parent, error) from error
    return found if isinstance(found, dict) else {}


def evaluate_run(
    folder: RunFolder, *, prompts: int, samples: int, seed: int, device: str, reward: str = ""
) -> dict[str, Any]:
    """Gold accuracy with its 95 % interval, what else the task measures, length, exact KL in nats
    per completion and pass@k, as one flat object.

    Where nothing says what is right, there is neither accuracy nor pass@k; a run on own data
    without a task is measured on its held-out rows too. A reward that is code of the user's own is
    called if `reward` names it.
    """
    if reward:
        require_code(folder.config, reward)
    config, model = load_run(folder, device)
    if names_code(config) and not reward:
        config = replace(config, reward="answer")
    run = TrainState(
        config,
        task_of(config),
        load_tokenizer(config.model, config.template_options),
        model,
        resolve_device(device),
    )
    held_out: dict[str, Any] = {}
    with fitting_threads(model):
        if isinstance(run.task, DataTask):
            method = METHODS[method_of(config)]
            held_out = held_out_metrics(run, method.batches, method.loss) | {
                "held-out rows": len(rows_of(run)[1])
            }
        result = evaluate(
            model,
            run.tokenizer,
            run.task,
            prompts=prompts,
            max_tokens=config.max_completion_tokens,
            seed=seed,
            device=run.device,
            samples=samples,
            step=config.steps,
        )
    right = (
        {}
        if result.accuracy is None
        else {"gold/accuracy": result.accuracy, "gold/accuracy_ci": list(result.accuracy_ci)}
    )
    passed = {"pass_at_k": {str(k): v for k, v in result.pass_at_k.items()}} if right else {}
    return {
        "run": folder.name,
        **held_out,
        **right,
        "gold/format": result.format,
        **result.facts,
        "completions/mean_length": result.mean_length,
        "completions/clipped_ratio": result.truncated,
        "kl": result.kl,
        **passed,
        "prompts": result.prompts,
        "samples": samples,
        "seed": seed,
    }
