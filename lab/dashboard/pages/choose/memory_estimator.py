"""The estimator of page Choose a method: does an update of a model that is not here fit on a card?
Always an estimate, and said to be one.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from lab.analysis.recorded_results import recorded_result
from lab.config.methods import METHODS
from lab.dashboard.components.layout import figure, in_url, plain
from lab.dashboard.state import visitor_processes
from lab.errors import LabError
from lab.figures.memory import GIB, KINDS, WORDS, split
from lab.figures.palette import METHOD_NAMES

SIZES = ("135m", "360m", "1.2b", "7b", "70b")
CARDS = (24, 40, 80)
NUMBERS: dict[str, tuple[str, tuple[int, ...], int]] = {
    "batch_size": ("batch: pairs, examples or completions", (1, 2, 4, 8, 16, 32, 64, 128), 8),
    "prompt_tokens": ("prompt, tokens", (16, 64, 256, 1024), 256),
    "completion_tokens": ("completion, tokens", (64, 256, 512, 1024, 2048), 512),
    "group_size": ("G of GRPO", (2, 4, 8, 16, 32), 8),
}
"""Per number of the form its label, what it can be, and where it starts."""
SECONDS = 300  # An estimate of the largest model takes some ten seconds of one core.


def estimator() -> None:
    """The form, and the estimate once it has been asked for; all of it is in the URL."""
    st.subheader("Does it fit on my card?", anchor=False)
    arguments = form()
    asked = in_url("estimate", ("no", "yes"), "no")
    if st.button(
        "Estimate",
        type="primary",
        key="estimate-button",
        help="Runs the lab's own update on tensors that have shapes but no content; some 10 s.",
    ):
        st.session_state["estimate"] = st.query_params["estimate"] = asked = "yes"
    st.caption(f"An estimate, not a measurement. {checked()}")
    if asked == "yes":
        found = estimate(tuple(sorted(arguments.items())))
        if "error" in found:
            st.warning(plain(found["error"]))
        else:
            show(found)


def methods() -> tuple[str, ...]:
    """The methods that the estimator knows."""
    return tuple(spec.name for spec in METHODS.values() if spec.estimated)


def form() -> dict[str, str]:
    """The widgets; returns the arguments of `python -m lab estimate`."""

    def picked(
        place: Any,
        name: str,
        label: str,
        options: tuple[str, ...],
        start: str,
        words: Mapping[str, str] | None = None,
    ) -> str:
        in_url(name, options, start)
        return place.selectbox(
            label, options, key=name, format_func=(words or {}).get if words else str
        )

    a, b, c, d = st.columns(4)
    found = {
        "model": picked(a, "model", "model", SIZES, "7b"),
        "method": picked(b, "estimated", "method", methods(), "grpo", METHOD_NAMES),
        "weights": picked(
            c,
            "weights",
            "trains",
            ("lora", "full"),
            "lora",
            {"lora": "LoRA, rank 16", "full": "every weight"},
        ),
        "activations": picked(
            d, "activations", "activations", ("recomputed", "kept"), "recomputed"
        ),
    }
    for place, (name, (label, options, start)) in zip(st.columns(4), NUMBERS.items()):
        found[name] = picked(place, name, label, tuple(map(str, options)), str(start))
    return found


def command(arguments: dict[str, str]) -> list[str]:
    """The words of the command line after `python`."""
    words = [
        "-m",
        "lab",
        "estimate",
        "--json",
        "--model",
        arguments["model"],
        "--method",
        arguments["method"],
    ]
    for name in NUMBERS:
        words += [f"--{name.replace('_', '-')}", arguments[name]]
    return (
        words
        + ["--full"] * (arguments["weights"] == "full")
        + ["--checkpointing"] * (arguments["activations"] == "recomputed")
    )


def estimate(arguments: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """The estimate as the command line prints it, or {"error": what went wrong}; torch stays out of
    this process.
    """
    words = command(dict(arguments))
    try:
        done = visitor_processes.run(
            tuple(words), [sys.executable, *words], SECONDS, "Estimating, in a process of its own …"
        )
    except LabError as error:
        return {"error": str(error)}
    return (
        json.loads(done.stdout)
        if done.returncode == 0
        else {"error": done.stderr.strip()[-500:] or "The estimate failed without a word."}
    )


def show(found: dict[str, Any]) -> None:
    """The answer in words, and what memory holds as stacked bars."""
    text = fits(found)
    st.markdown(text)
    frame = pd.DataFrame(
        [
            {"moment": moment}
            | {
                f"{WORDS.get(kind, kind)}, GiB": round(kinds.get(kind, 0) / GIB, 2)
                for kind in KINDS
            }
            for moment, kinds in found["memory"].items()
        ]
    )
    figure(
        split(found["memory"], found["method"], CARDS),
        "estimated-memory",
        f"Estimated memory by what it holds, at each moment of an update. {text}",
        frame,
    )


def fits(found: dict[str, Any]) -> str:
    """On which cards it fits, in words; a card's GB are counted as GiB, and a tenth is left for
    what no estimate sees.
    """
    peak = found["peak"] / GIB
    size = (
        f"{found['parameters'] / 1e9:.2g} billion weights"
        if found["parameters"] >= 1e9
        else f"{found['parameters'] / 1e6:.0f} million weights"
    )
    enough = [card for card in CARDS if peak < 0.9 * card]
    verdict = (
        f"It fits on a card of {enough[0]} GB"
        if enough
        else f"It does not fit on one card of {CARDS[-1]} GB"
    )
    also = (
        f", not on one of {max(c for c in CARDS if c < enough[0])} GB"
        if enough and enough[0] > CARDS[0]
        else ""
    )
    return (
        f"**An estimate: {peak:.1f} GiB at the peak.** {verdict}{also}."
        f" {METHOD_NAMES[found['method']]} on {size}, of which {found['trainable'] / 1e6:,.0f}"
        f" million train; models in the algorithm: {', '.join(found['models'])}."
    )


def checked() -> str:
    """How far estimates were from what was measured, where both were recorded."""
    said = []
    for table in filter(None, map(recorded_result, ("resources", "resources-h100"))):
        rows = sorted(table["rows"], key=lambda row: abs(row["error"]))
        largest = (
            max(row["parameters"] for row in rows if not row["arm"].startswith("ppo")) / 1e6
        )  # PPO's also count critic and reward model
        last, others = rows[-1], rows[:-1]
        said.append(
            f"Checked against measurement on {len(rows)} pairs of model and method, up to"
            f" {largest:.1f} million weights: it was off by {abs(last['error']):.1%} for"
            f" {METHOD_NAMES[last['method']]} on {last['size']}, by at most"
            f" {abs(others[-1]['error']):.1%} for all others (`{table['command']}` on"
            f" {table['device']}).".replace("%", " %")
        )
    if said:
        said.append(
            "It supposes that completions share no more than their prompt; where they begin alike,"
            " as the embedded model's do, a CPU holds less."
        )
    return " ".join(said) or "Its check against measurement has not been recorded yet."
