"""Widgets for the knobs of a run, built from the one place where each knob is declared:
`lab.config.methods`.
"""

from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any, get_type_hints

import streamlit as st

from lab.config.methods import CONFIGS
from lab.figures.labels import short_number
from lab.tasks.registry import TASKS

MAIN_KNOBS = ("beta", "group_size", "learning_rate", "steps")
EMPTY_CHOICE_LABEL = (  # A choice that is no word: chain, or with own data a held-out part of it.
    "as the data says"
)
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
    "lam": "λ of GAE",
    "gamma": "γ, discount",
    "epsilon_value": "ε_V",
    "kl_target": "KL target",
    "critic_learning_rate": "critic learning rate",
    "reward_from": "rewards from",
    "desirable_weight": "λ_D, desirable weight",
    "undesirable_weight": "λ_U, undesirable weight",
}


def knob_label(name: str) -> str:
    """How a knob is called on the page."""
    return KNOB_LABELS.get(name, name.replace("_", " "))


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


def knob_fields(method: str) -> dict[str, Field]:
    """The knobs of a method, those first that the page is about."""
    knobs = {f.name: f for f in fields(CONFIGS[method])}
    return {
        name: knobs[name]
        for name in sorted(
            knobs, key=lambda n: MAIN_KNOBS.index(n) if n in MAIN_KNOBS else len(MAIN_KNOBS)
        )
    }


def slider_options(field: Field, values: Sequence[Any], batch_size: int | None) -> list[Any] | None:
    """What a slider over this knob offers, `values` among it; None when the knob is no slider."""
    if field.name == "group_size" and batch_size:
        return divisors(batch_size)
    if field.metadata["log"]:
        return ladder(field.metadata["low"], field.metadata["high"], *values)
    return None


def task_rewards(task: str, words: Sequence[str]) -> list[str]:
    """Those of `words` that a task takes as its reward."""
    return [word for word in words if word == "answer" or word in TASKS[task].rewards]


def knob_widget(method: str, field: Field, batch_size: int | None = None) -> Any:
    """One knob as a widget that starts at its default and keeps its value while the page is open;
    returns the value.
    """
    key, meta = f"{method}.{field.name}", field.metadata
    value = st.session_state.get(key, field.default)
    common: dict[str, Any] = {"key": key, "help": meta["help"], "persist_state": "page"}
    kind = get_type_hints(CONFIGS[method])[field.name]
    options = slider_options(field, [field.default, value], batch_size)
    if options:
        if value not in options:
            st.session_state[key] = nearest(options, value)
        return st.select_slider(
            knob_label(field.name),
            options,
            nearest(options, field.default),
            format_func=short_number,
            **common,
        )
    if meta["choices"]:
        words = (
            task_rewards(st.session_state.get(f"{method}.task", "chain"), meta["choices"])
            if field.name == "reward"
            else list(meta["choices"])
        )
        if value not in words:
            st.session_state[key] = field.default
        return st.selectbox(
            knob_label(field.name),
            words,
            words.index(field.default),
            format_func=lambda word: word or EMPTY_CHOICE_LABEL,
            **common,
        )
    if kind is str:
        return st.text_input(knob_label(field.name), field.default, **common)
    return st.number_input(
        knob_label(field.name),
        kind(meta["low"]),
        kind(meta["high"]),
        field.default,
        step=1 if kind is int else None,
        format="%d" if kind is int else "%g",
        **common,
    )
