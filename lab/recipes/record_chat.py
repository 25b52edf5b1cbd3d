"""Records the answers of a trained policy, which the lab ships for the page Talk."""

import json
from pathlib import Path
from shutil import copyfile

import torch
import transformers

from lab.models.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lab.runs.folder import RunFolder
from lab.serving.side_by_side import PolicyWithReference
from lab.storage.jsonl import replace_file

RECORDED_PROMPTS, RECORDED_SEEDS, RECORDED_DRAWS = 12, 3, 32


def record_chat(folder: RunFolder, out: Path, device: str = "auto") -> Path:
    """Copies a run's adapter to `out`/adapter, writes the answers of the policy and its reference to
    the first held-out prompts to `out`/talk.json, and returns that file.
    """
    policy = PolicyWithReference.of(folder, device)
    answers = [
        policy.answer(
            problem.prompt,
            seed=seed,
            temperature=temperature,
            draws=RECORDED_DRAWS if temperature and not seed else 0,
        )
        for problem in policy.task.held_out(RECORDED_PROMPTS)
        for temperature, seed in ((0, 0), *((1.0, s) for s in range(RECORDED_SEEDS)))
    ]
    adapter = folder.path / "adapter"
    (out / "adapter").mkdir(parents=True, exist_ok=True)
    adapter_config = json.loads((adapter / ADAPTER_CONFIG).read_text("utf-8")) | {
        "base_model_name_or_path": folder.config.model
    }
    replace_file(
        out / "adapter" / ADAPTER_CONFIG,
        (json.dumps(adapter_config, indent=1, sort_keys=True) + "\n").encode(),
    )
    copyfile(adapter / ADAPTER_WEIGHTS, out / "adapter" / ADAPTER_WEIGHTS)
    table = {
        "command": f"python -m lab build-talk {folder.path}",
        "device": policy.model.device.type,
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
        "answers": answers,
    }
    replace_file(out / "talk.json", (json.dumps(table, ensure_ascii=False) + "\n").encode())
    return out / "talk.json"
