"""Texts about a run, made from its numbers, and the fixed texts of page Train."""

import shlex
from collections.abc import Mapping
from typing import Any

from lab.config.json_format import to_dict
from lab.config.methods import make_config
from lab.config.number_text import number_text
from lab.dashboard.state.run_cache import Snapshot
from lab.figures.events import event_text
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES
from lab.runs.states import ACTIVE_STATES, RunState

QUESTION = "How does training change the policy?"
SENTENCE = (
    "The policy is a small language model. It learns to calculate chains such as `7+5*3=` from left"
    " to right; results are taken modulo 100 (only the last two digits count). Start a run: it"
    " trains on this computer, and you can watch it and change it."
)
WORDS = (
    "policy",
    "reference",
    "base model",
    "completion",
    "chosen and rejected",
    "adapter",
    "reward model",
    "rule",
    "critic",
    "group",
    "dead group",
    "advantage",
    "scratchpad",
    "gold accuracy",
    "held-out",
    "KL",
    "nat",
    "entropy",
    "rollout",
    "update",
    "seed",
)


LENGTH_CHANGES = ("longer", "about the same", "shorter")


def method_dot(method: str) -> str:
    """A dot in the method's colour, as Markdown."""
    return f':color[●]{{foreground="{METHOD_COLOURS[method]}"}}'


def method_title(method: str) -> str:
    """The method's name after a dot in its colour, as Markdown."""
    return f"{method_dot(method)} {METHOD_NAMES[method]}"


CAPTION_MEASURES = (
    ("gold/accuracy", "gold accuracy", "{:.2f}", ""),
    ("gold/reward_accuracy", "ranking accuracy", "{:.2f}", ""),
    ("gold/reward", "gold reward", "{:.2f}", ""),
    ("gold/repetition", "repeated bigrams", "{:.0%}", ""),
    ("gold/scratchpad_share", "scratchpads", "{:.0%}", ""),
    ("gold/mean_length", "completions", "{:.0f}", " tokens"),
    ("eval/rewards/accuracies", "pair accuracy on held-out rows", "{:.2f}", ""),
    ("eval/loss", "loss on held-out rows", "{:.3f}", ""),
    ("gold/kl", "KL", "{:.1f}", " nats"),
    ("rewards/accuracies", "pair accuracy", "{:.2f}", ""),
)
LAST_ONLY = ("gold/kl", "rewards/accuracies", "eval/rewards/accuracies")
"""Measures without a first value: it is 0, or that of a batch before training."""


def run_caption(run: Snapshot) -> str:
    """The measures of a run from their first value to their last, and the run's last event; empty
    if nothing is measured.
    """
    parts: list[str] = []
    evaluation_steps: list[int] = []
    for name, label, form, unit in CAPTION_MEASURES:
        steps, values = run.columns.get(name, ((), ()))
        if not len(values):
            continue
        if name.startswith(("gold/", "eval/")):
            evaluation_steps.append(steps[-1])
        texts = [form.format(v).replace("%", " %") for v in (values[0], values[-1])]
        if name in LAST_ONLY:
            parts += [f"{label} {texts[1]}{unit}"] if run.step else []
        else:
            parts.append(
                f"{label} {texts[0]} → {texts[1]}{unit}"
                if run.step
                else f"{label} {texts[0]}{unit}"
            )
    if not parts:
        return ""
    last_evaluation = (
        f" (held-out values from step {max(evaluation_steps)})"
        if evaluation_steps and max(evaluation_steps) != run.step
        else ""
    )
    events = [row for row in run.events if event_text(row)]
    last_event = (
        f" Last event: {event_text(events[-1])} at step {events[-1]['step']}." if events else ""
    )
    return (
        f"Step {run.step}{last_evaluation if run.step else ', before any update'}:"
        f" {', '.join(parts)}.{last_event}"
    )


def state_line(name: str, state: str, run: Snapshot, recorded: bool = False) -> str:
    """Name, origin, state, progress and pace of a run, as Markdown. Only a run that trains is live."""
    method, steps = run.config["method"], run.config["steps"]
    state_text = {
        "running": "training",
        "paused": "paused",
        "queued": "waiting for a free CPU core",
    }.get(state, state)
    origin = "recorded" if recorded else "live" if state in ACTIVE_STATES else "own"
    line = (
        f"{method_dot(method)} **{METHOD_NAMES[method]}** `{name}`"
        f" :gray-badge[{origin}] {state_text}, step {run.step} of"
        f" {steps}"
    )
    if run.step and run.seconds:
        pace = run.seconds / run.step
        line += f", {pace:.2g} s per step"
        if state == RunState.RUNNING and run.step < steps:
            line += f", {run.wall / run.step * (steps - run.step):.0f} s left"
    return line


def length_verdict(guess: str, run: Snapshot, ended: bool) -> str:
    """A guess at the length of completions beside the measured change; before the run has ended,
    the change so far without a verdict.
    """
    steps, lengths = run.columns.get("gold/mean_length", ((), ()))
    if len(lengths) < 2:
        return f"You said {guess}. The run has not measured it yet."
    change = lengths[-1] / max(lengths[0], 1e-9)
    actual = (
        LENGTH_CHANGES[0]
        if change > 1.2
        else LENGTH_CHANGES[2]
        if change < 0.8
        else LENGTH_CHANGES[1]
    )
    measured = f"{lengths[0]:.0f} → {lengths[-1]:.0f} tokens by step {steps[-1]}"
    if not ended:
        return f"You said {guess}. So far: {measured}."
    if guess == actual:
        return f"Right: {measured}."
    return (
        f"You said {guess}, but the completions"
        f" {'stayed' if actual == LENGTH_CHANGES[1] else 'became'} {actual}: {measured}."
    )


def run_source(run: Snapshot) -> str:
    """Where a run's numbers come from: seed, device, and how often what is evaluated."""
    config = run.started
    if not config["task"]:
        return (
            f"Seed {config['seed']}, device {config['device']}. Metrics with “held-out” in their"
            f" name are measured on held-out rows of {config['data']}, every"
            f" {config['eval_every']} updates. All other curves come from the batch of each update."
        )
    return (
        f"Seed {config['seed']}, device {config['device']}. Gold accuracy, scratchpads, KL and"
        f" length are measured on {config['eval_prompts']} held-out prompts, with one completion"
        f" each at temperature 1, every {config['eval_every']} updates. All other curves come from the"
        " batch of each update."
    )


def train_command(config: Mapping[str, Any], out: str) -> str:
    """The command line that starts the same run in the folder `out`. It names the seed and the
    knobs that are not at their defaults.
    """
    default = to_dict(
        make_config(config["method"], {"data": config["data"]} if config.get("data") else {})
    ) | {"data": ""}
    arguments = ["python", "-m", "lab", "train", config["method"]]
    for name, value in config.items():
        if value != default[name] or name == "seed":
            arguments += [f"--{name.replace('_', '-')}", number_text(value)]
    return shlex.join([*arguments, "--out", out])


CANNOT_SHOW = (
    "The model of the lab has a third of a million parameters and a vocabulary of 20 tokens. Its task has"
    " one right answer, which a rule can check. This shows how each method behaves. It does not"
    " show which method is best on a large model, on open text or with human preferences. One run"
    " is one seed: start several runs before you believe a difference. Scratchpads become frequent"
    " because the base model already writes some, and they lead to right answers more often."
)
