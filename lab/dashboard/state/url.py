"""The form for a new run in the URL: ?method=dpo&beta=0.5 fills the form, and a change of the form
changes the URL.
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

DEFAULT_METHOD = "grpo"
MAX_SEEDS_IN_FORM = 8
_FORM_IN_URL = "form in the URL"  # session key of the parameters that were read or written last


def url_knobs(method: str) -> list[str]:
    """The knobs that a URL may set: numbers and choices. A free text could name a file or a model,
    so it must be typed on the page.
    """
    settings = declared_settings(METHODS[method].config)
    return [name for name, own in settings.items() if own.kind is not str or own.choices]


def url_parameters() -> set[str]:
    """The names that the form has in a URL, the earlier names of knobs among them."""
    knobs = (name for method in METHODS for name in url_knobs(method))
    return {"method", "seeds", "sweep", "values", *knobs, *OLD_NAMES}


def knobs_from_url(method: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """The knobs of `method` in the URL's parameters; a value that its knob does not accept is
    ignored.
    """
    settings = declared_settings(METHODS[method].config)
    texts = {OLD_NAMES.get(name, name): text for name, text in parameters.items()}
    knobs = {}
    for name in url_knobs(method):
        try:
            value = settings[name].parse(texts[name])
        except (KeyError, LabError):
            continue
        if settings[name].offers(value):
            knobs[name] = value
    return knobs


def fill_form(method: str, knobs: Mapping[str, Any]) -> None:
    """Set the form to one run of `method` with these knobs and all other knobs at their defaults."""
    st.session_state["method"] = method
    st.session_state["seeds"] = 1
    st.session_state["sweep"] = None
    for name, own in declared_settings(METHODS[method].config).items():
        st.session_state[f"{method}.{name}"] = knobs.get(name, own.default)


def read_form() -> None:
    """If the URL was changed outside of the form, fill the form from it and open the form."""
    parameters = {
        name: st.query_params[name] for name in url_parameters() if name in st.query_params
    }
    if parameters == st.session_state.get(_FORM_IN_URL, {}):
        return
    st.session_state[_FORM_IN_URL] = parameters
    if parameters.get("method") in METHODS:
        fill_form(parameters["method"], knobs_from_url(parameters["method"], parameters))
        st.session_state["setup"] = True
        if parameters.get("seeds", "") in map(str, range(2, MAX_SEEDS_IN_FORM + 1)):
            st.session_state["seeds"] = int(parameters["seeds"])
        if parameters.get("sweep") in sweepable(parameters["method"]):
            st.session_state["sweep"] = parameters["sweep"]
            if re.fullmatch(r"[0-9., e+-]{1,200}", parameters.get("values", "")):
                st.session_state[f"values of {parameters['sweep']}"] = parameters["values"]


def write_form(
    config: Mapping[str, Any] | None, seeds: int = 1, knob: str | None = None, values: str = ""
) -> None:
    """Write the form into the URL as far as it differs from the defaults. A `config` of None, for a
    closed form, removes it from the URL.
    """
    parameters: dict[str, str] = {}
    if config is not None:
        default = to_dict(make_config(config["method"]))
        settings = declared_settings(METHODS[config["method"]].config)
        parameters = {
            name: settings[name].text(config[name])
            for name in url_knobs(config["method"])
            if config[name] != default[name]
        }
        parameters |= ({"seeds": str(seeds)} if seeds > 1 else {}) | (
            {"sweep": knob, "values": values} if knob else {}
        )
        if parameters or config["method"] != DEFAULT_METHOD or "method" in st.query_params:
            parameters["method"] = config["method"]
    for name in url_parameters():
        if name in st.query_params and name not in parameters:
            del st.query_params[name]
    for name, text in parameters.items():
        if st.query_params.get(name) != text:
            st.query_params[name] = text
    st.session_state[_FORM_IN_URL] = parameters
