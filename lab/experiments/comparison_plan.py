"""The plan of a comparison: which methods, at which budget, and the arms that follow from it."""

import math
import re
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from lab.analysis.statistics import interval
from lab.config.changes import parse_setting
from lab.config.methods import METHODS, make_config
from lab.config.run_config import RunConfig
from lab.errors import LabError, unknown
from lab.experiments.arms import Arm
from lab.figures.palette import METHOD_NAMES
from lab.tasks.registry import check_task
from lab.training.state import TrainState

KNOB_PATTERN = re.compile(r"(?:(\w+)\.)?(\w+)=([^,]+)")

COMPARISON_BUDGETS = ("defaults", "updates", "tokens", "seconds")

NO_LIMIT = 1_000_000  # Updates of a run that another budget ends.

SCORERS = {"gold": "rule", "model": "reward model"}

DEFAULT_SCORER = {"ppo": "model", "online_dpo": "model", "grpo": "gold"}
"""Who scores the completions of an online method by default: as in the article, a reward model for
RLHF and a rule for GRPO.
"""


@dataclass(frozen=True)
class ComparisonPlan:
    """The methods to compare and their shared settings.

    `methods` are names. An online method may be NAME@gold, scored by the task's rule, or
    NAME@model, scored by a reward model that is trained on the same pairs with the same seed.
    `budget` is "defaults", each method's own number of updates, or the unit of `amount`: "updates",
    "tokens" (completion tokens trained on) or "seconds" (of sampling and updates, without
    evaluation and without training the reward model). `data` is the file that offline methods and
    reward models learn from; empty means the task's own pairs. `knobs` has further settings, such
    as "lora_rank=16,grpo.beta=0.04": SETTING=VALUE for every method that has the setting,
    METHOD.SETTING=VALUE for one method. Raises `LabError` for a plan that cannot be run.
    """

    methods: tuple[str, ...]
    seeds: int
    budget: str
    amount: float
    device: str
    model: str = "embedded"
    task: str = "chain"
    data: str = ""
    knobs: str = ""

    def __post_init__(self) -> None:
        self._require_amount()
        for name in self.methods:
            check_task(self.config(self.arm(name)))
        self._require_known_knobs()
        if len(set(self.methods)) < len(self.methods) or not self.methods:
            raise LabError(
                f"methods are '{','.join(self.methods)}', but each is compared once and there is at"
                " least one."
            )
        interval([0.0] * self.seeds)

    def _require_amount(self) -> None:
        """Raises `LabError` unless budget and amount fit each other."""
        if self.budget not in COMPARISON_BUDGETS:
            raise unknown("budget", self.budget, list(COMPARISON_BUDGETS))
        if self.budget == "defaults" and self.amount != 0:
            raise LabError(
                f"amount is {self.amount:g}, but the budget defaults counts nothing. Give --budget"
                " updates, tokens or seconds, or no amount."
            )
        if self.budget != "defaults" and not 0 < self.amount < math.inf:
            raise LabError(
                f"amount is {self.amount:g}, but takes how many {self.budget} each run gets,"
                " above 0."
            )
        if self.budget == "updates" and (self.amount != int(self.amount) or self.amount > NO_LIMIT):
            raise LabError(
                f"amount is {self.amount:g}, but takes a whole number of updates, at most"
                f" {NO_LIMIT:,}."
            )

    def arm(self, name: str) -> Arm:
        """Returns the arm of a name such as dpo or grpo@model. Raises `LabError` for an unknown name."""
        method, at, scorer = name.partition("@")
        policies = [name for name, spec in METHODS.items() if "policy" in spec.models]
        if method not in policies:
            raise unknown("method to compare", method, policies)
        online = METHODS[method].online
        if at and not online:
            raise LabError(
                f"'{name}': {method} learns from fixed data, so nobody scores its completions. Leave"
                f" '@{scorer}' out."
            )
        if at and scorer not in SCORERS:
            raise unknown("scorer", scorer, list(SCORERS))
        steps: dict[str, Any] = {"steps": NO_LIMIT}
        if self.budget == "defaults":
            steps = {}
        if self.budget == "updates":
            steps = {"steps": int(self.amount)}
        scored = online and (scorer or DEFAULT_SCORER.get(method, "gold")) == "model"
        return Arm(
            name.replace("@", "."),
            method,
            self.shared(method) | steps,
            self.shared("reward_model") if scored else None,
        )

    def config(self, arm: Arm) -> RunConfig:
        """Returns the config of an arm's first seed, without its reward model."""
        return make_config(arm.method, arm.knobs | {"device": self.device})

    def shared(self, method: str) -> dict[str, Any]:
        """Returns the knobs that the plan sets for a method: model, task, data and `knobs`, without
        those that equal the method's defaults.
        """
        settings: dict[str, Any] = {"model": self.model, "task": self.task, "data": self.data}
        hints = get_type_hints(METHODS[method].config)
        for owner, knob, value in self._parsed_knobs():
            if (owner or method) == method and (owner or knob in hints):
                settings[knob] = parse_setting(METHODS[method].config, knob, value)
        own = make_config(method, {"data": self.data} if "data" in hints else {})
        return {
            knob: value
            for knob, value in settings.items()
            if knob in hints and (value != getattr(own, knob) or knob == "data" and value)
        }

    def _parsed_knobs(self) -> list[tuple[str, str, str]]:
        """Returns `knobs` as (method, knob, value); the method is empty for all methods. Raises
        `LabError` for text that is no knob, and for a knob that stands twice or that an argument
        decides.
        """
        parsed: list[tuple[str, str, str]] = []
        for text in self.knobs.split(",") if self.knobs else []:
            match = KNOB_PATTERN.fullmatch(text)
            if match is None:
                raise LabError(
                    f"'{text}' in knobs is neither SETTING=VALUE nor METHOD.SETTING=VALUE."
                )
            parsed.append((match[1] or "", match[2], match[3]))
        names = [(owner, knob) for owner, knob, _ in parsed]
        for owner, knob in names:
            if names.count((owner, knob)) > 1:
                raise LabError(
                    f"{owner}{'.' if owner else ''}{knob} stands in knobs more than once. Give it"
                    " once."
                )
            decides = {"seed": "--seeds", "device": "--device"} | (
                {}
                if self.budget == "defaults" or owner == "reward_model"
                else {"steps": "--budget"}
            )
            if knob in decides:
                raise LabError(
                    f"{knob} stands in knobs, but {decides[knob]} decides it for all that is"
                    " compared. Leave it out there."
                )
        return parsed

    def _require_known_knobs(self) -> None:
        """Raises `LabError` for a knob that no compared method has."""
        compared = {"reward_model", *(name.partition("@")[0] for name in self.methods)}
        for owner, knob, _ in self._parsed_knobs():
            if owner and owner not in compared:
                raise unknown("method in knobs", owner, sorted(compared))
            kinds = [METHODS[m].config for m in ([owner] if owner else compared)]
            if not any(knob in get_type_hints(kind) for kind in kinds):
                raise unknown(
                    "setting of the methods compared",
                    knob,
                    sorted({name for kind in kinds for name in get_type_hints(kind)}),
                )

    def spent(self, run: TrainState) -> bool:
        """Whether a run has used up its budget of tokens or seconds."""
        return {"tokens": run.tokens, "seconds": run.timer.training_seconds}.get(
            self.budget, -1.0
        ) >= self.amount

    def title(self, name: str) -> str:
        """Returns the title of an arm: its method, and for an online method who scores."""
        arm = self.arm(name)
        if not METHODS[arm.method].online:
            return METHOD_NAMES[arm.method]
        return (
            f"{METHOD_NAMES[arm.method]},"
            f" {SCORERS['gold' if arm.reward_model is None else 'model']}"
        )


def command_of(plan: ComparisonPlan) -> str:
    """Returns the command line of a comparison."""
    amount = "" if plan.budget == "defaults" else f" --amount {plan.amount:g}"
    defaults = {f.name: f.default for f in fields(plan)}
    rest = "".join(
        f" --{name} {getattr(plan, name)}"
        for name in ("model", "task", "data", "knobs")
        if getattr(plan, name) != defaults[name]
    )
    return (
        f"python -m lab compare --methods {','.join(plan.methods)} --seeds {plan.seeds} --budget"
        f" {plan.budget}{amount}{rest}"
    )
