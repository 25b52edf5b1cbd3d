"""GRPO on one prompt: a few real updates of a scratch copy of the policy, each on the group that was
sampled for the prompt.
"""

import copy
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from lab.analysis.group_statistics import mean_and_std
from lab.config.input_checks import SEED_RANGE, Range, require_text
from lab.config.methods import METHODS, make_config
from lab.config.run_config import config_as
from lab.data.batching import TokenBatch
from lab.engine.sampler import sample
from lab.engine.token_logprobs import completion_logps, token_statistics
from lab.errors import LabError, unknown
from lab.models.loading import fitting_threads
from lab.tasks.base import Problem
from lab.tasks.chain import ChainTask, graded_parts
from lab.tasks.prompting import render_prompts
from lab.training.checkpoints import make_checkpoint, restore_checkpoint
from lab.training.evaluation import evaluate
from lab.training.loop import prepare, train_step
from lab.training.methods.grpo import GRPOConfig
from lab.training.methods.online import micro_batches
from lab.training.rollout import GRPORollout
from lab.training.state import TrainState

GROUP_SIZES = (4, 8, 16)
REWARDS = ("answer", "graded")
UPDATES = Range(int, 0, 30)
HELD_OUT_PROMPTS = 256
FRESH_SAMPLES = 64
LEARNING_RATE = 5e-4
"""A quarter of GRPO's default, because the gradient of one group is noisier than that of a batch."""
MAX_COPIES = 32
"""Scratch copies that stay in memory, about 1 MB each. Another is trained again when it is asked for."""


class OnePromptTask(ChainTask):
    """Chains whose every training problem is `problem`, which is then not among the held-out ones."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.only = problem

    def train_problems(self, n: int, seed: int, step: int) -> list[Problem]:
        """Returns the problem `n` times."""
        return [self.only] * n

    def held_out(self, n: int) -> list[Problem]:
        """Returns the first `n` held-out problems without the problem."""
        others = [p for p in super().held_out(n + 1) if p.prompt != self.only.prompt]
        return others[:n]


@dataclass(frozen=True)
class Question:
    """What a scratch copy depends on, besides its number of updates."""

    prompt: str
    group_size: int = 8
    reward: str = "answer"
    seed: int = 0


@dataclass
class ScratchCopy:
    """A policy after its last update, as a checkpoint with the group that it sampled for the next one,
    and what was measured on the way.

    `groups` holds the group before each update, and the last one. `measured` maps a number of updates
    to the measurements after them.
    """

    checkpoint: dict[str, Any]
    groups: list[dict[str, Any]]
    measured: dict[int, dict[str, int]] = field(default_factory=dict)

    @property
    def updates(self) -> int:
        """The number of updates that the policy has made."""
        return len(self.groups) - 1


class OnePromptTrainer:
    """Answers what GRPO does to one prompt. An answer depends on the question and the number of updates
    alone: every copy starts from the shipped policy, and the copies of different questions share
    nothing but its frozen weights.
    """

    def __init__(self, device: str = "auto", max_copies: int = MAX_COPIES) -> None:
        knobs = {"device": device, "group_size": 4, "batch_size": 4, "learning_rate": LEARNING_RATE}
        config = make_config("grpo", knobs)
        self.run: TrainState = prepare(config)
        self.untouched = copy.deepcopy(make_checkpoint(self.run))
        self.max_copies = max_copies
        self.copies: OrderedDict[Question, ScratchCopy] = OrderedDict()

    def answer(
        self,
        prompt: str,
        *,
        group_size: int = 8,
        reward: str = "answer",
        seed: int = 0,
        updates: int = 0,
    ) -> dict[str, Any]:
        """Returns the groups of `prompt` before each of `updates` updates and after the last one, and
        how often prompt and held-out prompts are answered right.

        Every group is sampled with the same noise, which `seed` fixes, and every update learns from the
        group before it. All settings but the learning rate are GRPO's defaults.

        Raises:
            LabError: the task does not accept the prompt, or a value is out of range.
        """
        require_text("prompt", prompt)
        SEED_RANGE.check("seed", seed)
        UPDATES.check("updates", updates)
        if type(group_size) is not int or group_size not in GROUP_SIZES:
            raise LabError(f"group_size is {group_size!r}, but takes 4, 8 or 16.")
        if reward not in REWARDS:
            raise unknown("reward", str(reward), list(REWARDS))
        problem = ChainTask().problem(prompt)
        question = Question(problem.prompt, group_size, reward, seed)
        with fitting_threads(self.run.model):
            scratch = self._copy_after(updates, question, problem)
        return {
            "prompt": problem.prompt,
            "answer": problem.answer,
            "group_size": group_size,
            "reward": reward,
            "seed": seed,
            "learning_rate": self.run.config.learning_rate,
            "groups": [*scratch.groups[:updates], _before_update(scratch.groups[updates])],
            "measured": {str(at): scratch.measured[at] for at in sorted({0, updates})},
            "of": {"held_out": HELD_OUT_PROMPTS, "fresh": FRESH_SAMPLES},
        }

    def _copy_after(self, updates: int, question: Question, problem: Problem) -> ScratchCopy:
        """The scratch copy of a question with at least so many updates, measured after the last of
        them. A copy that went on without that measurement is trained again.
        """
        scratch = self.copies.pop(question, None)
        if scratch is None or updates < scratch.updates and updates not in scratch.measured:
            scratch = None
        run = self.run
        run.task = OnePromptTask(problem)
        run.config = replace(
            config_as(run.config, GRPOConfig),
            batch_size=question.group_size,
            group_size=question.group_size,
            reward=question.reward,
            seed=question.seed,
        )
        if scratch is None or updates > scratch.updates:
            restore_checkpoint(run, scratch.checkpoint if scratch else self.untouched)
            if scratch is None:
                scratch = ScratchCopy({}, [self._sample_group(problem)])
                scratch.measured[0] = self._measure(problem)
            while scratch.updates < updates:
                self._update(scratch.groups[-1])
                scratch.groups.append(self._sample_group(problem))
            if updates not in scratch.measured:
                scratch.measured[updates] = self._measure(problem)
            scratch.checkpoint = copy.deepcopy(make_checkpoint(run))
        self.copies[question] = scratch  # The copy used last stands at the end.
        while len(self.copies) > self.max_copies:
            self.copies.popitem(last=False)
        return scratch

    def _sample_group(self, problem: Problem) -> dict[str, Any]:
        """Sample the group for the next update, and describe it."""
        run = self.run
        run.step, run.rollout = (
            0,
            None,
        )  # The step fixes the noise: every group has that of update 1.
        next(METHODS["grpo"].batches(run))
        rollout = run.rollout
        assert isinstance(rollout, GRPORollout)
        with torch.no_grad():
            tokens = TokenBatch(rollout.ids, rollout.completion_mask)
            found = token_statistics(run.model, tokens, reference=run.model)
        assert found.reference_logps is not None
        mean, std = mean_and_std(rollout.rewards.tolist())
        rows = zip(
            rollout.texts,
            _rounded(rollout.rewards),
            _rounded(rollout.advantages),
            _rounded(found.logps.sum(1)),
            _rounded(found.reference_logps.sum(1)),
            rollout.ids,
            rollout.completion_mask,
        )
        completions = [
            {
                "text": text,
                "tokens": [run.tokenizer.decode([i]) for i in ids[mask].tolist()],
                "right": bool(run.task.score(problem, text).answer),
                "reward": reward,
                "parts": {
                    name: round(part, 4) for name, part in graded_parts(problem, text).items()
                },
                "advantage": advantage,
                "logp": logp,
                "reference_logp": reference_logp,
            }
            for text, reward, advantage, logp, reference_logp, ids, mask in rows
        ]
        return {"mean": round(mean, 6), "std": round(std, 6), "completions": completions}

    def _update(self, group: dict[str, Any]) -> None:
        """Make one update on the sampled group; note in `group` the log-probability of each of its
        completions after it.
        """
        run = self.run
        rollout = run.rollout
        assert rollout is not None
        train_step(run, METHODS["grpo"], micro_batches(run, list(range(len(rollout.rewards)))))
        with torch.no_grad():
            after = completion_logps(run.model, TokenBatch(rollout.ids, rollout.completion_mask))
        for completion, logp in zip(group["completions"], _rounded(after)):
            completion["logp_after"] = logp

    def _measure(self, problem: Problem) -> dict[str, int]:
        """Right completions: of held-out prompts, one each, and of the problem, with noise of their
        own.
        """
        run = self.run
        options = {"max_tokens": run.config.max_completion_tokens, "device": run.device, "seed": 0}
        held_out = evaluate(
            run.model, run.tokenizer, run.task, prompts=HELD_OUT_PROMPTS, step=run.step, **options
        )
        fresh = sample(
            run.model,
            run.tokenizer,
            render_prompts(run.tokenizer, [problem]),
            FRESH_SAMPLES,
            temperature=1.0,
            step=0,
            stream="one prompt",
            **options,
        )
        assert held_out.accuracy is not None
        return {
            "held_out": round(held_out.accuracy * HELD_OUT_PROMPTS),
            "fresh": sum(int(run.task.score(problem, text).answer or 0) for text in fresh.texts),
        }


def _before_update(group: dict[str, Any]) -> dict[str, Any]:
    """The group as it was before the update that learnt from it, if there was one."""
    completions = [
        {name: value for name, value in completion.items() if name != "logp_after"}
        for completion in group["completions"]
    ]
    return group | {"completions": completions}


def _rounded(values: torch.Tensor) -> list[float]:
    return [round(value, 4) + 0.0 for value in values.tolist()]
