"""A trained policy and its reference answer the same prompt with the same noise."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lab.algorithms.logprobs import token_logps
from lab.config.input_checks import TALK, require_text
from lab.config.run_config import RunConfig
from lab.data.parsing import parse_examples, parse_pair
from lab.engine.pair_margins import pair_margins
from lab.engine.sampler import Completions, sample
from lab.errors import LabError
from lab.models.adapters import adapter_disabled
from lab.models.device import autocast
from lab.models.loading import fitting_threads
from lab.models.tokenizer import load_tokenizer
from lab.runs.folder import RunFolder
from lab.serving.load import load_run
from lab.tasks.base import Problem, Task
from lab.tasks.prompting import render_prompts
from lab.tasks.registry import task_of

MAX_PAIR_TOKENS = 1024
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
        """Returns the policy that a run has trained."""
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
        """Returns the completions of reference and policy, each token with its log-probability (in
        nats, at temperature 1) under both.

        The noise depends on seed and prompt alone, so both draw the same token until their
        distributions part.

        Args:
            prompt: the prompt; empty for the first held-out prompt.
            seed: of the noise.
            temperature: of sampling; 0 is greedy.
            max_tokens: of a completion; 0 is the run's own limit.
            draws: further completions that both sample, unless the temperature is 0. Right
                completions and scratchpads among them are counted where the task knows them.

        Raises:
            LabError: the task does not accept the prompt, or a number is out of range.
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
                of_reference = self._sample(problem, draws, options)
            of_policy = self._sample(problem, draws, options)
            return {
                "prompt": problem.prompt,
                "answer": problem.answer,
                "seed": seed,
                "temperature": temperature,
                "reference": self._describe(problem, *of_reference),
                "policy": self._describe(problem, *of_policy),
            }

    def margins(self, pairs: Any) -> dict[str, Any]:
        """Returns h in nats of pairs, given as rows of TRL's preference format: by how much more training
        has raised the chosen completion than the rejected one. Raises `LabError` for other rows.
        """
        if not isinstance(pairs, list) or not all(isinstance(row, dict) for row in pairs):
            raise LabError("pairs takes a list of objects with prompt, chosen and rejected.")
        examples = parse_examples(list(enumerate(pairs, 1)), "request", parse_pair)
        device = self.model.device
        with fitting_threads(self.model):
            h = pair_margins(self.model, self.tokenizer, examples, device, MAX_PAIR_TOKENS)
        return {"margins": [round(value, 4) for value in h.tolist()]}

    def _sample(
        self, problem: Problem, draws: int, options: dict[str, Any]
    ) -> tuple[Completions, list[str]]:
        """One completion, and the texts of `draws` more, of the model with its present adapter."""

        def completions(count: int) -> Completions:
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

        first = completions(1)
        return first, completions(draws).texts if draws and options["temperature"] else []

    @torch.no_grad()
    def _describe(
        self, problem: Problem, completion: Completions, more: list[str]
    ) -> dict[str, Any]:
        """A completion token by token, with its log-probabilities under policy and reference, and
        counts over the texts `more`.
        """
        ids, mask, text = completion.ids, completion.completion_mask[0], completion.texts[0]
        with autocast(ids.device):
            policy_logits = self.model(input_ids=ids, use_cache=False).logits
            with adapter_disabled(self.model):
                reference_logits = self.model(input_ids=ids, use_cache=False).logits

        def logps(logits: torch.Tensor) -> list[float]:
            return [round(v, 4) for v in token_logps(logits, ids)[0][mask].tolist()]

        score = self.task.score(problem, text)
        description = {
            "text": text,
            "tokens": [self.tokenizer.decode([i]) for i in ids[0][mask].tolist()],
            "policy_logps": logps(policy_logits),
            "reference_logps": logps(reference_logits),
            "right": None if score.answer is None else bool(score.answer),
            "scratchpad": score.scratchpad,
            "truncated": bool(completion.truncated[0]),
        }
        return description | ({"draws": self._counts(problem, more)} if more else {})

    def _counts(self, problem: Problem, texts: list[str]) -> dict[str, int]:
        """How many completions are right and how many think first, where the task knows it."""
        scores = [self.task.score(problem, text) for text in texts]
        counts = {"n": len(texts)}
        answers = [score.answer for score in scores if score.answer is not None]
        if len(answers) == len(scores):
            counts["right"] = sum(map(int, answers))
        scratchpads = [score.scratchpad for score in scores if score.scratchpad is not None]
        if len(scratchpads) == len(scores):
            counts["scratchpads"] = sum(scratchpads)
        return counts
