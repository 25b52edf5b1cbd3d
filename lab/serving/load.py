"""Loads the policy that a run has trained, and measures it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel

from lab.config.adapter_settings import FULL_RANK, MODEL_FOLDER, trained_folder
from lab.config.methods import METHODS, method_of
from lab.config.run_config import OnlineConfig, RunConfig
from lab.config.user_code import names_code, require_code
from lab.errors import LabError
from lab.models import adapter_files, starting_adapter
from lab.models.device import resolve_device
from lab.models.full_weights import keep_initial_weights
from lab.models.fused_weights import fuse_projection_weights
from lab.models.loading import fitting_threads, load_base, load_policy
from lab.models.tokenizer import VOCABULARY_FILE, load_tokenizer, vocabulary_identity
from lab.runs.folder import RunFolder
from lab.runs.fork import CHECKPOINT_FILE, fork_points
from lab.runs.import_run import require_own
from lab.runs.states import RunState
from lab.storage.checksums import require_intact
from lab.storage.policy_folder import policy_config_file
from lab.tasks.registry import task_of
from lab.tasks.user_data import DataTask
from lab.training.evaluation import evaluate
from lab.training.methods.offline import held_out_metrics, rows_of
from lab.training.state import TrainState


def load_run(
    folder: RunFolder, device: str = "auto", *, with_reference: bool = True
) -> tuple[RunConfig, PeftModel]:
    """Returns the config and the trained policy of a run; of a recording with checkpoints but without
    an adapter, the policy of its last checkpoint. `with_reference` also loads the adapter from which
    the run started, if it did, or the base of a run that trained all weights, since it is part of the
    reference. Raises `LabError` when the run has no adapter and no model, has trained a reward model, or
    its base now has other tokens.
    """
    require_own(folder)
    config = folder.config
    if method_of(config) == "reward_model":
        raise LabError(
            f"{folder.path} is a reward model: it scores completions and writes none. Its accuracy"
            " is in its record: python -m lab runs"
        )
    if policy_config_file(folder.path) is None:
        if has_recorded_weights(folder):
            return config, _load_recorded_policy(folder, config, resolve_device(device))
        resume = f"python -m lab train --resume --out {folder.path}"
        remedy = {
            RunState.FINISHED: (
                f"It was removed, or the run is damaged; its checkpoint writes it again: {resume}"
            ),
            RunState.RUNNING: (
                f"Let it finish, or stop it: python -m lab control {folder.path} stop"
            ),
            RunState.PAUSED: f"Let it finish, or stop it: python -m lab control {folder.path} stop",
        }
        raise LabError(
            f"{folder.path} has no {trained_folder(config)} yet: it is {folder.state}."
            f" {remedy.get(folder.state, f'Let it go on: {resume}')}"
        )
    torch_device = resolve_device(device)
    adapter_files.require_trained(folder.path / trained_folder(config))
    _require_same_vocabulary(folder, config)
    if config.lora_rank == FULL_RANK:
        return config, _load_fully_trained(folder, config, torch_device, with_reference)
    base = load_base(
        config.model, torch_device, config.quantization if torch_device.type == "cuda" else None
    )
    model = adapter_files.load_adapter(base, folder.path / "adapter").to(torch_device).eval()
    if config.adapter and with_reference:
        starting_adapter.add_reference(model, config)
        model.to(torch_device)
    fuse_projection_weights(model)
    return config, model


def _load_fully_trained(
    folder: RunFolder, config: RunConfig, device: torch.device, with_reference: bool
) -> PeftModel:
    """The model of a run that trained all its weights, and for its reference those of the base."""
    model = load_base(str(folder.path / MODEL_FOLDER), device)
    model = cast(Any, model).to(device).eval().requires_grad_(False)
    if with_reference:
        keep_initial_weights(model, load_base(config.model, device))
    return cast(PeftModel, model)


def has_recorded_weights(folder: RunFolder) -> bool:
    """Whether a run is a recording that holds checkpoints from which other runs can fork."""
    return folder.path.is_dir() and len(fork_points(folder.path)) > 1


def _load_recorded_policy(folder: RunFolder, config: RunConfig, device: torch.device) -> PeftModel:
    """The policy of a recording at its last checkpoint."""
    point = folder.path / f"checkpoint-{fork_points(folder.path)[-1]}"
    require_intact(point, CHECKPOINT_FILE, remedy="Install the lab again. ")
    state = torch.load(point / CHECKPOINT_FILE, weights_only=True, map_location="cpu")
    model = load_policy(config, device)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in state["trained"]["learning_rate"].items():
            weights[name].copy_(weight)
    return model.eval()


def _require_same_vocabulary(folder: RunFolder, config: RunConfig) -> None:
    """Raise `LabError` where the base has other tokens than at the time of the training."""
    before = _trained_vocabulary(folder.path / trained_folder(config))
    if before is None:
        return
    now = vocabulary_identity(load_tokenizer(config.model))
    if before != now:
        raise LabError(
            f"The {trained_folder(config)} of {folder.path} was trained on a model of {before.get('tokens')} tokens,"
            f" but '{config.model}' now has {now['tokens']}, or other ones. Put back the model that"
            " it was trained on."
        )


def _trained_vocabulary(folder: Path) -> dict[str, Any] | None:
    """The vocabulary of the base that the adapter or model in a folder was trained on
    (`vocabulary_identity`); None for one without that file.
    """
    path = folder / VOCABULARY_FILE
    try:
        identity = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise adapter_files.adapter_error(path.parent, error) from error
    return identity if isinstance(identity, dict) else {}


def evaluate_run(
    folder: RunFolder, *, prompts: int, samples: int, seed: int, device: str, reward: str = ""
) -> dict[str, Any]:
    """Returns a flat object with the gold accuracy and its 95 % interval, the task's own metrics,
    length, exact KL in nats per completion and pass@k.

    Where nothing says which completion is right, accuracy and pass@k are missing. A run on the
    user's data without a task is also measured on its held-out rows. A reward that is code of the
    user is called only if `reward` names it.
    """
    if reward:
        require_code(folder.config, reward)
    config, model = load_run(folder, device)
    if names_code(config) and not reward:
        assert isinstance(config, OnlineConfig)
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
