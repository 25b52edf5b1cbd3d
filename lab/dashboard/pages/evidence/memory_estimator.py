"""Section of page Choose: an estimate whether an update of a large model fits on a graphics card."""

import json
import sys
from collections.abc import Mapping
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lab.analysis.recorded_results import recorded_result
from lab.config.methods import estimated_methods
from lab.dashboard.components.layout import escape_markdown, figure, url_choice
from lab.dashboard.state import visitor_processes
from lab.errors import LabError
from lab.figures.memory import BAR_STYLES, GIB, KIND_TITLES, memory_figure
from lab.figures.palette import METHOD_NAMES

MODEL_SIZES = ("135m", "360m", "1.2b", "7b", "70b")
CARD_SIZES_GB = (24, 40, 80)
NUMBER_FIELDS: dict[str, tuple[str, tuple[int, ...], int]] = {
    "batch_size": ("batch size (pairs or completions)", (1, 2, 4, 8, 16, 32, 64, 128), 8),
    "prompt_tokens": ("prompt length, tokens", (16, 64, 256, 1024), 256),
    "completion_tokens": ("completion length, tokens", (64, 256, 512, 1024, 2048), 512),
    "group_size": ("group size G (GRPO)", (2, 4, 8, 16, 32), 8),
}
"""By number field its label, its options and its default."""
ESTIMATE_TIMEOUT_SECONDS = 300  # the largest model takes about ten seconds of one core


def memory_estimator() -> None:
    """Show the form and, after a press of the button, the estimate; both are in the URL."""
    st.subheader("Does it fit on my graphics card?", anchor=False)
    arguments = estimate_form()
    is_requested = url_choice("estimate", ("no", "yes"), "no")
    if st.button(
        "Estimate",
        type="primary",
        key="estimate-button",
        help="Runs the lab's own update with tensors that have a shape but no content. It takes about 10 s.",
    ):
        st.session_state["estimate"] = st.query_params["estimate"] = is_requested = "yes"
    st.caption(f"This is an estimate, not a measurement. {accuracy_sentence()}")
    if is_requested == "yes":
        estimate = run_estimate(tuple(sorted(arguments.items())))
        if "error" in estimate:
            st.warning(escape_markdown(estimate["error"]))
        else:
            show_estimate(estimate)


def estimate_form() -> dict[str, str]:
    """Show the form; returns the values of its fields by name."""

    def choice_field(
        column: DeltaGenerator,
        name: str,
        label: str,
        options: tuple[str, ...],
        start: str,
        labels: Mapping[str, str] | None = None,
    ) -> str:
        url_choice(name, options, start)
        return column.selectbox(
            label, options, key=name, format_func=labels.__getitem__ if labels else str
        )

    a, b, c, d = st.columns(4)
    values = {
        "model": choice_field(a, "model", "model", MODEL_SIZES, "7b"),
        "method": choice_field(b, "estimated", "method", estimated_methods(), "grpo", METHOD_NAMES),
        "weights": choice_field(
            c,
            "weights",
            "trains",
            ("lora", "full"),
            "lora",
            {"lora": "LoRA, rank 16", "full": "every weight"},
        ),
        "activations": choice_field(
            d, "activations", "activations", ("recomputed", "kept"), "recomputed"
        ),
    }
    for column, (name, (label, options, start)) in zip(st.columns(4), NUMBER_FIELDS.items()):
        values[name] = choice_field(column, name, label, tuple(map(str, options)), str(start))
    return values


def estimate_command(arguments: dict[str, str]) -> list[str]:
    """The arguments of `python` that make the estimate. `arguments`: the values of the form."""
    command = [
        "-m",
        "lab",
        "estimate",
        "--json",
        "--model",
        arguments["model"],
        "--method",
        arguments["method"],
    ]
    for name in NUMBER_FIELDS:
        command += [f"--{name.replace('_', '-')}", arguments[name]]
    return (
        command
        + ["--full"] * (arguments["weights"] == "full")
        + ["--checkpointing"] * (arguments["activations"] == "recomputed")
    )


def run_estimate(arguments: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """The estimate of `python -m lab estimate --json`, or {"error": message}. It runs in a separate
    process, so that this process does not import torch.
    """
    command = estimate_command(dict(arguments))
    try:
        process = visitor_processes.run_for_visitor(
            tuple(command),
            [sys.executable, *command],
            ESTIMATE_TIMEOUT_SECONDS,
            "The estimate runs …",
        )
    except LabError as error:
        return {"error": str(error)}
    return (
        json.loads(process.stdout)
        if process.returncode == 0
        else {"error": process.stderr.strip()[-500:] or "The estimate failed without a message."}
    )


def show_estimate(estimate: dict[str, Any]) -> None:
    """Show the estimate in words, and the memory by kind of tensor as stacked bars."""
    import pandas as pd

    text = estimate_sentence(estimate)
    st.markdown(text)
    table = pd.DataFrame(
        [
            {"moment": moment}
            | {
                f"{KIND_TITLES.get(kind, kind)}, GiB": round(kinds.get(kind, 0) / GIB, 2)
                for kind in BAR_STYLES
            }
            for moment, kinds in estimate["memory"].items()
        ]
    )
    figure(
        memory_figure(estimate["memory"], estimate["method"], CARD_SIZES_GB),
        "estimated-memory",
        f"Estimated memory by kind of tensor, at each moment of an update. {text}",
        table,
    )


def estimate_sentence(estimate: dict[str, Any]) -> str:
    """The peak memory and the smallest card that has room for it, in words. A card's GB count as
    GiB, and a tenth is left free for memory that no estimate covers.
    """
    peak = estimate["peak"] / GIB
    size = (
        f"{estimate['parameters'] / 1e9:.2g} billion weights"
        if estimate["parameters"] >= 1e9
        else f"{estimate['parameters'] / 1e6:.0f} million weights"
    )
    large_enough = [card for card in CARD_SIZES_GB if peak < 0.9 * card]
    verdict = (
        f"It fits on a card of {large_enough[0]} GB"
        if large_enough
        else f"It does not fit on one card of {CARD_SIZES_GB[-1]} GB"
    )
    too_small = (
        f", not on one of {max(c for c in CARD_SIZES_GB if c < large_enough[0])} GB"
        if large_enough and large_enough[0] > CARD_SIZES_GB[0]
        else ""
    )
    return (
        f"**Estimated peak memory: {peak:.1f} GiB.** {verdict}{too_small}."
        f" {METHOD_NAMES[estimate['method']]} has {size} and trains"
        f" {estimate['trainable'] / 1e6:,.0f} million of them. The algorithm has these models:"
        f" {', '.join(estimate['models'])}."
    )


def accuracy_sentence() -> str:
    """The recorded errors of estimates against measurements; says so if none are recorded."""
    sentences = []
    for table in filter(None, map(recorded_result, ("resources", "resources-h100"))):
        rows = sorted(table["rows"], key=lambda row: abs(row["error"]))
        # The parameters of PPO also count critic and reward model.
        largest = max(row["parameters"] for row in rows if not row["arm"].startswith("ppo")) / 1e6
        worst, others = rows[-1], rows[:-1]
        sentences.append(
            f"It was compared with measurements for {len(rows)} combinations of model and method, up"
            f" to {largest:,.0f} million weights. The largest error is {abs(worst['error']):.0%}, for"
            f" {METHOD_NAMES[worst['method']]} on the model {worst['size']}; all others are at most"
            f" {abs(others[-1]['error']):.0%} (`{table['command']}` on"
            f" {table['device']}).".replace("%", " %")
        )
    if sentences:
        sentences.append(
            "The estimate assumes that completions share only their prompt. The completions of the"
            " embedded model often begin alike; a CPU then needs less memory than estimated."
        )
    return " ".join(sentences) or "A comparison with measurements is not recorded yet."
