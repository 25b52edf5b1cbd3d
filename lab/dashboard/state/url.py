"""The form for a new run in the page's address: method=dpo&beta=0.5 fills it, and what is set on it
stands there.
"""

import re
from collections.abc import Mapping
from typing import Any

import streamlit as st

from lab.config.json_format import OLD_NAMES, to_dict
from lab.config.methods import METHODS, make_config
from lab.config.schema import declared_settings
from lab.config.sweep import sweepable
from lab.errors import LabError

FIRST_METHOD = "grpo"
MOST_SEEDS = 8
_SEEN = "form in the address"


def addressed(method: str) -> list[str]:
    """The knobs that an address may set: numbers and choices. A text could name a file or a model,
    so it is typed on the page or not at all.
    """
    settings = declared_settings(METHODS[method].config)
    return [name for name, own in settings.items() if own.kind is not str or own.choices]


def parameters() -> set[str]:
    """The names that the form has in an address, the earlier names of settings among them."""
    return {
        "method",
        "seeds",
        "sweep",
        "values",
        *(name for method in METHODS for name in addressed(method)),
        *OLD_NAMES,
    }


def accepted(method: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """The knobs of `method` that an address asks for, each as far as the knob takes the value;
    anything else is ignored.
    """
    settings, values = declared_settings(METHODS[method].config), {}
    texts = {OLD_NAMES.get(name, name): text for name, text in asked.items()}
    for name in addressed(method):
        try:
            value = settings[name].parse(texts[name])
        except (KeyError, LabError):
            continue
        if settings[name].offers(value):
            values[name] = value
    return values


def fill(method: str, knobs: Mapping[str, Any]) -> None:
    """Set the form to one run of `method` with these knobs, every other knob at its default."""
    st.session_state["method"], st.session_state["seeds"], st.session_state["sweep"] = (
        method,
        1,
        None,
    )
    for name, own in declared_settings(METHODS[method].config).items():
        st.session_state[f"{method}.{name}"] = knobs.get(name, own.default)


def read_form() -> None:
    """Fill the form from the address when it has changed from outside, and open it."""
    asked = {name: st.query_params[name] for name in parameters() if name in st.query_params}
    if asked == st.session_state.get(_SEEN, {}):
        return
    st.session_state[_SEEN] = asked
    if asked.get("method") in METHODS:
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
        settings = declared_settings(METHODS[config["method"]].config)
        wanted = {
            name: settings[name].text(config[name])
            for name in addressed(config["method"])
            if config[name] != default[name]
        }
        wanted |= ({"seeds": str(seeds)} if seeds > 1 else {}) | (
            {"sweep": knob, "values": values} if knob else {}
        )
        if wanted or config["method"] != FIRST_METHOD or "method" in st.query_params:
            wanted["method"] = config["method"]
    for name in parameters():
        if name in st.query_params and name not in wanted:
            del st.query_params[name]
    for name, text in wanted.items():
        if st.query_params.get(name) != text:
            st.query_params[name] = text
    st.session_state[_SEEN] = wanted
