"""The source of the groups on page GRPO: a recorded pool of completions, the article's example, or
a group of a run.
"""

from dataclasses import dataclass
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lab.analysis.recorded_results import load_result
from lab.dashboard.state.run_cache import RunRecord, run_record
from lab.runs.catalogue import list_runs, newest_first
from lab.tasks.base import Problem
from lab.tasks.registry import TASKS

SLIDER_GROUP_SIZES = (2, 4, 8, 16, 32)
OWN_PROMPT = "the base model now, for your prompt"
ARTICLE_SOURCE, RUN_PREFIX = "the article's example", "run "
REWARD_LABELS = {
    "answer": "right answer",
    "length": "length",
    "graded": "graded",
    "format": "well-formed",
    "random": "random",
    "constant": "always 1",
}
MAX_NUMBER_IN_URL = 999_999  # of a draw or of an update
MAX_SEARCHED_RUNS = 20  # only the newest runs are searched for groups


@dataclass(frozen=True)
class GroupSource:
    """Completions of one prompt in the order in which they were drawn; the first G are a group.

    source: where the completions come from, as text
    population: whether advantages are divided by the population's std instead of the unbiased one
    tokens: rows of the pool with log-probabilities per token; empty for other sources
    other_rewards: rewards of the same draw for the policy's other prompts
    """

    prompt: str
    texts: tuple[str, ...]
    rewards: tuple[float, ...]
    source: str
    population: bool = False
    tokens: tuple[dict[str, Any], ...] = ()
    other_rewards: tuple[tuple[float, ...], ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """The group sizes up to the number of completions."""
        return tuple(size for size in SLIDER_GROUP_SIZES if size <= len(self.texts))


@st.cache_resource(show_spinner=False)
def completion_pool() -> dict[str, Any]:
    """The recorded pool of completions. Shared by all sessions; do not change it."""
    return load_result("pool")


@st.cache_resource(show_spinner=False, max_entries=30)
def pool_rewards(policy: str, rule: str) -> list[list[float]]:
    """The rewards of a policy's completions in the pool by one of the task's rules: a list per
    prompt, a number per completion.
    """
    row = next(row for row in completion_pool()["rows"] if row["policy"] == policy)
    return [
        TASKS["chain"].rewards[rule](
            [Problem(prompt, answer)] * len(completions), [c["text"] for c in completions], seed=0
        )
        for prompt, answer, completions in zip(row["prompts"], row["answers"], row["completions"])
    ]


def pick_group_source() -> GroupSource | None:
    """Show the controls for policy, prompt and reward rule, and return the picked completions; None for
    the visitor's own prompt. The button Resample draws other completions from the pool.
    """
    rows, runs = {row["policy"]: row for row in completion_pool()["rows"]}, runs_with_groups()
    controls = st.container(horizontal=True, vertical_alignment="bottom", key="drawn")
    policy = controls.selectbox(
        "Completions written by",
        [OWN_PROMPT, *rows, ARTICLE_SOURCE, *(RUN_PREFIX + name for name in runs)],
        key="from",
        bind="query-params",
    )
    if policy == OWN_PROMPT:
        return None
    if policy == ARTICLE_SOURCE:
        return article_group()
    if policy not in rows:
        return from_run(runs[policy.removeprefix(RUN_PREFIX)], policy, controls)
    prompt = controls.selectbox(
        "Prompt", rows[policy]["prompts"], key="prompt", bind="query-params"
    )
    rule = controls.selectbox(
        "Reward",
        list(REWARD_LABELS),
        format_func=REWARD_LABELS.__getitem__,
        key="rule",
        bind="query-params",
        help="The same completions can be scored by another rule. "
        + " ".join(TASKS["chain"].reward_help[name] for name in REWARD_LABELS),
    )
    controls.button(
        "Resample",
        key="resample",
        on_click=next_draw,
        help="Pick other recorded completions. The address of the page keeps the choice.",
    )
    return from_pool(rows[policy], prompt, rule, positive_number_in_url("draw") or 0)


def from_pool(row: dict[str, Any], prompt: str, rule: str, number: int) -> GroupSource:
    """The completions of a prompt in the pool, in the order of draw `number`."""
    from lab.analysis.group_statistics import shuffled_indices

    at, table = row["prompts"].index(prompt), completion_pool()
    order = shuffled_indices(table["size"], number)
    rewards = tuple(
        tuple(of_prompt[i] for i in order) for of_prompt in pool_rewards(row["policy"], rule)
    )
    completions = tuple(row["completions"][at][i] for i in order)
    source = (
        f"`{table['command']}` on {table['device']}, torch {table['torch']}. {table['size']}"
        " completions of each prompt are recorded, sampled at temperature 1. They stand here in"
        f" random order number {number}; Resample takes the next order."
    )
    return GroupSource(
        prompt,
        tuple(completion["text"] for completion in completions),
        rewards[at],
        source,
        tokens=completions,
        other_rewards=rewards[:at] + rewards[at + 1 :],
    )


def article_group() -> GroupSource:
    """The eight responses of the article's figure, with their rewards."""
    from lab.analysis.group_statistics import ARTICLE_REWARDS, shuffled_indices

    order = shuffled_indices(len(ARTICLE_REWARDS), 0)
    return GroupSource(
        "",
        tuple(f"response {i + 1}" for i in order),
        tuple(ARTICLE_REWARDS[i] for i in order),
        population=True,
        source=(
            "The article prints the rewards 6.0 5.7 5.7 5.6 5.5 4.8 4.7 3.9 and the advantages"
            " +1.19 +0.66 +0.64 +0.61 +0.36 −0.67 −0.74 −2.06. The printed rewards are rounded;"
            " they would give other advantages (+1.16 +0.70 +0.70 +0.55 …). Here you see unrounded"
            " rewards, chosen by this lab, that give exactly the printed advantages. The article"
            " computes the std with G in the denominator. TRL and this lab use G − 1; all"
            " advantages are then 0.935 times as large."
        ),
    )


def runs_with_groups() -> dict[str, RunRecord]:
    """By name, the runs of the runs folder whose samples contain a group with rewards, newest
    first.
    """
    records = {
        run.name: run_record(str(run.path))
        for run in newest_first(list_runs())[:MAX_SEARCHED_RUNS]
        if (run.path / "samples.jsonl").is_file()
    }
    return {name: record for name, record in records.items() if training_group(record.samples())}


def training_group(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The training group among samples: completions of one prompt with rewards; empty for a method
    without groups.
    """
    rows = [
        row
        for row in samples
        if not row.get("held_out") and row.get("reward") is not None and "completion" in row
    ]
    return rows if len(rows) > 1 and len({row["prompt"] for row in rows}) == 1 else []


def from_run(run: RunRecord, name: str, controls: DeltaGenerator) -> GroupSource:
    """The group that a run recorded at an update, which a field on the page picks; the latest
    update if the field is empty. `name`: the run's name on the page.
    """
    latest = training_group(run.samples())
    st.session_state.setdefault("at", positive_number_in_url("at"))
    step = controls.number_input(
        "Update", 1, MAX_NUMBER_IN_URL, None, key="at", placeholder=f"latest, {latest[0]['step']}"
    )
    if step:
        st.query_params["at"] = str(step)
    elif "at" in st.query_params:
        del st.query_params["at"]
    controls.button(
        "Read again", key="again", help="A run that trains writes a new group in every update."
    )
    rows = (training_group(run.samples_at(step)) if step else []) or latest
    return GroupSource(
        rows[0]["prompt"],
        tuple(row["completion"] for row in rows),
        tuple(row["reward"] for row in rows),
        f"This group comes from update {rows[0]['step']} of {name}. A run records the first group"
        " of each rollout that is not dead, if there is one.",
    )


def positive_number_in_url(name: str) -> int | None:
    """The number from 1 to `MAX_NUMBER_IN_URL` in ?name=… of the URL; None for any other text."""
    text = st.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 and int(text) else None


def next_draw() -> None:
    """Callback: pick the next draw of the pool."""
    st.query_params["draw"] = str((positive_number_in_url("draw") or 0) % MAX_NUMBER_IN_URL + 1)
