"""Sample, score, freeze: what the policy produced and what it was worth, before the update that learns from it."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lab.advantages import dead_groups, group_advantages
from lab.config import GRPOConfig
from lab.sampler import sample
from lab.tasks import Task


@dataclass
class Rollout:
    """N completions in groups of `group_size`, frozen.

    `ids`, `completion_mask` (N, T); `rewards`, `advantages`, `truncated` (N,); `dead` (N / group_size,);
    `old_logps` (N, T) is filled by the first update; `uses` counts the updates made on this rollout.
    """

    ids: torch.Tensor
    completion_mask: torch.Tensor
    truncated: torch.Tensor
    rewards: torch.Tensor
    advantages: torch.Tensor
    dead: torch.Tensor
    group_size: int
    prompts: list[str]
    texts: list[str]
    old_logps: torch.Tensor | None = None
    uses: int = 0

    def state(self) -> dict[str, Any]:
        """A plain dict of tensors, numbers and strings for a checkpoint; `Rollout(**state)` is the inverse."""
        return asdict(self)

    def metrics(self) -> dict[str, torch.Tensor]:
        """What the rollout says before any update, as tensors to be averaged."""
        lengths = self.completion_mask.sum(1).float()
        return {"reward": self.rewards, "reward_std": self.rewards.view(-1, self.group_size).std(1), "frac_reward_zero_std": self.dead.float(),
                "completions/mean_length": lengths, "completions/clipped_ratio": self.truncated.float()}

    def samples(self) -> list[dict[str, Any]]:
        """The first group that is not dead, or the first group if all are."""
        alive = (~self.dead).nonzero().flatten().tolist()
        first = (alive[0] if alive else 0) * self.group_size
        return [{"prompt": self.prompts[i // self.group_size], "completion": self.texts[i], "reward": self.rewards[i].item(),
                 "advantage": self.advantages[i].item(), "group": i // self.group_size} for i in range(first, first + self.group_size)]


def roll_out(model: PeftModel, tokenizer: PreTrainedTokenizerBase, task: Task, config: GRPOConfig, *, step: int, device: torch.device) -> Rollout:
    """Sample `batch_size` completions for update `step`, G for each prompt, and score them."""
    problems = task.train_problems(config.batch_size // config.group_size, config.seed, step)
    prompts = [p.prompt for p in problems]
    drawn = sample(model, tokenizer, prompts, config.group_size, max_tokens=config.max_completion_tokens,
                   temperature=config.temperature, seed=config.seed, step=step, device=device)
    owners = [p for p in problems for _ in range(config.group_size)]
    scores = task.rewards[config.reward](owners, drawn.texts, seed=config.seed * 1_000_003 + step)
    rewards = torch.tensor(scores, dtype=torch.float32, device=device)
    return Rollout(drawn.ids, drawn.completion_mask, drawn.truncated, rewards, group_advantages(rewards, config.group_size, scale=config.scale),
                   dead_groups(rewards, config.group_size), config.group_size, prompts, drawn.texts)
