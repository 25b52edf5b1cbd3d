"""Every method from the same base on the same data at an equal budget, over several seeds: one table with intervals."""

import csv
import io
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import transformers

from lab.config import CONFIGS, RunConfig, make_config, to_dict
from lab.driver import drive, load_checkpoint
from lab.errors import LabError, unknown
from lab.evaluate import evaluate
from lab.experiments.intervals import interval, paired
from lab.figures.palette import METHOD_NAMES
from lab.jsonl import replace
from lab.methods import Run
from lab.models import fitting_threads, load_policy, load_tokenizer, resolve_device
from lab.runs import RunFolder, create
from lab.tasks import TASKS
from lab.train import prepare

BUDGETS = ("defaults", "updates", "tokens", "seconds")
NO_LIMIT = 1_000_000  # Updates of a run that another budget ends.
MEASURES = ("gold/accuracy", "scratchpad_share", "completions/mean_length", "kl", "updates", "tokens", "seconds")
PROMPTS, SAMPLES, EVALUATION_SEED = 512, 4, 0


@dataclass(frozen=True)
class Plan:
    """What is compared. `budget` is defaults (each method's own number of updates) or what `amount` counts: updates, tokens, seconds.

    Tokens are completion tokens trained on; seconds are those of sampling and updates, without evaluation.
    """

    methods: tuple[str, ...]
    seeds: int
    budget: str
    amount: float
    device: str

    def __post_init__(self) -> None:
        policies = [m for m in CONFIGS if m != "reward_model"]
        for method in self.methods:
            if method not in policies:
                raise unknown("method to compare", method, policies)
        if len(set(self.methods)) < len(self.methods) or not self.methods:
            raise LabError(f"methods are '{','.join(self.methods)}', but each is compared once and there is at least one.")
        if self.budget not in BUDGETS:
            raise unknown("budget", self.budget, list(BUDGETS))
        if self.budget != "defaults" and self.amount <= 0:
            raise LabError(f"amount is {self.amount:g}, but takes how many {self.budget} each run gets, above 0.")
        interval([0.0] * self.seeds)

    def config(self, method: str, seed: int) -> RunConfig:
        """The config of one run: the method's defaults without evaluations on the way, so that seconds count training alone."""
        steps = {"defaults": {}, "updates": {"steps": int(self.amount)}}.get(self.budget, {"steps": NO_LIMIT})
        return make_config(method, {"seed": seed, "eval_every": 0, "eval_prompts": 64, "device": self.device, **steps})

    def spent(self, run: Run) -> bool:
        """Whether a run has used up its budget."""
        return run.step >= run.config.steps or {"tokens": run.tokens, "seconds": run.seconds}.get(self.budget, -1.0) >= self.amount


def measure(run: Run) -> dict[str, Any]:
    """What a finished run reached on held-out prompts, and what it cost."""
    with fitting_threads(run.model):
        result = evaluate(run.model, run.tokenizer, run.task, prompts=PROMPTS, max_tokens=run.config.max_completion_tokens, seed=EVALUATION_SEED,
                          device=run.device, samples=SAMPLES)
    return {"gold/accuracy": result.accuracy, "scratchpad_share": result.scratchpad_share, "completions/mean_length": result.mean_length, "kl": result.kl,
            "updates": run.step, "tokens": run.tokens, "seconds": run.seconds}


def measure_base(plan: Plan) -> dict[str, Any]:
    """The same measurement of the policy before any training."""
    config, device = plan.config(plan.methods[0], 0), resolve_device(plan.device)
    result = evaluate(load_policy(config, device), load_tokenizer(config.model), TASKS[config.task], prompts=PROMPTS, max_tokens=config.max_completion_tokens,
                      seed=EVALUATION_SEED, device=device, samples=SAMPLES)
    return {"gold/accuracy": result.accuracy, "scratchpad_share": result.scratchpad_share, "completions/mean_length": result.mean_length, "kl": result.kl}


def _cached(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not path.is_file():
        replace(path, (json.dumps(make(), indent=1) + "\n").encode())
    return json.loads(path.read_text("utf-8"))


def _train(folder: Path, config: RunConfig, plan: Plan) -> dict[str, Any]:
    run = RunFolder(folder) if folder.exists() else create(folder, config)
    if to_dict(run.config) != to_dict(config):
        raise LabError(f"{folder} was started with another config. Choose another --out, or give the arguments of the comparison that is there.")
    held = load_checkpoint(run)
    trained = held and prepare(config, held)
    if not trained or not plan.spent(trained):
        trained = drive(run, until=plan.spent)
    if not plan.spent(trained):
        raise LabError(f"{folder} was stopped after {trained.step} updates. The same command goes on from there.")
    return measure(trained)


def compare(plan: Plan, out: Path, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Train and measure every method with every seed in `out`, or go on where an earlier call stopped; write table.json, table.csv, report.md.

    Raises `LabError` when `out` holds a comparison with another plan.
    """
    out.mkdir(parents=True, exist_ok=True)
    kept = _cached(out / "plan.json", lambda: asdict(plan))
    if kept != json.loads(json.dumps(asdict(plan))):
        raise LabError(f"{out} holds another comparison: {kept}. Choose another --out.")
    base = _cached(out / "base.json", lambda: measure_base(plan))
    runs: dict[str, list[dict[str, Any]]] = {method: [] for method in plan.methods}
    for seed in range(plan.seeds):
        for method in plan.methods:
            folder = out / f"{method}-{seed}"
            began = time.perf_counter()
            result = _cached(out / f"{method}-{seed}.json", lambda folder=folder, m=method, s=seed: _train(folder, plan.config(m, s), plan))
            runs[method].append(result)
            say(f"{method:12} seed {seed}: gold {result['gold/accuracy']:.3f}  KL {result['kl']:.2f}  {result['updates']} updates, "
                f"{result['seconds']:.1f} s of training, {time.perf_counter() - began:.0f} s in all")
    table = tabulate(plan, base, runs)
    replace(out / "table.json", (json.dumps(table, indent=1) + "\n").encode())
    replace(out / "table.csv", to_csv(table).encode())
    replace(out / "report.md", report(table).encode())
    return table


def tabulate(plan: Plan, base: dict[str, Any], runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means with intervals of every measure, and paired differences in gold accuracy between every two methods."""
    rows = [{"method": method} | {name: asdict(interval([r[name] for r in results])) for name in MEASURES} for method, results in runs.items()]
    differences = [{"first": a, "second": b} | asdict(paired([r["gold/accuracy"] for r in runs[a]], [r["gold/accuracy"] for r in runs[b]]))
                   for a, b in combinations(plan.methods, 2)]
    return {"command": command_of(plan), "device": device_name(plan), "torch": torch.__version__.partition("+")[0],
            "transformers": transformers.__version__, "plan": asdict(plan), "evaluation": f"{PROMPTS} held-out prompts x {SAMPLES} completions",
            "base": base, "methods": rows, "differences in gold/accuracy": differences, "runs": runs}


def command_of(plan: Plan) -> str:
    """The command line of a comparison."""
    amount = "" if plan.budget == "defaults" else f" --amount {plan.amount:g}"
    return f"python -m lab compare --methods {','.join(plan.methods)} --seeds {plan.seeds} --budget {plan.budget}{amount}"


def device_name(plan: Plan) -> str:
    """The device in words."""
    device = resolve_device(plan.device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU with {os.cpu_count()} cores"


def to_csv(table: dict[str, Any]) -> str:
    """One line per method: the mean and half the width of the interval of every measure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", *(f"{name}{part}" for name in MEASURES for part in ("", " ±"))])
    for row in table["methods"]:
        writer.writerow([row["method"], *(f"{row[name][part]:.6g}" for name in MEASURES for part in ("mean", "half"))])
    return text.getvalue()


def markdown(table: dict[str, Any]) -> str:
    """The table as Markdown, ± half the 95 % interval over seeds."""
    base = table["base"]
    lines = ["| method | gold accuracy, before → after | scratchpads | length, tokens | KL, nats | updates | seconds |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for row in table["methods"]:
        gold, pads, length, kl, seconds = (row[n] for n in ("gold/accuracy", "scratchpad_share", "completions/mean_length", "kl", "seconds"))
        lines.append(f"| {METHOD_NAMES[row['method']]} | {base['gold/accuracy']:.2f} → {gold['mean']:.2f} ± {gold['half']:.2f} | "
                     f"{base['scratchpad_share']:.0%} → {pads['mean']:.0%} | "
                     f"{base['completions/mean_length']:.0f} → {length['mean']:.0f} ± {length['half']:.0f} | "
                     f"{kl['mean']:.1f} ± {kl['half']:.1f} | {row['updates']['mean']:.0f} | {seconds['mean']:.0f} ± {seconds['half']:.0f} |".replace("%", " %"))
    return "\n".join(lines) + "\n"


def report(table: dict[str, Any]) -> str:
    """The Markdown report of a comparison."""
    lines = [f"# {' · '.join(METHOD_NAMES[m] for m in table['plan']['methods'])}", "",
             f"`{table['command']}` on {table['device']}, torch {table['torch']}, transformers {table['transformers']}. "
             f"{table['plan']['seeds']} seeds; ± is half the 95 % interval of the mean over seeds (Student's t); {table['evaluation']}.", "",
             markdown(table), "Paired differences in gold accuracy, seed by seed:", "", "| first − second | difference |", "| --- | --- |"]
    for row in table["differences in gold/accuracy"]:
        sure = "" if abs(row["mean"]) > row["half"] else " (the interval holds 0)"
        lines.append(f"| {METHOD_NAMES[row['first']]} − {METHOD_NAMES[row['second']]} | {row['mean']:+.3f} ± {row['half']:.3f}{sure} |")
    return "\n".join(lines) + "\n"
