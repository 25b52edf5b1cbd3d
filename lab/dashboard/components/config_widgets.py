"""Widgets for the knobs of a run. `lab.config.methods` declares every knob."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from lab.config.methods import METHODS
from lab.config.number_text import number_text
from lab.config.schema import Setting, declared_settings
from lab.tasks.registry import TASKS

MAIN_KNOBS = ("beta", "group_size", "learning_rate", "steps")
DECADES = 1.5  # of a slider on either side of its default
FINE_STEPS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
BETA_OF_PAPER = 0.04  # of GRPO, whose default is 0: the middle of a range without a default above 0
NO_CHOICE_LABEL = "none"  # an optional knob that is left out
EMPTY_CHOICE_LABELS = {
    "task": "from the data"
}  # the task chain, or held-out rows of the user's data
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


def fine_ladder(middle: float, low: float, high: float) -> list[float]:
    """Ten numbers a decade, from 1.5 decades below `middle` to 1.5 above, within `low` and `high`."""
    factor = 10**DECADES
    numbers = {float(f"{m}e{e}") for e in range(-12, 7) for m in FINE_STEPS}
    start, end = max(low, middle / factor), min(high, middle * factor)
    return sorted(number for number in numbers if start <= number <= end)


def near_values(field: Setting, default: float) -> list[float]:
    """The values of a knob's slider around its default: 1.5 decades on either side, and the default."""
    middle = default or BETA_OF_PAPER
    return sorted({default, *fine_ladder(middle, float(field.low or 0), float(field.high or 0))})


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
    field: Setting,
    default: Any,
    values: Sequence[Any],
    batch_size: int | None,
    full_range: bool = False,
) -> list[Any] | None:
    """The options of a knob's slider, which include `values`: those around `default`, or with
    `full_range` all; None if the knob has no slider.
    """
    if field.name == "group_size" and batch_size:
        return divisors(batch_size)
    if not field.log or field.low is None or field.high is None:
        return None
    near = near_values(field, default)
    return sorted({*near, *values, *(ladder(field.low, field.high) if full_range else ())})


def knob_slider(label: str, options: Sequence[Any], value: Any, default: Any, **shared: Any) -> Any:
    """Show a slider of a knob whose track has a mark at `default`, and return its value."""
    picked = st.select_slider(
        label,
        options,
        value,
        format_func=lambda option: number_text(option) + " (default)" * (option == default),
        **shared,
    )
    if default in options and len(options) > 1:
        share = list(options).index(default) / (len(options) - 1)
        edge = "left" if share < 0.25 else "right" if share > 0.75 else "middle"
        st.html(
            f'<div class="lab-default-mark lab-{edge}" aria-hidden="true" style="--at: {share:.4f}">'
            f"<span>default {number_text(default)}</span></div>{MARK_STYLE}"
        )
    return picked


MARK_STYLE = """<style>
.lab-default-mark { position: relative; height: 1.1rem; margin: -1rem 0.45rem 0; font-size: 0.8rem; }
.lab-default-mark::before { content: ""; position: absolute; left: calc(100% * var(--at) - 1px);
  top: -0.75rem; width: 2px; height: 0.8rem; background: currentColor; }
.lab-default-mark span { position: absolute; left: calc(100% * var(--at)); white-space: nowrap;
  transform: translateX(-50%); }
.lab-default-mark.lab-left span { transform: translateX(-0.4rem); }
.lab-default-mark.lab-right span { transform: translateX(calc(0.4rem - 100%)); }
</style>"""


def full_range_toggle(key: str) -> bool:
    """Show the toggle between sliders around the defaults and sliders over all values."""
    return st.toggle(
        "Full range",
        key=key,
        persist_state="page",
        help="Sliders reach 1.5 powers of ten on either side of the default; with this they reach"
        " every value that a setting accepts.",
    )


def task_rewards(task: str, rewards: Sequence[str]) -> list[str]:
    """Those of `rewards` that a task can be trained with."""
    return [reward for reward in rewards if reward == "answer" or reward in TASKS[task].rewards]


def knob_widget(
    method: str, field: Setting, batch_size: int | None = None, full_range: bool = False
) -> Any:
    """Show a widget for one knob and return its value. It starts at the knob's default and keeps its
    value while the page is open.
    """
    key = f"{method}.{field.name}"
    default: Any = field.default
    value = st.session_state.get(key, default)
    shared: dict[str, Any] = {"key": key, "help": field.help, "persist_state": "page"}
    value_type = field.kind
    options = slider_options(field, default, [default, value], batch_size, full_range)
    if options:
        if value not in options:
            st.session_state[key] = nearest(options, value)
        start = nearest(options, default)
        return knob_slider(knob_label(field.name), options, start, start, **shared)
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
                NO_CHOICE_LABEL
                if choice is None
                else choice or EMPTY_CHOICE_LABELS.get(field.name, NO_CHOICE_LABEL)
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
