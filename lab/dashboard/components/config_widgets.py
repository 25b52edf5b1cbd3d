"""Widgets for the knobs of a run. `lab.config.methods` declares every knob."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from lab.config.methods import METHODS
from lab.config.number_text import number_text
from lab.config.schema import Setting, declared_settings
from lab.tasks.registry import TASKS

MAIN_KNOBS = ("beta", "group_size", "learning_rate", "steps")
NO_CHOICE_LABEL = "none"  # an optional knob that is left out
EMPTY_CHOICE_LABEL = "from the data"  # the task chain, or held-out rows of the user's data
KNOB_LABELS = {
    "beta": "β",
    "group_size": "group size G",
    "learning_rate": "learning rate",
    "lora_rank": "LoRA rank",
    "lora_alpha": "LoRA alpha",
    "kl_estimator": "KL estimator",
    "epsilon": "ε",
    "epsilon_high": "ε high",
    "max_grad_norm": "max gradient norm",
    "gae_lambda": "λ of GAE",
    "ipo_variant": "IPO variant",
    "gamma": "γ, discount",
    "epsilon_value": "ε_V",
    "kl_target": "KL target",
    "critic_learning_rate": "critic learning rate",
    "reward_from": "rewards from",
    "desirable_weight": "λ_D, desirable weight",
    "undesirable_weight": "λ_U, undesirable weight",
}


def knob_label(name: str) -> str:
    """The name of a knob on the page."""
    return KNOB_LABELS.get(name, name.replace("_", " "))


def ladder(low: float, high: float, *extra: float) -> list[float]:
    """The numbers 1, 2 and 5 times a power of ten from `low` to `high`, 0 if `low` is 0, and the
    `extra` numbers; sorted.
    """
    start = -4 if low <= 0 else -12
    steps = {float(f"{m}e{e}") for e in range(start, 7) for m in (1, 2, 5)}
    return sorted(
        {s for s in steps if low <= s <= high}
        | ({0.0} if low <= 0 else set())
        | {float(number) for number in extra}
    )


def divisors(batch_size: int) -> list[int]:
    """The group sizes that divide a batch: every divisor from 2 up."""
    return [size for size in range(2, batch_size + 1) if batch_size % size == 0]


def nearest(options: Sequence[float], value: float) -> float:
    """The option closest to `value`."""
    return min(options, key=lambda option: abs(option - value))


def knob_fields(method: str) -> dict[str, Setting]:
    """The knobs of a method by name; the main knobs come first."""
    knobs = declared_settings(METHODS[method].config)
    return {
        name: knobs[name]
        for name in sorted(
            knobs, key=lambda n: MAIN_KNOBS.index(n) if n in MAIN_KNOBS else len(MAIN_KNOBS)
        )
    }


def slider_options(
    field: Setting, values: Sequence[Any], batch_size: int | None
) -> list[Any] | None:
    """The options of a knob's slider, which include `values`; None if the knob has no slider."""
    if field.name == "group_size" and batch_size:
        return divisors(batch_size)
    if field.log and field.low is not None and field.high is not None:
        return ladder(field.low, field.high, *values)
    return None


def task_rewards(task: str, rewards: Sequence[str]) -> list[str]:
    """Those of `rewards` that a task can be trained with."""
    return [reward for reward in rewards if reward == "answer" or reward in TASKS[task].rewards]


def knob_widget(method: str, field: Setting, batch_size: int | None = None) -> Any:
    """Show a widget for one knob and return its value. It starts at the knob's default and keeps its
    value while the page is open.
    """
    key = f"{method}.{field.name}"
    default: Any = field.default
    value = st.session_state.get(key, default)
    shared: dict[str, Any] = {"key": key, "help": field.help, "persist_state": "page"}
    value_type = field.kind
    options = slider_options(field, [default, value], batch_size)
    if options:
        if value not in options:
            st.session_state[key] = nearest(options, value)
        return st.select_slider(
            knob_label(field.name),
            options,
            nearest(options, default),
            format_func=number_text,
            **shared,
        )
    if field.kind is bool:
        return st.toggle(knob_label(field.name), field.default, **shared)
    if field.choices:
        choices: list[str | None] = list(field.choices)
        if field.name == "reward":
            choices = list(
                task_rewards(st.session_state.get(f"{method}.task", "chain"), field.choices)
            )
        if field.optional:
            choices.insert(0, None)
        if value not in choices:
            st.session_state[key] = default
        return st.selectbox(
            knob_label(field.name),
            choices,
            choices.index(default),
            format_func=lambda choice: (
                NO_CHOICE_LABEL if choice is None else choice or EMPTY_CHOICE_LABEL
            ),
            **shared,
        )
    if value_type is str:
        return st.text_input(knob_label(field.name), default, **shared)
    return st.number_input(
        knob_label(field.name),
        value_type(field.low),
        value_type(field.high),
        default,
        step=1 if value_type is int else None,
        format="%d" if value_type is int else "%g",
        **shared,
    )
