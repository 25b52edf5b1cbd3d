"""TODO: one line."""

import json
from pathlib import Path
from shutil import copyfile

import torch
import transformers

from lab.runs.folder import RunFolder
from lab.serving.side_by_side import PolicyWithReference
from lab.storage.jsonl import replace

RECORDED_PROMPTS, RECORDED_SEEDS, RECORDED_DRAWS = 12, 3, 32


def record_chat(folder: RunFolder, out: Path, device: str = "auto") -> Path:
    """Ship a run's policy: copy its adapter to `out`/adapter, and write `out`/talk.json, its
    answers to the first held-out prompts.
    """
    talker = PolicyWithReference.of(folder, device)
    answers = [
        talker.answer(
            problem.prompt,
            seed=seed,
            temperature=temperature,
            draws=RECORDED_DRAWS if temperature and not seed else 0,
        )
        for problem in talker.task.held_out(RECORDED_PROMPTS)
        for temperature, seed in ((0, 0), *((1.0, s) for s in range(RECORDED_SEEDS)))
    ]
    (out / "adapter").mkdir(parents=True, exist_ok=True)
    shape = json.loads((folder.path / "adapter" / "adapter_config.json").read_text("utf-8")) | {
        "base_model_name_or_path": folder.config.model
    }
    replace(
        out / "adapter" / "adapter_config.json",
        (json.dumps(shape, indent=1, sort_keys=True) + "\n").encode(),
    )
    copyfile(
        folder.path / "adapter" / "adapter_model.safetensors",
        out / "adapter" / "adapter_model.safetensors",
    )
    table = {
        "command": f"python -m lab build-talk {folder.path}",
        "device": talker.model.device.type,
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
        "answers": answers,
    }
    replace(out / "talk.json", (json.dumps(table, ensure_ascii=False) + "\n").encode())
    return out / "talk.json"
