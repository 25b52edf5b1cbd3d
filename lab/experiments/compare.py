"""Every method from the same base on the same data at an equal budget, over several seeds: one
table with intervals.
"""

import csv
import io
import json
import math
import re
import time
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any, get_type_hints

import torch
import transformers

from lab.analysis.statistics import interval, paired
from lab.config.changes import parse_setting
from lab.config.methods import METHODS, make_config
from lab.config.run_config import RunConfig
from lab.errors import LabError, unknown
from lab.experiments.arms import (
    PROMPTS,
    SAMPLES,
    Arm,
    Log,
    cached,
    device_name,
    keep_plan,
    measure_base,
    reward_model_run,
    run_arm,
)
from lab.figures.palette import METHOD_NAMES
from lab.profiling.profiler import KINDS, profile
from lab.runs.metrics import METRICS
from lab.storage.jsonl import replace
from lab.tasks.registry import check, task_of
from lab.training.state import TrainState

KNOB = re.compile(r"(?:(\w+)\.)?(\w+)=([^,]+)")
BUDGETS = ("defaults", "updates", "tokens", "seconds")
NO_LIMIT = 1_000_000  # Updates of a run that another budget ends.
FIRST, LAST = (
    ("gold/accuracy",),
    ("completions/mean_length", "kl", "proxy", "updates", "tokens", "seconds"),
)
"""The measures of every comparison; what the task alone measures stands between them."""
SCORERS = {"gold": "rule", "model": "reward model"}
DEFAULT_SCORER = {"ppo": "model", "online_dpo": "model", "grpo": "gold"}
"""Who scores what an online method writes: in the article RLHF has a learnt reward model and GRPO a
rule.
"""


@dataclass(frozen=True)
class Plan:
    """What is compared. A method is a name, for online methods also NAME@gold (the task's rule
    scores) or NAME@model (a reward model does, trained on the same pairs with the same seed).

    `budget` is defaults (each method's own number of updates) or what `amount` counts: updates,
    tokens (completion tokens trained on), seconds (of sampling and updates, without evaluation; a
    reward model's own training is not counted). `data` goes to what learns from fixed data, the
    task's own pairs where it is empty. `knobs` are further ones, such as
    "lora_rank=16,grpo.beta=0.04": KNOB=VALUE for all that have the knob, METHOD.KNOB=VALUE for one
    method.
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
            check(self.config(self.arm(name)))
        self._no_knob_left_over()
        if len(set(self.methods)) < len(self.methods) or not self.methods:
            raise LabError(
                f"methods are '{','.join(self.methods)}', but each is compared once and there is at"
                " least one."
            )
        interval([0.0] * self.seeds)

    def _require_amount(self) -> None:
        """Raise `LabError` unless budget and amount fit each other."""
        if self.budget not in BUDGETS:
            raise unknown("budget", self.budget, list(BUDGETS))
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
        """The arm that a name such as dpo or grpo@model means."""
        method, at, scorer = name.partition("@")
        policies = [name for name, spec in METHODS.items() if "policy" in spec.models]
        if method not in policies:
            raise unknown("method to compare", method, policies)
        online = METHODS[method].online
        if at and not online:
            raise LabError(
                f"'{name}': {method} learns from fixed data, so nobody scores what it writes. Leave"
                f" '@{scorer}' out."
            )
        if at and scorer not in SCORERS:
            raise unknown("scorer", scorer, list(SCORERS))
        steps = {"defaults": {}, "updates": {"steps": int(self.amount)}}.get(
            self.budget, {"steps": NO_LIMIT}
        )
        scored = online and (scorer or DEFAULT_SCORER.get(method, "gold")) == "model"
        return Arm(
            name.replace("@", "."),
            method,
            self.shared(method) | steps,
            self.shared("reward_model") if scored else None,
        )

    def config(self, arm: Arm) -> RunConfig:
        """The config of an arm's first seed, whoever scores it."""
        return make_config(arm.method, arm.knobs | {"device": self.device})

    def shared(self, method: str) -> dict[str, Any]:
        """What the plan as a whole says of a method: model, task, data and knobs, as far as they
        differ from its defaults.
        """
        found: dict[str, Any] = {"model": self.model, "task": self.task, "data": self.data}
        hints = get_type_hints(METHODS[method].config)
        for owner, knob, value in self._given():
            if (owner or method) == method and (owner or knob in hints):
                found[knob] = parse_setting(METHODS[method].config, knob, value)
        own = make_config(method, {"data": self.data} if "data" in hints else {})
        return {
            knob: value
            for knob, value in found.items()
            if knob in hints and (value != getattr(own, knob) or knob == "data" and value)
        }

    def _given(self) -> list[tuple[str, str, str]]:
        """`knobs` as method (empty for all), knob and value; `LabError` for what is none."""
        texts = self.knobs.split(",") if self.knobs else []
        for text in texts:
            if not KNOB.fullmatch(text):
                raise LabError(f"'{text}' in knobs is neither KNOB=VALUE nor METHOD.KNOB=VALUE.")
        given = [KNOB.fullmatch(text).groups("") for text in texts]
        names = [(owner, knob) for owner, knob, _ in given]
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
        return given

    def _no_knob_left_over(self) -> None:
        """Raise `LabError` for a knob that none of the compared methods has."""
        compared = {"reward_model", *(name.partition("@")[0] for name in self.methods)}
        for owner, knob, _ in self._given():
            if owner and owner not in compared:
                raise unknown("method in knobs", owner, sorted(compared))
            kinds = [METHODS[m].config for m in ([owner] if owner else compared)]
            if not any(knob in get_type_hints(kind) for kind in kinds):
                raise unknown(
                    "knob of what is compared",
                    knob,
                    sorted({name for kind in kinds for name in get_type_hints(kind)}),
                )

    def spent(self, run: TrainState) -> bool:
        """Whether a run has used up a budget of tokens or seconds."""
        return {"tokens": run.tokens, "seconds": run.seconds}.get(self.budget, -1.0) >= self.amount

    def title(self, name: str) -> str:
        """The arm in words."""
        arm = self.arm(name)
        if not METHODS[arm.method].online:
            return METHOD_NAMES[arm.method]
        return (
            f"{METHOD_NAMES[arm.method]},"
            f" {SCORERS['gold' if arm.reward_model is None else 'model']}"
        )


def compare(plan: Plan, out: Path, say: Log = lambda text: None) -> dict[str, Any]:
    """Train and measure every method with every seed in `out`, or go on where an earlier call
    stopped; write table.json, table.csv, report.md.

    More seeds extend a comparison. Raises `LabError` when `out` holds one with another plan.
    """
    keep_plan(out, {name: value for name, value in asdict(plan).items() if name != "seeds"})
    base = cached(out / "base.json", lambda: measure_base(plan.config(plan.arm(plan.methods[0]))))
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in plan.methods}
    for seed in range(plan.seeds):
        judge = reward_model_run(out, plan.shared("reward_model"), seed, plan.device)
        for name in plan.methods:
            began = time.perf_counter()
            result = run_arm(out, plan.arm(name), seed, plan.device, plan.spent, judge)
            runs[name].append(result)
            say(
                f"{name:16} seed {seed}: gold {result['gold/accuracy']:.3f}  KL {result['kl']:.2f} "
                f" {result['updates']} updates, {result['seconds']:.1f} s of training,"
                f" {time.perf_counter() - began:.0f} s in all"
            )
    costs = {
        name: cached(
            out / f"{plan.arm(name).name}-cost.json",
            lambda name=name: cost(plan.arm(name), plan.device, out),
        )
        for name in plan.methods
    }
    table = tabulate(plan, base, runs, costs)
    replace(out / "table.json", (json.dumps(table, indent=1) + "\n").encode())
    replace(out / "table.csv", to_csv(table).encode())
    replace(out / "report.md", report(table).encode())
    return table


def cost(arm: Arm, device: str, out: Path) -> dict[str, Any]:
    """What one update of an arm costs: models, copies of the weights, memory by kind at its peak in
    bytes, forward and backward tokens, FLOPs.
    """
    scored = (
        {}
        if arm.reward_model is None
        else {"reward_from": str(reward_model_run(out, arm.reward_model, 0, device))}
    )
    found = profile(make_config(arm.method, {"device": device} | arm.knobs | scored), rollouts=1)
    memory = max(found.memory.values(), key=lambda kinds: sum(kinds.values()))
    return {
        "models": found.models,
        "copies": found.copies,
        "memory": memory,
        "largest_cache": found.largest_cache,
        "allocated": found.allocated,
        "batch": list(found.batch),
        "tokens": found.tokens,
        "flops": found.flops,
        "joules": found.joules,
    }


def tabulate(
    plan: Plan,
    base: dict[str, Any],
    runs: dict[str, list[dict[str, Any]]],
    costs: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Means with intervals of every measure, what an update costs, and paired differences in gold
    accuracy between every two methods.
    """
    rows = [
        {"method": name, "title": plan.title(name)}
        | {m: asdict(interval([r[m] for r in results])) for m in measures(base)}
        | {"cost": costs[name]}
        for name, results in runs.items()
    ]
    differences = [
        {"first": a, "second": b}
        | asdict(
            paired([r["gold/accuracy"] for r in runs[a]], [r["gold/accuracy"] for r in runs[b]])
        )
        for a, b in combinations(plan.methods, 2)
    ]
    measured = len(task_of(plan.config(plan.arm(plan.methods[0]))).held_out(PROMPTS))
    return {
        "command": command_of(plan),
        "device": device_name(plan.device),
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
        "plan": asdict(plan),
        "evaluation": f"{measured} held-out prompts x {SAMPLES} completions",
        "base": base,
        "methods": rows,
        "differences in gold/accuracy": differences,
        "runs": runs,
    }


def command_of(plan: Plan) -> str:
    """The command line of a comparison."""
    amount = "" if plan.budget == "defaults" else f" --amount {plan.amount:g}"
    of = {f.name: f.default for f in fields(plan)}
    rest = "".join(
        f" --{name} {getattr(plan, name)}"
        for name in ("model", "task", "data", "knobs")
        if getattr(plan, name) != of[name]
    )
    return (
        f"python -m lab compare --methods {','.join(plan.methods)} --seeds {plan.seeds} --budget"
        f" {plan.budget}{amount}{rest}"
    )


def facts(base: dict[str, Any]) -> list[str]:
    """What the task alone measures, in the order in which it does."""
    return [name for name in base if name not in (*FIRST, *LAST, "gold/format")]


def measures(base: dict[str, Any]) -> list[str]:
    """Every measure of a comparison whose base was measured so."""
    return [*FIRST, *facts(base), *LAST]


def to_csv(table: dict[str, Any]) -> str:
    """One line per method: the mean and half the width of the interval of every measure, then the
    cost of an update, memory in bytes.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kinds = [f"memory/{kind}" for kind in KINDS]
    names = measures(table["base"])
    writer.writerow(
        [
            "method",
            *(f"{name}{part}" for name in names for part in ("", " ±")),
            "models",
            "copies",
            *kinds,
            "flops",
        ]
    )
    for row in table["methods"]:
        writer.writerow(
            [
                row["method"],
                *(f"{row[name][part]:.6g}" for name in names for part in ("mean", "half")),
                len(row["cost"]["models"]),
                f"{row['cost']['copies']:.6g}",
                *(row["cost"]["memory"][kind] for kind in KINDS),
                row["cost"]["flops"],
            ]
        )
    return text.getvalue()


def markdown(table: dict[str, Any]) -> str:
    """The table as Markdown, ± half the 95 % interval over seeds."""
    base = table["base"]
    own = facts(base)
    heads = "".join(f" {METRICS[f'gold/{name}'].label} |" for name in own)
    lines = [
        (
            f"| method | gold accuracy, before → after |{heads} length, tokens | KL, nats | proxy"
            " reward | updates | tokens | seconds |"
        ),
        f"| --- | --- |{' --- |' * len(own)} --- | --- | --- | --- | --- | --- |",
    ]
    for row in table["methods"]:
        gold, length, kl, proxy, seconds = (
            row[n] for n in ("gold/accuracy", "completions/mean_length", "kl", "proxy", "seconds")
        )
        line = (
            f"| {row['title']} | {base['gold/accuracy']:.2f} → {gold['mean']:.2f} ±"
            f" {gold['half']:.2f} | "
            + "".join(
                f"{base[name]:{form}} → {row[name]['mean']:{form}} | "
                for name in own
                for form in [".0%" if METRICS[f"gold/{name}"].unit == "share" else ".2f"]
            )
            + f"{base['completions/mean_length']:.0f} → {length['mean']:.0f} ± {length['half']:.0f}"
            f" | {kl['mean']:.1f} ± {kl['half']:.1f} | {proxy['mean']:.1f} ± {proxy['half']:.1f}"
            f" | {row['updates']['mean']:.0f} | {row['tokens']['mean'] / 1000:.0f} k |"
            f" {seconds['mean']:.0f} ± {seconds['half']:.0f} |"
        )
        lines.append(line.replace("%", " %"))
    return "\n".join(lines) + "\n"


def cost_markdown(table: dict[str, Any]) -> str:
    """What one update of each method costs, as Markdown."""
    lines = [
        (
            "| method | models in the algorithm | copies of the weights | peak memory, MiB | of it"
            " activations | key-value cache, MiB | tokens forward only | tokens forward and"
            " backward | GFLOP |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table["methods"]:
        cost = row["cost"]
        total = sum(cost["memory"].values())
        lines.append(
            f"| {row['title']} | {len(cost['models'])}: {', '.join(cost['models'])} |"
            f" {cost['copies']:.2f} | {total / 2**20:.0f} |"
            f" {cost['memory']['activations'] / total:.0%} | {cost['largest_cache'] / 2**20:.1f} |"
            f" {cost['tokens'].get('forward', 0):,} | {cost['tokens']['backward']:,} |"
            f" {cost['flops'] / 1e9:.1f} |".replace("%", " %")
        )
    return "\n".join(lines) + "\n"


def chart(table: dict[str, Any]) -> str:
    """Gold accuracy of every method as a Mermaid chart, which Markdown viewers draw."""
    names = ", ".join(f'"{row["title"].replace(", ", " · ")}"' for row in table["methods"])
    values = ", ".join(f"{row['gold/accuracy']['mean']:.3f}" for row in table["methods"])
    return (
        '```mermaid\nxychart-beta\n  title "Gold accuracy after training (share of held-out'
        f' completions)"\n  x-axis [{names}]\n  y-axis "gold accuracy" 0 --> 1\n  bar'
        f" [{values}]\n```\n"
    )


def report(table: dict[str, Any]) -> str:
    """The Markdown report of a comparison."""
    titles = {row["method"]: row["title"] for row in table["methods"]}
    lines = [
        f"# {' · '.join(titles.values())}",
        "",
        (
            f"`{table['command']}` on {table['device']}, torch {table['torch']}, transformers"
            f" {table['transformers']}. {table['plan']['seeds']} seeds; ± is half the 95 % interval"
            f" of the mean over seeds (Student's t); {table['evaluation']}. Proxy reward is the"
            " mean score of a reward model that was trained on the same pairs."
        ),
        "",
        markdown(table),
        chart(table),
        "One update of each, measured on its own batch, its real tokens counted:",
        "",
        cost_markdown(table),
        "Paired differences in gold accuracy, seed by seed:",
        "",
        "| first − second | difference |",
        "| --- | --- |",
    ]
    for row in table["differences in gold/accuracy"]:
        sure = "" if abs(row["mean"]) > row["half"] else " (the interval holds 0)"
        lines.append(
            f"| {titles[row['first']]} − {titles[row['second']]} | {row['mean']:+.3f} ±"
            f" {row['half']:.3f}{sure} |"
        )
    return "\n".join(lines) + "\n"
