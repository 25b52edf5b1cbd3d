"""The form for a new run in the page's address: method=dpo&beta=0.5 fills it, and what is set on it
stands there.
"""

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

import streamlit as st

from lab.config.methods import CONFIGS, make_config, to_dict
from lab.config.sweep import sweepable

FIRST_METHOD = "grpo"
MOST_SEEDS = 8
_SEEN = "form in the address"


def addressed(method: str) -> list[str]:
    """The knobs that an address may set: numbers and choices. A text could name a file or a model,
    so it is typed on the page or not at all.
    """
    kinds = get_type_hints(CONFIGS[method])
    return [
        f.name for f in fields(CONFIGS[method]) if kinds[f.name] is not str or f.metadata["choices"]
    ]


NAMES = {
    "method",
    "seeds",
    "sweep",
    "values",
    *(name for method in CONFIGS for name in addressed(method)),
}


def accepted(method: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """The knobs of `method` that an address asks for, each as far as the knob takes the value;
    anything else is ignored.
    """
    declared, kinds, found = (
        {f.name: f.metadata for f in fields(CONFIGS[method])},
        get_type_hints(CONFIGS[method]),
        {},
    )
    for name in addressed(method):
        try:
            value = kinds[name](asked[name])
        except (KeyError, ValueError):
            continue
        choices, low, high = (declared[name][word] for word in ("choices", "low", "high"))
        if value in choices if choices else low <= value <= high:  # False for nan as well.
            found[name] = value
    return found


def fill(method: str, knobs: Mapping[str, Any]) -> None:
    """Set the form to one run of `method` with these knobs, every other knob at its default."""
    st.session_state["method"], st.session_state["seeds"], st.session_state["sweep"] = (
        method,
        1,
        None,
    )
    for field in fields(CONFIGS[method]):
        st.session_state[f"{method}.{field.name}"] = knobs.get(field.name, field.default)


def read_form() -> None:
    """Fill the form from the address when it has changed from outside, and open it."""
    asked = {name: st.query_params[name] for name in NAMES if name in st.query_params}
    if asked == st.session_state.get(_SEEN, {}):
        return
    st.session_state[_SEEN] = asked
    if asked.get("method") in CONFIGS:
        fill(asked["method"], accepted(asked["method"], asked))
        st.session_state["setup"] = True
        if asked.get("seeds", "") in map(str, range(2, MOST_SEEDS + 1)):
            st.session_state["seeds"] = int(asked["seeds"])
        if asked.get("sweep") in sweepable(asked["method"]):
            st.session_state["sweep"] = asked["sweep"]
            if re.fullmatch(r"[0-9., e+-]{1,200}", asked.get("values", "")):
                st.session_state[f"values of {asked['sweep']}"] = asked["values"]


def write_form(
    config: Mapping[str, Any] | None, seeds: int = 1, knob: str | None = None, values: str = ""
) -> None:
    """Put the form into the address, as far as it differs from the defaults; None, for a form that
    is closed, takes it out.
    """
    wanted: dict[str, str] = {}
    if config is not None:
        default = to_dict(make_config(config["method"]))
        wanted = {
            name: str(config[name])
            for name in addressed(config["method"])
            if config[name] != default[name]
        }
        wanted |= ({"seeds": str(seeds)} if seeds > 1 else {}) | (
            {"sweep": knob, "values": values} if knob else {}
        )
        if wanted or config["method"] != FIRST_METHOD or "method" in st.query_params:
            wanted["method"] = config["method"]
    for name in NAMES:
        if name in st.query_params and name not in wanted:
            del st.query_params[name]
    for name, text in wanted.items():
        if st.query_params.get(name) != text:
            st.query_params[name] = text
    st.session_state[_SEEN] = wanted
