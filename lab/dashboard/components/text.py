"""What the page says in words and formulas, made from a run's numbers."""

import shlex
from collections.abc import Mapping
from typing import Any

from lab.config.json_format import to_dict
from lab.config.methods import METHODS, make_config
from lab.config.number_text import number_text
from lab.dashboard.state.run_cache import Snapshot
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES
from lab.figures.training_curves import event_text

QUESTION = "What does training do to the policy?"
SENTENCE = (
    "A small language model learns to evaluate calculator chains from left to right modulo 100,"
    " such as `7+5*3=`, for real and on this machine."
)

LENGTHS = ("longer", "about the same", "shorter")


def mark(method: str) -> str:
    """A dot in the method's colour, as markdown."""
    return f':color[●]{{foreground="{METHOD_COLOURS[method]}"}}'


def title(method: str) -> str:
    """The method's name with its colour, as markdown."""
    return f"{mark(method)} {METHOD_NAMES[method]}"


def formula(method: str, config: Mapping[str, Any]) -> list[str]:
    """The loss of one example (GRPO: of one group) in LaTeX with the numbers of `config` in their
    places, then what its letters mean.
    """
    return METHODS[method].formula(config)


MEASURES = (
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
LAST_ONLY = (
    "gold/kl",
    "rewards/accuracies",
    "eval/rewards/accuracies",
)  # the first value is 0, or that of a batch before training


def caption(run: Snapshot) -> str:
    """What has happened in this run, in numbers: from its first evaluation to its last, and its
    latest change.
    """
    parts, evaluated = [], []
    for name, word, form, unit in MEASURES:
        steps, values = run.columns.get(name, ((), ()))
        if not len(values):
            continue
        if name.startswith(("gold/", "eval/")):
            evaluated.append(steps[-1])
        texts = [form.format(v).replace("%", " %") for v in (values[0], values[-1])]
        if name in LAST_ONLY:
            parts += [f"{word} {texts[1]}{unit}"] if run.step else []
        else:
            parts.append(
                f"{word} {texts[0]} → {texts[1]}{unit}" if run.step else f"{word} {texts[0]}{unit}"
            )
    if not parts:
        return ""
    behind = (
        f" (held-out part last at step {max(evaluated)})"
        if evaluated and max(evaluated) != run.step
        else ""
    )
    drawn = [row for row in run.events if event_text(row)]
    change = f" Last event: {event_text(drawn[-1])} at step {drawn[-1]['step']}." if drawn else ""
    return (
        f"Step {run.step}{behind if run.step else ', before any update'}:"
        f" {', '.join(parts)}.{change}"
    )


def state_line(name: str, state: str, run: Snapshot, recorded: bool = False) -> str:
    """Name, origin, state, progress and pace of a run, as markdown."""
    method, steps = run.config["method"], run.config["steps"]
    word = {"running": "training", "paused": "paused", "queued": "waiting for a free core"}.get(
        state, state
    )
    line = (
        f"{mark(method)} **{METHOD_NAMES[method]}** `{name}`"
        f" :gray-badge[{'recorded' if recorded else 'live'}] {word}, step {run.step} of {steps}"
    )
    if run.step and run.seconds:
        pace = run.seconds / run.step
        line += f", {pace:.2g} s per step"
        if state == "running" and run.step < steps:
            line += f", {run.wall / run.step * (steps - run.step):.0f} s left"
    return line


def verdict(guess: str, run: Snapshot, ended: bool) -> str:
    """A guess at the length of completions beside what the run measured; before it has ended only
    what it has measured so far.
    """
    steps, lengths = run.columns.get("gold/mean_length", ((), ()))
    if len(lengths) < 2:
        return f"You say {guess}. The run has not measured it yet."
    change = lengths[-1] / max(lengths[0], 1e-9)
    became = LENGTHS[0] if change > 1.2 else LENGTHS[2] if change < 0.8 else LENGTHS[1]
    measured = f"{lengths[0]:.0f} → {lengths[-1]:.0f} tokens by step {steps[-1]}"
    if not ended:
        return f"You say {guess}. So far: {measured}."
    if guess == became:
        return f"Right: {measured}."
    return (
        f"You said {guess}; they {'stayed' if became == LENGTHS[1] else 'became'} {became}:"
        f" {measured}."
    )


def source(run: Snapshot) -> str:
    """Where a run's numbers come from."""
    given = run.started
    if not given["task"]:
        return (
            f"Seed {given['seed']}, device {given['device']}. Names with eval/: held-out rows of"
            f" {given['data']}, every {given['eval_every']} updates; the rest: the batch of each"
            " update."
        )
    return (
        f"Seed {given['seed']}, device {given['device']}. Accuracy, scratchpads, KL and length:"
        f" {given['eval_prompts']} held-out prompts, one completion each at temperature 1, every"
        f" {given['eval_every']} updates; the rest: the batch of each update."
    )


def command(config: Mapping[str, Any], out: str) -> str:
    """The command line that starts the same run; knobs at their defaults are left out, but never
    the seed.
    """
    default = to_dict(
        make_config(config["method"], {"data": config["data"]} if config.get("data") else {})
    ) | {"data": ""}
    words = ["python", "-m", "lab", "train", config["method"]]
    for name, value in config.items():
        if value != default[name] or name == "seed":
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [option, number_text(value)]
    return shlex.join([*words, "--out", out])


CANNOT_SHOW = (
    "The embedded model has a third of a million parameters and a vocabulary of 20 tokens, and its"
    " task has one right answer that a rule can check. What you see is the method's own behaviour,"
    " at a size at which every number can be exact: it is no evidence on how a method ranks on a"
    " large model, on open-ended text, or with human preferences. One run is one seed: start"
    " several before you believe a difference. Scratchpads grow because the base model already"
    " writes some and they pay; nothing here invents thinking from nothing."
)
