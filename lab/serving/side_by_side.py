"""A trained policy and its reference answer the same prompt with the same noise; and a worker that
does so for the dashboard.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lab.algorithms.logprobs import token_logps
from lab.config.input_checks import TALK, require_text
from lab.config.methods import RunConfig
from lab.engine.sampler import Completions, sample
from lab.models.adapters import adapter_disabled
from lab.models.device import autocast
from lab.models.loading import fitting_threads
from lab.models.tokenizer import load_tokenizer
from lab.runs.folder import RunFolder
from lab.serving.load import load_run
from lab.tasks.prompting import render_prompts
from lab.tasks.registry import Problem, Task, task_of

RECORDED_RUN = Path(__file__).parents[1] / "assets" / "runs" / "grpo"


@dataclass
class PolicyWithReference:
    """A run's policy, ready to answer; its reference is the same weights with the adapter off."""

    config: RunConfig
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    task: Task = field(init=False)

    def __post_init__(self) -> None:
        self.task = task_of(self.config)

    @classmethod
    def of(cls, folder: RunFolder, device: str = "auto") -> "PolicyWithReference":
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
