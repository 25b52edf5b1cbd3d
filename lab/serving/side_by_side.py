"""A trained policy and its reference answer the same prompt with the same noise; and a worker that
does so for the dashboard.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
import transformers
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lab.algorithms.logprobs import token_logps
from lab.config.input_checks import TALK, require_text
from lab.config.run_config import RunConfig
from lab.engine.sampler import Completions, sample
from lab.errors import LabError, unknown
from lab.models.loading import adapter_disabled, autocast, fitting_threads
from lab.models.tokenizer import load_tokenizer
from lab.runs.folder import RunFolder
from lab.serving.load import load_run
from lab.storage.jsonl import replace
from lab.tasks.prompting import render_prompts
from lab.tasks.registry import Problem, Task, task_of

RECORDED_PROMPTS, RECORDED_SEEDS, RECORDED_DRAWS = 12, 3, 32
RECORDED = Path(__file__).parents[1] / "assets" / "runs" / "grpo"
KEPT = 4  # policies that the worker keeps loaded


@dataclass
class Talker:
    """A run's policy, ready to answer; its reference is the same weights with the adapter off."""

    config: RunConfig
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    task: Task = field(init=False)

    def __post_init__(self) -> None:
        self.task = task_of(self.config)

    @classmethod
    def of(cls, folder: RunFolder, device: str = "auto") -> "Talker":
        """The policy that a run left."""
        config, model = load_run(folder, device)
        return cls(config, model, load_tokenizer(config.model, config.template_options))

    def answer(
        self,
        prompt: str = "",
        *,
        seed: int = 0,
        temperature: float = 1.0,
        max_tokens: int = 0,
        draws: int = 0,
    ) -> dict[str, Any]:
        """What reference and policy say to `prompt` (empty: the first held-out one), each token
        with its log-probability under both.

        The noise depends on seed and prompt alone, so both draw the same token until their
        distributions part. `temperature` 0 is greedy; log-probabilities are those at temperature 1,
        in nats. `max_tokens` 0 is the run's own limit. With `draws`, both also sample so many
        completions at this temperature, unless it is 0, and right ones and scratchpads are counted
        where the task knows them. Raises `LabError` for a prompt that the task does not accept and
        for a number out of range.
        """
        for name, value in {
            "seed": seed,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "draws": draws,
        }.items():
            TALK[name].check(name, value)
        require_text("prompt", prompt)
        problem = self.task.problem(prompt) if prompt else self.task.held_out(1)[0]
        options = {
            "max_tokens": max_tokens or self.config.max_completion_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        with fitting_threads(self.model):
            with adapter_disabled(self.model):
                theirs = self._draw(problem, draws, options)
            ours = self._draw(problem, draws, options)
            return {
                "prompt": problem.prompt,
                "answer": problem.answer,
                "seed": seed,
                "temperature": temperature,
                "reference": self._read(problem, *theirs),
                "policy": self._read(problem, *ours),
            }

    def _draw(
        self, problem: Problem, draws: int, options: dict[str, Any]
    ) -> tuple[Completions, list[str]]:
        """One completion, and the texts of `draws` more, of the model as it stands."""

        def drawn(count: int) -> Completions:
            return sample(
                self.model,
                self.tokenizer,
                render_prompts(self.tokenizer, [problem]),
                count,
                step=0,
                device=self.model.device,
                stream=f"talk/{problem.prompt}",
                **options,
            )

        return drawn(1), drawn(draws).texts if draws and options["temperature"] else []

    @torch.no_grad()
    def _read(self, problem: Problem, drawn: Completions, more: list[str]) -> dict[str, Any]:
        """The completion token by token, with its log-probabilities under policy and reference,
        whichever of them wrote it.
        """
        with autocast(drawn.ids.device):
            ours = self.model(input_ids=drawn.ids, use_cache=False).logits
            with adapter_disabled(self.model):
                theirs = self.model(input_ids=drawn.ids, use_cache=False).logits
        mask = drawn.completion_mask[0]

        def logps(logits: torch.Tensor) -> list[float]:
            return [round(v, 4) for v in token_logps(logits, drawn.ids)[0][mask].tolist()]

        score, scores = (
            self.task.score(problem, drawn.texts[0]),
            [self.task.score(problem, text) for text in more],
        )
        counted = {"n": len(more)} | {
            name: sum(map(int, found))
            for name, found in (
                ("right", [s.answer for s in scores]),
                ("scratchpads", [s.scratchpad for s in scores]),
            )
            if None not in found
        }
        return {
            "text": drawn.texts[0],
            "tokens": [self.tokenizer.decode([i]) for i in drawn.ids[0][mask].tolist()],
            "policy_logps": logps(ours),
            "reference_logps": logps(theirs),
            "right": None if score.answer is None else bool(score.answer),
            "scratchpad": score.scratchpad,
            "truncated": bool(drawn.truncated[0]),
        } | ({"draws": counted} if more else {})


def serve(requests: Iterable[str], device: str = "auto") -> Iterator[dict[str, Any]]:
    """Answer requests, each a JSON object with "run" (a run folder) and arguments of
    `Talker.answer`, in their order, one object each.

    What goes wrong comes back as {"error": …}; the worker goes on.
    """
    loaded: dict[tuple[str, int], Talker] = {}
    for line in requests:
        try:
            asked = _request(line)
            folder = RunFolder(Path(asked.pop("run")))
            made = folder.path / "adapter" / "adapter_config.json"
            key = (str(folder.path), made.stat().st_mtime_ns if made.is_file() else 0)
            talker = loaded.pop(key, None) or Talker.of(folder, device)
            loaded[key] = talker  # the policy used last stands at the end
            while len(loaded) > KEPT:
                loaded.pop(next(iter(loaded)))
            yield talker.answer(**asked)
        except LabError as error:
            yield {"error": str(error)}
        except Exception as error:  # whatever it is, the next request may be answered
            yield {"error": f"{type(error).__name__}: {error}"}


def _request(line: str) -> dict[str, Any]:
    """A line of JSON as a request; raise `LabError` for anything else."""
    require_text("the request", line)
    try:
        asked = json.loads(line)
    except (ValueError, RecursionError) as error:  # The latter for a line of [[[[…
        raise LabError(f"The request is not JSON ({error}).") from None
    if not isinstance(asked, dict) or not isinstance(asked.get("run"), str):
        raise LabError(
            'A request is a JSON object with the folder of a run, such as {"run": "runs/a",'
            ' "prompt": "1+2="}.'
        )
    if extra := set(asked) - {"run", "prompt", *TALK}:
        raise unknown("part of a request", sorted(extra)[0], ["run", "prompt", *TALK])
    return asked


def record(folder: RunFolder, out: Path, device: str = "auto") -> Path:
    """Ship a run's policy: copy its adapter to `out`/adapter, and write `out`/talk.json, its
    answers to the first held-out prompts.
    """
    talker = Talker.of(folder, device)
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
