"""A rollout: the completions that the policy sampled and their rewards, before the update that
learns from them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, cast

import torch

from lab.algorithms.advantages import dead_groups
from lab.config.run_config import OnlineConfig
from lab.data.batching import TokenBatch
from lab.distributed import collectives
from lab.engine.completions import Completions
from lab.engine.decode_any_model import base_of
from lab.engine.samplers.base import LabSampler, SamplingRequest
from lab.engine.truncation import truncation_of
from lab.models.context_length import require_positions
from lab.tasks.base import Problem, Task
from lab.tasks.prompting import render_prompts
from lab.training.evaluation import EVAL_BATCH_ROWS
from lab.training.heads import ScalarHeadModel
from lab.training.rule_rewards import rule_rewards

if TYPE_CHECKING:
    from lab.training.state import TrainState

MAX_SHOWN_COMPLETIONS = 8  # Completions that are shown of a rollout without groups.
CHECKPOINT_KEYS = {"extra_metrics": "facts", "num_updates": "uses", "reward_metrics": "logged"}
"""Names that fields of a rollout have in a checkpoint, where they differ."""


@dataclass(kw_only=True)
class Rollout:
    """N sampled and scored completions in groups of `group_size`, frozen.

    `ids`, `completion_mask` (N, T); `rewards`, `truncated` (N,). A reward of the user's own may give
    a completion none, which is NaN. `gold` (N,) is what the task says where a reward model gave the
    rewards. `prompts` holds one text for each group, `texts` one for each completion.
    `extra_metrics` are numbers or (N,) tensors that go into the record, `reward_metrics` what a
    reward of the user's own logs by log_metric. `num_updates` counts the updates made on this rollout.
    `sampling_logps` (N, T) are the log-probabilities of another engine; None for the lab's own sampler.
    """

    ids: torch.Tensor
    completion_mask: torch.Tensor
    truncated: torch.Tensor
    rewards: torch.Tensor
    gold: torch.Tensor | None
    group_size: int
    prompts: list[str]
    texts: list[str]
    extra_metrics: dict[str, torch.Tensor] | None = None
    num_updates: int = 0
    reward_metrics: dict[str, float] = field(default_factory=dict)
    sampling_logps: torch.Tensor | None = None

    def to_checkpoint(self) -> dict[str, Any]:
        """Return tensors, numbers and strings of the whole batch, however many processes hold it."""
        return {CHECKPOINT_KEYS.get(name, name): _gather(v) for name, v in asdict(self).items()}

    @property
    def dead(self) -> torch.Tensor:
        """Which groups (N / group_size,) have all rewards equal."""
        return dead_groups(self.rewards, self.group_size)

    def metrics(self) -> dict[str, torch.Tensor]:
        """Return what the rollout says before any update, as tensors to be averaged."""
        metrics = {
            name: torch.tensor(value, device=self.rewards.device)
            for name, value in self.reward_metrics.items()
        }
        metrics |= {
            "reward": self.rewards,
            "completions/mean_length": self.completion_mask.sum(1).float(),
            "completions/clipped_ratio": self.truncated.float(),
        } | (self.extra_metrics or {})
        if self.group_size > 1:
            metrics |= {
                "reward_std": self.rewards.view(-1, self.group_size).std(1),
                "frac_reward_zero_std": self.dead.float(),
            }
        if collectives.all_gather(self.rewards).isnan().any():
            metrics["reward/missing"] = self.rewards.isnan().float()
        return metrics if self.gold is None else metrics | {"gold/rollout_accuracy": self.gold}

    def samples(self) -> list[dict[str, Any]]:
        """Return the first group that is not dead, or the first group if all are; without groups the
        first completions.
        """
        rows = range(min(MAX_SHOWN_COMPLETIONS, len(self.texts)))
        if self.group_size > 1:
            alive = (~self.dead).nonzero().flatten().tolist()
            group = alive[0] if alive else 0
            rows = range(group * self.group_size, (group + 1) * self.group_size)
        return [
            {
                "prompt": self.prompts[i // self.group_size],
                "completion": self.texts[i],
                "reward": self.rewards[i].item(),
            }
            | self._advantage(i)
            | ({} if self.gold is None else {"gold": self.gold[i].item()})
            | {"group": i // self.group_size}
            for i in rows
        ]

    def _advantage(self, row: int) -> dict[str, float]:
        """The advantage of a completion under its name in the record; empty where there is none."""
        return {}


@dataclass(kw_only=True)
class GRPORollout(Rollout):
    """A rollout with one advantage per completion: `advantages` (N,); `old_logps` (N, T) are the
    log-probabilities at the first update, None before it.
    """

    advantages: torch.Tensor
    old_logps: torch.Tensor | None = None

    def _advantage(self, row: int) -> dict[str, float]:
        return {"advantage": self.advantages[row].item()}


@dataclass(kw_only=True)
class PPORollout(Rollout):
    """A rollout with one advantage per token: `advantages`, `old_logps`, and the critic's `values`
    and their targets `returns`, all (N, T).
    """

    advantages: torch.Tensor
    old_logps: torch.Tensor
    values: torch.Tensor
    returns: torch.Tensor

    def _advantage(self, row: int) -> dict[str, float]:
        """The mean over the completion's tokens."""
        return {"advantage": self.advantages[row][self.completion_mask[row]].mean().item()}


def load_rollout(checkpoint: dict[str, Any], device: torch.device) -> Rollout:
    """Return this process's share, on `device`, of the rollout that `Rollout.to_checkpoint` gave: one
    of PPO, GRPO or plain, as its fields say.
    """
    kind: type[Rollout] = Rollout
    if checkpoint.get("values") is not None:
        kind = PPORollout
    elif checkpoint.get("advantages") is not None:
        kind = GRPORollout
    count = len(checkpoint["rewards"])
    return kind(
        **{
            f.name: _local_share(checkpoint[key], count, device)
            for f in fields(kind)
            if (key := CHECKPOINT_KEYS.get(f.name, f.name)) in checkpoint
        }
    )


def _local_share(value: Any, count: int, device: torch.device) -> Any:
    """This process's rows of one field of a rollout of `count` completions; numbers stay as they are."""
    if isinstance(value, dict):
        return {name: _local_share(inner, count, device) for name, inner in value.items()}
    if isinstance(value, torch.Tensor):
        value = value.to(device)
    if isinstance(value, list) or isinstance(value, torch.Tensor) and value.ndim > 0:
        rows = cast(Sequence[Any], value)  # A tensor is a sequence of its rows.
        return collectives.shard_for_rank(rows, "completions" if len(rows) == count else "prompts")
    return value


def _gather(value: Any) -> Any:
    """The rows of all processes of one field of a rollout; numbers stay as they are."""
    if isinstance(value, dict):
        return {name: _gather(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return collectives.all_gather_object(value)
    if isinstance(value, torch.Tensor) and value.ndim:
        return collectives.all_gather(value)
    return value


def roll_out(
    run: "TrainState[OnlineConfig]",
    *,
    group_size: int,
    rule: str,
    reward_model: ScalarHeadModel | None,
) -> Rollout:
    """Sample `batch_size` completions for the next update of `run`, `group_size` for each prompt, and
    score them: by `reward_model`, or by the task's `rule`.

    Its time counts as the phases "sampling" and "scoring".
    """
    config, step = run.config, run.step + 1
    problems = collectives.shard_for_rank(
        run.task.train_problems(config.batch_size // group_size, config.seed, step), "prompts"
    )
    with run.timer.phase("sampling"):
        prompts = render_prompts(run.tokenizer, problems)
        require_positions(config, base_of(run.model).config, max(map(len, prompts)))
        request = SamplingRequest(
            prompts,
            group_size,
            max_tokens=config.max_completion_tokens,
            temperature=config.temperature,
            seed=config.seed,
            step=step,
            device=run.device,
            shard=(collectives.rank(), collectives.world_size()),
            truncation=truncation_of(config),
        )
        sampler = run.sampler or LabSampler(run.allocator)
        completions = sampler.sample(run.model, run.tokenizer, request)
    owners = [problem for problem in problems for _ in range(group_size)]
    gold: torch.Tensor | None = None
    reward_metrics: dict[str, float] = {}
    terms: dict[str, torch.Tensor] | None = None
    with run.timer.phase("scoring"):
        if reward_model is None:
            rewards, reward_metrics, terms = rule_rewards(run, rule, owners, completions)
        else:
            rewards = _model_scores(reward_model, completions)
            gold = _gold(run.task, owners, completions).to(run.device)
    return Rollout(
        ids=completions.ids,
        completion_mask=completions.completion_mask,
        truncated=completions.truncated,
        rewards=rewards,
        gold=gold,
        group_size=group_size,
        prompts=[problem.prompt for problem in problems],
        texts=completions.texts,
        extra_metrics=terms,
        reward_metrics=reward_metrics,
        sampling_logps=completions.logps,
    )


@torch.no_grad()
def _model_scores(reward_model: ScalarHeadModel, completions: Completions) -> torch.Tensor:
    return torch.cat(
        [
            reward_model.scores(TokenBatch(ids, mask))
            for ids, mask in zip(
                completions.ids.split(EVAL_BATCH_ROWS),
                completions.completion_mask.split(EVAL_BATCH_ROWS),
            )
        ]
    )


def _gold(task: Task, owners: list[Problem], completions: Completions) -> torch.Tensor:
    answers = [task.score(p, text).answer for p, text in zip(owners, completions.texts)]
    return torch.tensor([float("nan") if a is None else a for a in answers], dtype=torch.float32)
