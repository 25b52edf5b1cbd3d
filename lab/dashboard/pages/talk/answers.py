"""The answers of a policy and its reference: recorded ones, or sampled now."""

import json
from typing import Any

import streamlit as st

from lab.dashboard.state.inference_client import inference_worker
from lab.dashboard.state.shipped_runs import SHIPPED_RUNS_FOLDER as RECORDED
from lab.runs.summary import Summary

NUM_DRAWS = 32


@st.cache_data(show_spinner=False)
def recorded_answers() -> dict[str, Any]:
    """What the recorded GRPO run said when it was recorded, with its command, device and versions."""
    return json.loads((RECORDED / "grpo" / "talk.json").read_text("utf-8"))


def answer_pair(
    run: Summary, prompt: str, seed: int, temperature: float
) -> tuple[dict[str, Any], bool]:
    """What the two say, and whether it was sampled now: the recorded run's recorded answers need no
    model.
    """
    if run.path.parent == RECORDED and run.name == "grpo":
        for said in recorded_answers()["answers"]:
            if (said["prompt"], said["temperature"]) == (prompt, temperature) and (
                said["seed"] == seed or not temperature
            ):
                return said, False
    made = (run.path / "adapter" / "adapter_config.json").stat().st_mtime_ns
    return sample_answer(str(run.path.resolve()), made, prompt, seed, temperature), True


@st.cache_data(show_spinner="The model is loading, or answering …", max_entries=500)
def sample_answer(
    path: str, made: int, prompt: str, seed: int, temperature: float
) -> dict[str, Any]:
    """The answer of the worker, kept; `made` tells an adapter from a later one of the same run."""
    return inference_worker().ask(
        {
            "run": path,
            "prompt": prompt,
            "seed": seed,
            "temperature": temperature,
            "draws": NUM_DRAWS,
        }
    )
