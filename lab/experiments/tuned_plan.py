"""The plans of the comparisons of tuned methods: arms, prompts, seeds, budget and trials.

docs/results/protocol.md explains them.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from lab.config.methods import METHODS
from lab.figures.palette import METHOD_NAMES

HALTON_BASES = (2, 3, 5)
NO_LIMIT = 1_000_000  # Updates of a run that another budget ends.


@dataclass(frozen=True)
class SearchRange:
    """A setting that tuning moves: from `low` to `high` on a log scale, or one of `choices`."""

    name: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[int, ...] = ()

    def value(self, place: float) -> float | int:
        """Return the value at a place in [0, 1): three significant digits, or a choice."""
        if self.choices:
            return self.choices[int(place * len(self.choices))]
        return float(f"{self.low * (self.high / self.low) ** place:.3g}")


@dataclass(frozen=True)
class TunedArm:
    """A method and the settings that tuning moves besides the learning rate.

    `scored_by_model` says that a reward model scores the completions; otherwise the task's rule does.
    """

    name: str
    method: str
    ranges: tuple[SearchRange, ...] = ()
    scored_by_model: bool = False

    @property
    def title(self) -> str:
        """The method, and for an online method who scores."""
        title = METHOD_NAMES[self.method]
        if not METHODS[self.method].online:
            return title
        return f"{title}, {'reward model' if self.scored_by_model else 'rule'}"


_BETA = SearchRange("beta", 0.03, 1.0)
_ONLINE_DPO_RANGES = (_BETA, SearchRange("group_size", choices=(2, 4, 8)))
_PPO_RANGES = (SearchRange("beta", 0.005, 0.08), SearchRange("critic_learning_rate", 1.25e-3, 2e-2))


@dataclass(frozen=True)
class TunedPlan:
    """Everything that decides the numbers of a comparison.

    `tokens` counts the completion tokens of a run that are sampled plus those trained on.
    `completions` is the batch of every method in the tuned views. `looks` are the measurements of a
    tuning run, at equal distances. `kl` is the KL in nats at which the runs of the third view stop,
    and `kl_checks` says how often a run of full length is checked. Prompts are (first, last + 1) in the
    task's held-out list; each test prompt gets `samples` completions. `common` holds settings of all
    runs, `reward_model` those of reward models. `pairs` is the number of preference pairs that are
    sampled from the base first; 0 for a task that has its own.
    """

    arms: tuple[TunedArm, ...] = (
        TunedArm("sft", "sft"),
        TunedArm("dpo", "dpo", (_BETA,)),
        TunedArm("ipo", "ipo", (_BETA,)),
        TunedArm("kto", "kto", (_BETA,)),
        TunedArm(
            "grpo",
            "grpo",
            (
                SearchRange("group_size", choices=(4, 8, 16)),
                SearchRange("updates_per_rollout", choices=(1, 2, 4)),
            ),
        ),
        TunedArm("online_dpo", "online_dpo", _ONLINE_DPO_RANGES),
        TunedArm("online_dpo.model", "online_dpo", _ONLINE_DPO_RANGES, scored_by_model=True),
        TunedArm("ppo", "ppo", _PPO_RANGES),
        TunedArm("ppo.model", "ppo", _PPO_RANGES, scored_by_model=True),
    )
    trials: int = 12
    tuning_seeds: tuple[int, ...] = (1000, 1001)
    first_seed: int = 2000
    tokens: int = 60_000
    completions: int = 32
    looks: int = 2
    kl: float = 1.0
    kl_checks: int = 10
    tuning_prompts: tuple[int, int] = (0, 192)
    monitor_prompts: tuple[int, int] = (192, 256)
    test_prompts: tuple[int, int] = (512, 1024)
    samples: int = 4
    margin: float = 0.02
    rate_factor: float = 4.0
    common: dict[str, Any] = field(default_factory=dict)
    reward_model: dict[str, Any] = field(default_factory=lambda: {"eval_prompts": 32})
    pairs: int = 0

    def arm(self, name: str) -> TunedArm:
        """Return the arm of a name."""
        return next(arm for arm in self.arms if arm.name == name)

    def batch(self, method: str) -> dict[str, int]:
        """Return the batch size that makes a batch of `completions` completions."""
        return {"batch_size": self.completions // METHODS[method].rows_per_example}

    def trial_settings(self, arm: TunedArm, trial: int) -> dict[str, Any]:
        """Return the settings of a trial. Trial 0 has the method's defaults; trial i stands at point
        i + 1 of the Halton sequence, which is the same for every method. Point 1 is left out, because
        it is the centre: nearly the defaults.
        """
        if trial == 0:
            return {}
        rate = self.common.get("learning_rate", METHODS[arm.method].config.learning_rate)
        ranges = (
            SearchRange("learning_rate", rate / self.rate_factor, rate * self.rate_factor),
            *arm.ranges,
        )
        return {
            one.name: one.value(radical_inverse(trial + 1, base))
            for one, base in zip(ranges, HALTON_BASES)
        }


PLAN = TunedPlan()


def language_model_plan(task: str, **changes: Any) -> TunedPlan:
    """Return the plan for SmolLM2-135M on a task with at least 256 held-out prompts.

    The base samples the pairs. The learning rate of all methods, around which tuning searches, is
    that of a large model, because the lab's defaults are made for the embedded one.
    """
    common = {
        "model": "smollm2-135m",
        "task": task,
        "max_completion_tokens": 32,
        "learning_rate": 2e-4,
    }
    plan = TunedPlan(
        arms=tuple(arm for arm in PLAN.arms if arm.name != "online_dpo.model"),
        trials=5,
        tuning_seeds=(1000,),
        tokens=40_000,
        kl=3.0,
        kl_checks=8,
        tuning_prompts=(0, 64),
        monitor_prompts=(64, 96),
        test_prompts=(96, 256),
        common=common,
        reward_model=common | {"eval_prompts": 32},
        pairs=2000,
    )
    return replace(plan, **changes)


def radical_inverse(index: int, base: int) -> float:
    """Return the digits of `index` in `base`, mirrored at the point: an entry of the Halton sequence.

    Anchor: 1, 2, 3 in base 2 give 0.5, 0.25, 0.75.
    """
    result, scale = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        scale /= base
        result += digit * scale
    return result
