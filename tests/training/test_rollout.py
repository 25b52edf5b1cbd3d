"""Rollouts: what is sampled and scored, what a record and the shown samples say of it."""

import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from lab.config.methods import make_config
from lab.engine.allocator import NO_RECORD
from lab.engine.sampler import sample
from lab.models.loading import load_policy
from lab.models.tokenizer import load_tokenizer
from lab.tasks.prompting import render_prompts
from lab.tasks.registry import task_of
from lab.training.rollout import GRPORollout, PPORollout, Rollout, load_rollout, roll_out

CPU = torch.device("cpu")
CONFIG = make_config("grpo", {"batch_size": 8, "max_completion_tokens": 24, "device": "cpu"})
NAN = float("nan")


def rollout(rewards=(1.0, 1.0, 1.0, 0.0), group_size=2, **more):
    """Four completions of one, two, three and four tokens after a prompt of one token."""
    n = len(rewards)
    advantages = more.get("advantages")
    kind = Rollout if advantages is None else GRPORollout
    if advantages is not None and advantages.ndim == 2:
        kind = PPORollout
        more |= {"old_logps": advantages, "values": advantages, "returns": advantages}
    return kind(
        ids=torch.arange(5).expand(n, 5).clone(),
        completion_mask=torch.tensor([[0 < t <= 1 + i % 4 for t in range(5)] for i in range(n)]),
        truncated=torch.tensor([i == 0 for i in range(n)]),
        rewards=torch.tensor(rewards),
        gold=more.pop("gold", None),
        group_size=group_size,
        prompts=[f"prompt {i}" for i in range(n // group_size)],
        texts=[f"text {i}" for i in range(n)],
        **more,
    )


def means(metrics):
    return {name: value.float().mean().item() for name, value in metrics.items()}


def test_a_group_is_dead_when_its_rewards_are_equal():
    assert rollout().dead.tolist() == [True, False]


def test_the_metrics_of_a_rollout_by_hand():
    found = means(
        rollout(
            reward_metrics={"own": 3.0}, extra_metrics={"spread": torch.tensor([1.0, 2.0])}
        ).metrics()
    )
    assert found == {
        "own": 3.0,
        "reward": 0.75,
        "completions/mean_length": 2.5,
        "completions/clipped_ratio": 0.25,
        "spread": 1.5,
        "reward_std": pytest.approx(math.sqrt(0.5) / 2),
        "frac_reward_zero_std": 0.5,
    }


def test_without_groups_there_is_no_std_and_gold_stands_beside_a_reward_model():
    found = means(rollout(group_size=1, gold=torch.tensor([1.0, 0.0, 0.0, 0.0])).metrics())
    assert found["gold/rollout_accuracy"] == 0.25
    assert not {"reward_std", "frac_reward_zero_std", "reward/missing"} & set(found)


def test_the_share_of_missing_rewards_is_reported_only_when_one_is_missing():
    assert means(rollout((1.0, NAN, 0.0, 1.0)).metrics())["reward/missing"] == 0.25
    assert "reward/missing" not in rollout().metrics()


def test_the_first_group_that_is_not_dead_is_shown_with_reward_advantage_gold_and_group():
    shown = rollout(
        advantages=torch.tensor([0.0, 0.0, 0.5, -0.5]), gold=torch.tensor([1.0, 1.0, 1.0, 0.0])
    ).samples()
    assert shown == [
        {
            "prompt": "prompt 1",
            "completion": f"text {i}",
            "reward": reward,
            "advantage": advantage,
            "gold": gold,
            "group": 1,
        }
        for i, reward, advantage, gold in ((2, 1.0, 0.5, 1.0), (3, 0.0, -0.5, 0.0))
    ]


def test_the_first_group_is_shown_when_all_are_dead():
    shown = rollout((1.0, 1.0, 0.0, 0.0)).samples()
    assert [(row["completion"], row["group"]) for row in shown] == [("text 0", 0), ("text 1", 0)]
    assert all("advantage" not in row and "gold" not in row for row in shown)


def test_without_groups_the_first_eight_completions_are_shown():
    shown = rollout((1.0,) * 9, group_size=1).samples()
    assert [row["completion"] for row in shown] == [f"text {i}" for i in range(8)]
    assert len(rollout(group_size=1).samples()) == 4


def test_the_shown_advantage_of_ppo_is_the_mean_over_the_tokens_of_the_completion():
    advantages = torch.tensor([[9.0, 1.0, 2.0, 3.0, 4.0]]).expand(4, 5)
    shown = rollout(group_size=1, advantages=advantages).samples()
    assert [row["advantage"] for row in shown] == [1.0, 1.5, 2.0, 2.5]


def test_a_rollout_comes_back_from_its_state_on_the_device_that_is_asked_for():
    before = rollout(
        advantages=torch.ones(4),
        extra_metrics={"scale": torch.tensor(2.0)},
        num_updates=3,
        reward_metrics={"own": 1.0},
    )
    state = before.to_checkpoint()
    after = load_rollout(state, CPU)
    assert after.prompts == before.prompts and after.texts == before.texts
    assert (after.num_updates, after.group_size, after.reward_metrics) == (3, 2, {"own": 1.0})
    for name in ("ids", "completion_mask", "truncated", "rewards", "advantages"):
        assert torch.equal(getattr(after, name), getattr(before, name))
    assert after.extra_metrics["scale"].item() == 2.0 and after.old_logps is None
    assert load_rollout(state, torch.device("meta")).rewards.device.type == "meta"


def test_each_process_of_several_takes_its_share_of_every_row_of_a_state(monkeypatch):
    def share(value, unit):
        taken.append(unit)
        return value[: len(value) // 2]

    taken = []
    state = rollout(
        advantages=torch.ones(4), extra_metrics={"scale": torch.tensor(2.0)}
    ).to_checkpoint()
    monkeypatch.setattr("lab.training.rollout.collectives.shard_for_rank", share)
    half = load_rollout(state, CPU)
    assert half.rewards.tolist() == [1.0, 1.0] and half.ids.shape == (2, 5)
    assert (half.prompts, half.texts) == (["prompt 0"], ["text 0", "text 1"])
    assert (taken.count("completions"), taken.count("prompts")) == (6, 1)
    assert half.extra_metrics["scale"].item() == 2.0


# Sampling and scoring


@pytest.fixture(scope="module")
def policy():
    return load_policy(CONFIG, CPU), load_tokenizer(CONFIG.model)


class Judge:
    """A reward model that gives a completion the number of its tokens, and notes its batches."""

    def __init__(self):
        self.batches = []

    def scores(self, tokens):
        self.batches.append(len(tokens.ids))
        return tokens.completion_mask.sum(1).float()


def rolled_out(policy, step=1, judge=None, task=None, config=CONFIG, phases=None):
    def phase(name):
        if phases is not None:
            phases.append(name)
        return nullcontext()

    model, tokenizer = policy
    run = SimpleNamespace(
        model=model,
        tokenizer=tokenizer,
        task=task or task_of(config),
        config=config,
        step=step - 1,
        device=CPU,
        timer=SimpleNamespace(phase=phase),
        sampler=None,
        allocator=NO_RECORD,
        own={},
    )
    return roll_out(run, group_size=4, rule="answer", reward_model=judge)


def test_a_rollout_has_the_completions_of_its_update_scored_by_the_rule(policy):
    phases = []
    result = rolled_out(policy, step=3, phases=phases)
    task, (model, tokenizer) = task_of(CONFIG), policy
    problems = task.train_problems(2, CONFIG.seed, 3)
    expected = sample(
        model,
        tokenizer,
        render_prompts(tokenizer, problems),
        4,
        max_tokens=24,
        temperature=CONFIG.temperature,
        seed=CONFIG.seed,
        step=3,
        device=CPU,
    )
    assert phases == ["sampling", "scoring"]
    assert result.prompts == [p.prompt for p in problems] and result.texts == expected.texts
    assert torch.equal(result.ids, expected.ids)
    assert torch.equal(result.completion_mask, expected.completion_mask)
    assert torch.equal(result.truncated, expected.truncated)
    owners = [p for p in problems for _ in range(4)]
    right = [task.score(p, text).answer for p, text in zip(owners, expected.texts)]
    assert result.rewards.tolist() == right and result.rewards.dtype == torch.float32
    assert (result.gold, result.group_size, result.reward_metrics) == (None, 4, {})


def test_updates_differ_in_prompts_and_completions_and_one_update_repeats(policy):
    first, again, second = (rolled_out(policy, step) for step in (1, 1, 2))
    assert first.texts == again.texts and first.prompts == again.prompts
    assert first.prompts != second.prompts and first.texts != second.texts


def test_a_rule_gets_the_problems_and_a_seed_of_its_update(policy):
    calls = []

    def rule(problems, texts, seed):
        calls.append(([p.prompt for p in problems], seed))
        return [0.5] * len(texts)

    rule.metrics = {"own": 2.0}
    shown = task_of(CONFIG)
    task = SimpleNamespace(
        name="made up", train_problems=shown.train_problems, rewards={"answer": rule}
    )
    config = make_config("grpo", {**vars(CONFIG), "seed": 5})
    result = rolled_out(policy, step=2, task=task, config=config)
    assert result.rewards.tolist() == [0.5] * 8 and result.reward_metrics == {"own": 2.0}
    problems = shown.train_problems(2, 5, 2)
    assert calls == [([p.prompt for p in problems for _ in range(4)], 5 * 1_000_003 + 2)]


def test_processes_of_one_rollout_give_their_rules_different_seeds(policy, monkeypatch):
    seeds = []

    def rule(problems, texts, seed):
        seeds.append(seed)
        return [0.0] * len(texts)

    shown = task_of(CONFIG)
    task = SimpleNamespace(
        name="made up", train_problems=shown.train_problems, rewards={"answer": rule}
    )

    class ScoredBy(list):
        """Phases of a rollout that is scored in the process of this rank."""

        def __init__(self, rank, patch):
            self.rank, self.patch = rank, patch

        def append(self, name):
            if name == "scoring":
                self.patch.setattr("lab.training.rollout.collectives.rank", lambda: self.rank)

    for rank in (0, 1, 2):
        with monkeypatch.context() as patch:
            rolled_out(policy, task=task, phases=ScoredBy(rank, patch))
    assert [seed - seeds[0] for seed in seeds] == [0, 7_919, 2 * 7_919]


def test_a_reward_model_gives_the_rewards_and_the_task_says_what_is_right_beside_it(
    policy, monkeypatch
):
    monkeypatch.setattr("lab.training.rollout.EVAL_BATCH_ROWS", 3)
    judge = Judge()
    result = rolled_out(policy, judge=judge)
    by_rule = rolled_out(policy)
    assert judge.batches == [3, 3, 2]
    assert result.rewards.tolist() == result.completion_mask.sum(1).tolist()
    assert torch.equal(result.gold, by_rule.rewards) and result.texts == by_rule.texts


def test_gold_is_nan_where_nothing_says_what_is_right(policy):
    real = task_of(CONFIG)
    task = SimpleNamespace(
        train_problems=real.train_problems, score=lambda problem, text: SimpleNamespace(answer=None)
    )
    assert rolled_out(policy, judge=Judge(), task=task).gold.isnan().all()
