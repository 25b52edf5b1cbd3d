"""Sample, score, freeze: what the policy produced and what it was worth, before the update that
learns from it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lab.algorithms.advantages import dead_groups
from lab.config.run_config import OnlineConfig
from lab.data.batching import Tokens
from lab.distributed import collectives
from lab.engine.decode_any_model import base_of
from lab.engine.sampler import Completions, sample
from lab.models.context_length import require_room
from lab.tasks.prompting import render_prompts
from lab.tasks.registry import Problem, Task, rule_of, scored
from lab.training.evaluation import ROWS
from lab.training.heads import ScalarHeadModel

SHOWN = 8  # Completions that are shown of a rollout without groups.


@dataclass
class Rollout:
    """N completions in groups of `group_size`, frozen; PPO has groups of one.

    `ids`, `completion_mask` (N, T); `rewards`, `truncated` (N,); a reward of the user's own may
    give none, which is NaN. `gold` (N,) is what the task says where a reward model gave the
    rewards. The method fills what it learns from: `advantages` (N,) for GRPO, (N, T) for PPO;
    `old_logps` (N, T); `reference_logps`, `values`, `returns` (N, T) for PPO; `facts`, numbers or
    (N,) tensors that go into the record. `uses` counts the updates made on this rollout. `logged`
    is what a reward of the user's own logs by log_metric.
    """

    ids: torch.Tensor
    completion_mask: torch.Tensor
    truncated: torch.Tensor
    rewards: torch.Tensor
    gold: torch.Tensor | None
    group_size: int
    prompts: list[str]
    texts: list[str]
    advantages: torch.Tensor | None = None
    old_logps: torch.Tensor | None = None
    values: torch.Tensor | None = None
    returns: torch.Tensor | None = None
    facts: dict[str, torch.Tensor] | None = None
    uses: int = 0
    logged: dict[str, float] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """A plain dict of tensors, numbers and strings for a checkpoint: of the whole batch,
        however many processes hold it.
        """
        return {name: _whole(value) for name, value in asdict(self).items()}

    @classmethod
    def of(cls, state: dict[str, Any], device: torch.device) -> "Rollout":
        """This process's share of what `state` gave, on `device`."""
        n = len(state["rewards"])

        def part(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: part(inner) for name, inner in value.items()}
            if isinstance(value, torch.Tensor):
                value = value.to(device)
            rows = isinstance(value, (torch.Tensor, list)) and (
                isinstance(value, list) or value.ndim > 0
            )
            return (
                collectives.shard_for_rank(value, "completions" if len(value) == n else "prompts")
                if rows
                else value
            )

        return cls(**{name: part(value) for name, value in state.items()})

    @property
    def dead(self) -> torch.Tensor:
        """Which groups (N / group_size,) have all rewards equal."""
        return dead_groups(self.rewards, self.group_size)

    def metrics(self) -> dict[str, torch.Tensor]:
        """What the rollout says before any update, as tensors to be averaged."""
        found = {
            name: torch.tensor(value, device=self.rewards.device)
            for name, value in self.logged.items()
        }
        found |= {
            "reward": self.rewards,
            "completions/mean_length": self.completion_mask.sum(1).float(),
            "completions/clipped_ratio": self.truncated.float(),
        } | (self.facts or {})
        if self.group_size > 1:
            found |= {
                "reward_std": self.rewards.view(-1, self.group_size).std(1),
                "frac_reward_zero_std": self.dead.float(),
            }
        if collectives.all_gather(self.rewards).isnan().any():
            found["reward/missing"] = self.rewards.isnan().float()
        return found if self.gold is None else found | {"gold/rollout_accuracy": self.gold}

    def samples(self) -> list[dict[str, Any]]:
        """The first group that is not dead, or the first group if all are; without groups the first
        completions.
        """
        rows = range(min(SHOWN, len(self.texts)))
        if self.group_size > 1:
            alive = (~self.dead).nonzero().flatten().tolist()
            rows = range(
                (alive[0] if alive else 0) * self.group_size,
                ((alive[0] if alive else 0) + 1) * self.group_size,
            )
        return [
            {
                "prompt": self.prompts[i // self.group_size],
                "completion": self.texts[i],
                "reward": self.rewards[i].item(),
            }
            | ({} if self.advantages is None else {"advantage": self._advantage(i)})
            | ({} if self.gold is None else {"gold": self.gold[i].item()})
            | {"group": i // self.group_size}
            for i in rows
        ]

    def _advantage(self, row: int) -> float:
        """The advantage of a completion, for PPO the mean over its tokens."""
        own = self.advantages[row]
        return (own[self.completion_mask[row]].mean() if own.ndim else own).item()


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _whole(part) for name, part in value.items()}
    if isinstance(value, list):
        return collectives.all_gather_object(value)
    return (
        collectives.all_gather(value) if isinstance(value, torch.Tensor) and value.ndim else value
    )


def roll_out(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    config: OnlineConfig,
    *,
    group_size: int,
    rule: str,
    reward_model: ScalarHeadModel | None,
    step: int,
    device: torch.device,
    phase: Callable[[str], AbstractContextManager],
) -> Rollout:
    """Sample `batch_size` completions for update `step`, `group_size` for each prompt, and score
    them: by `reward_model`, or by the task's `rule`.

    The work is done within `phase("sampling")` and `phase("scoring")`, which may measure it.
    """
    problems = collectives.shard_for_rank(
        task.train_problems(config.batch_size // group_size, config.seed, step), "prompts"
    )
    with phase("sampling"):
        prompts = render_prompts(tokenizer, problems)
        require_room(config, base_of(model).config, max(map(len, prompts)))
        drawn = sample(
            model,
            tokenizer,
            prompts,
            group_size,
            max_tokens=config.max_completion_tokens,
            temperature=config.temperature,
            seed=config.seed,
            step=step,
            device=device,
            part=(collectives.rank(), collectives.world_size()),
        )
    owners = [p for p in problems for _ in range(group_size)]
    with phase("scoring"):
        if reward_model is None:
            judge = rule_of(task, rule)
            scores = scored(
                judge,
                owners,
                drawn.texts,
                seed=config.seed * 1_000_003 + step + 7_919 * collectives.rank(),
                ids=drawn.completion_ids,
                step=step - 1,
            )
            rewards, gold = torch.tensor(scores, dtype=torch.float32, device=device), None
        else:
            rewards, gold = (
                _model_scores(reward_model, drawn),
                _gold(task, owners, drawn).to(device),
            )
    logged = getattr(judge, "metrics", {}) if reward_model is None else {}
    return Rollout(
        drawn.ids,
        drawn.completion_mask,
        drawn.truncated,
        rewards,
        gold,
        group_size,
        [p.prompt for p in problems],
        drawn.texts,
        logged=logged,
    )


@torch.no_grad()
def _model_scores(reward_model: ScalarHeadModel, drawn: Completions) -> torch.Tensor:
    return torch.cat(
        [
            reward_model.scores(Tokens(ids, mask))
            for ids, mask in zip(drawn.ids.split(ROWS), drawn.completion_mask.split(ROWS))
        ]
    )


def _gold(task: Task, owners: list[Problem], drawn: Completions) -> torch.Tensor:
    answers = [task.score(p, text).answer for p, text in zip(owners, drawn.texts)]
    return torch.tensor([float("nan") if a is None else a for a in answers], dtype=torch.float32)
