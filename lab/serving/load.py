"""What an earlier run left: its adapter on its base, ready to be measured or talked to."""

import json
from dataclasses import replace
from typing import Any

from peft import PeftModel

from lab.config.methods import RunConfig, method_of, names_code, require_code
from lab.errors import LabError
from lab.models import adapter_files
from lab.models.device import resolve_device
from lab.models.fused_weights import fuse_projection_weights
from lab.models.loading import fitting_threads, load_base
from lab.models.tokenizer import VOCABULARY_FILE, load_tokenizer, vocabulary_identity
from lab.runs.folder import RunFolder
from lab.runs.states import RunState
from lab.tasks.registry import DataTask, task_of
from lab.training.evaluation import evaluate
from lab.training.loop import METHODS
from lab.training.methods.offline import held_out_metrics, rows_of
from lab.training.state import TrainState


def load_run(folder: RunFolder, device: str = "auto") -> tuple[RunConfig, PeftModel]:
    """The config and trained policy of a run; raise `LabError` when it has no adapter or is no
    policy.
    """
    config = folder.config
    if method_of(config) == "reward_model":
        raise LabError(
            f"{folder.path} is a reward model: it scores completions and writes none. Its accuracy is in its record: python -m lab runs"
        )
    if not (folder.path / "adapter" / "adapter_config.json").is_file():
        go_on = f"python -m lab train --resume --out {folder.path}"
        remedy = {
            RunState.FINISHED: (
                f"It was removed, or the run is damaged; its checkpoint writes it again: {go_on}"
            ),
            RunState.RUNNING: f"Let it finish, or stop it: python -m lab control {folder.path} stop",
            RunState.PAUSED: f"Let it finish, or stop it: python -m lab control {folder.path} stop",
        }
        raise LabError(
            f"{folder.path} has no adapter yet: it is {folder.state}. {remedy.get(folder.state, f'Let it go on: {go_on}')}"
        )
    where = resolve_device(device)
    adapter_files.require_adapter(folder.path / "adapter")
    if (was := _tokens(folder)) is not None and was != (
        now := vocabulary_identity(load_tokenizer(config.model))
    ):
        raise LabError(
            f"The adapter of {folder.path} was trained on a model of {was.get('tokens')} tokens, but '{config.model}' now has {now['tokens']}, or other ones. Put back the model that it was trained on."
        )
    base = load_base(config.model, where, config.quantization if where.type == "cuda" else "none")
    model = adapter_files.load_adapter(base, folder.path / "adapter").to(where).eval()
    fuse_projection_weights(model)
    return config, model


def _tokens(folder: RunFolder) -> dict[str, Any] | None:
    """What identifies the tokens of the base that an adapter was trained on, where that was written
    down.
    """
    path = folder.path / "adapter" / VOCABULARY_FILE
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise adapter_files.adapter_error(path.parent, error) from error
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
    return {"run": folder.name, **held_out, **result.as_record(complete=True)}
