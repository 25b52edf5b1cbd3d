"""Widgets for the settings of a run, built from their declaration in the config classes."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from lab.config.methods import METHODS
from lab.config.number_text import number_text
from lab.config.schema import Setting, declared_settings
from lab.tasks.registry import TASKS

FIRST = ("beta", "group_size", "learning_rate", "steps")
UNNAMED = (  # A choice that is no word: chain, or with own data a held-out part of it.
    "as the data says"
)
NONE = "none"  # An optional setting that is left out.
LABELS = {
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


def label(name: str) -> str:
    """How a knob is called on the page."""
    return LABELS.get(name, name.replace("_", " "))


def ladder(low: float, high: float, *also: float) -> list[float]:
    """The numbers 1, 2 and 5 times a power of ten from `low` to `high`, with 0 when low is 0, and
    any others given.
    """
    start = -4 if low <= 0 else -12
    steps = {float(f"{m}e{e}") for e in range(start, 7) for m in (1, 2, 5)}
    return sorted(
        {s for s in steps if low <= s <= high}
        | ({0.0} if low <= 0 else set())
        | {float(a) for a in also}
    )


def divisors(batch_size: int, *also: int) -> list[int]:
    """The group sizes that divide a batch: every divisor from 2 up."""
    return sorted({g for g in range(2, batch_size + 1) if batch_size % g == 0} | set(also))


def nearest(options: Sequence[float], value: float) -> float:
    """The option closest to `value`."""
    return min(options, key=lambda option: abs(option - value))


def declared(method: str) -> dict[str, Setting]:
    """The settings of a method, beginning with the settings that the page is about."""
    knobs = declared_settings(METHODS[method].config)
    return {
        name: knobs[name]
        for name in sorted(knobs, key=lambda n: FIRST.index(n) if n in FIRST else len(FIRST))
    }


def options_of(field: Setting, values: Sequence[Any], batch_size: int | None) -> list[Any] | None:
    """What a slider over this knob offers, `values` among it; None when the knob is no slider."""
    if field.name == "group_size" and batch_size:
        return divisors(batch_size)
    if field.log and field.low is not None and field.high is not None:
        return ladder(field.low, field.high, *values)
    return None


def rules_of(task: str, words: Sequence[str]) -> list[str]:
    """Those of `words` that a task takes as its reward."""
    return [word for word in words if word == "answer" or word in TASKS[task].rewards]


def knob_widget(method: str, field: Setting, batch_size: int | None = None) -> Any:
    """One knob as a widget that starts at its default and keeps its value while the page is open;
    returns the value.
    """
    key, kind = f"{method}.{field.name}", field.kind
    value = st.session_state.get(key, field.default)
    common: dict[str, Any] = {"key": key, "help": field.help, "persist_state": "page"}
    options = options_of(field, [field.default, value], batch_size)
    if options:
        if value not in options:
            st.session_state[key] = nearest(options, value)
        return st.select_slider(
            label(field.name),
            options,
            nearest(options, field.default),
            format_func=number_text,
            **common,
        )
    if field.kind is bool:
        return st.toggle(label(field.name), field.default, **common)
    if field.choices:
        words: list[str | None] = list(
            rules_of(st.session_state.get(f"{method}.task", "chain"), field.choices)
            if field.name == "reward"
            else field.choices
        )
        if field.optional:
            words.insert(0, None)
        if value not in words:
            st.session_state[key] = field.default
        return st.selectbox(
            label(field.name),
            words,
            words.index(field.default),
            format_func=lambda word: NONE if word is None else word or UNNAMED,
            **common,
        )
    if kind is str:
        return st.text_input(label(field.name), field.default, **common)
    return st.number_input(
        label(field.name),
        kind(field.low),
        kind(field.high),
        field.default,
        step=1 if kind is int else None,
        format="%d" if kind is int else "%g",
        **common,
    )
