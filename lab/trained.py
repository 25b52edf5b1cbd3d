"""What an earlier run left: its adapter on its base, ready to be measured or talked to."""

import json
from dataclasses import replace
from typing import Any

from peft import PeftModel

from lab.config import RunConfig, method_of, names_code, require_code
from lab.errors import LabError
from lab.evaluate import evaluate
from lab.models import VOCABULARY, fitting_threads, load_base, load_tokenizer, resolve_device, vocabulary
from lab.runs import RunFolder
from lab.tasks import task_of


def load_run(folder: RunFolder, device: str = "auto") -> tuple[RunConfig, PeftModel]:
    """The config and trained policy of a run; raise `LabError` when it has no adapter or is no policy."""
    config = folder.config
    if method_of(config) == "reward_model":
        raise LabError(f"{folder.path} is a reward model: it scores completions and writes none. Its accuracy is in its record: python -m lab runs")
    if not (folder.path / "adapter" / "adapter_config.json").is_file():
        raise LabError(f"{folder.path} has no adapter yet: it is {folder.state}. Let it finish, or stop it: python -m lab control {folder.path} stop")
    where = resolve_device(device)
    tokens = folder.path / "adapter" / VOCABULARY
    if tokens.is_file() and (was := json.loads(tokens.read_text("utf-8"))) != (now := vocabulary(load_tokenizer(config.model))):
        raise LabError(f"The adapter of {folder.path} was trained on a model of {was['tokens']} tokens, but '{config.model}' now has {now['tokens']}, "
                       "or other ones. Put back the model that it was trained on.")
    try:
        base = load_base(config.model, where, config.quantization if where.type == "cuda" else "none")
        return config, PeftModel.from_pretrained(base, folder.path / "adapter").to(where).eval()
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        raise LabError(f"The adapter of {folder.path} does not fit '{config.model}': its matrices have other shapes. "
                       "Put back the model that it was trained on.") from error


def evaluate_run(folder: RunFolder, *, prompts: int, samples: int, seed: int, device: str, reward: str = "") -> dict[str, Any]:
    """Gold accuracy with its 95 % interval, what else the task measures, length, exact KL in nats per completion and pass@k, as one flat object.

    Where nothing says what is right, there is neither accuracy nor pass@k. A reward that is code of the user's own is called if `reward` names it.
    """
    if reward:
        require_code(folder.config, reward)
    config, model = load_run(folder, device)
    if names_code(config) and not reward:
        config = replace(config, reward="answer")
    with fitting_threads(model):
        result = evaluate(model, load_tokenizer(config.model), task_of(config), prompts=prompts, max_tokens=config.max_completion_tokens, seed=seed,
                          device=resolve_device(device), samples=samples)
    right = {} if result.accuracy is None else {"gold/accuracy": result.accuracy, "gold/accuracy_ci": list(result.accuracy_ci)}
    passed = {"pass_at_k": {str(k): v for k, v in result.pass_at_k.items()}} if right else {}
    return {"run": folder.name, **right, "gold/format": result.format, **result.facts, "completions/mean_length": result.mean_length,
            "completions/clipped_ratio": result.truncated, "kl": result.kl, **passed, "prompts": result.prompts, "samples": samples, "seed": seed}
