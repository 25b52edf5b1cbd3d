"""The answers of a policy and its reference: recorded ones, or sampled now."""

import json
from typing import Any

import streamlit as st

from lab.dashboard.state.inference_client import inference_worker
from lab.dashboard.state.shipped_runs import SHIPPED_RUNS_FOLDER
from lab.runs.summary import Summary
from lab.storage.policy_folder import policy_config_file

NUM_DRAWS = 32


@st.cache_data(show_spinner=False)
def recorded_answers() -> dict[str, Any]:
    """The recorded answers of the shipped GRPO run, with their command, device and versions."""
    return json.loads((SHIPPED_RUNS_FOLDER / "grpo" / "talk.json").read_text("utf-8"))


def answer_pair(
    run: Summary, prompt: str, seed: int, temperature: float
) -> tuple[dict[str, Any], bool]:
    """The answers of reference and policy to a prompt, and whether they were sampled now. Answers of
    the shipped GRPO run that are recorded are not sampled.
    """
    if run.path.parent == SHIPPED_RUNS_FOLDER and run.name == "grpo":
        for answers in recorded_answers()["answers"]:
            if (answers["prompt"], answers["temperature"]) == (prompt, temperature) and (
                answers["seed"] == seed or not temperature
            ):
                return answers, False
    trained = policy_config_file(run.path) or run.path / "config.json"
    modified_ns = trained.stat().st_mtime_ns
    return sample_answer(str(run.path.resolve()), modified_ns, prompt, seed, temperature), True


@st.cache_data(show_spinner="The model loads or answers …", max_entries=500)
def sample_answer(
    path: str, modified_ns: int, prompt: str, seed: int, temperature: float
) -> dict[str, Any]:
    """The answers that the inference worker samples; cached. `modified_ns` tells an adapter from a later
    adapter of the same run.
    """
    return inference_worker().ask(
        {
            "run": path,
            "prompt": prompt,
            "seed": seed,
            "temperature": temperature,
            "draws": NUM_DRAWS,
        }
    )
