"""Tables of a run's completions: the answer first, then the completion token by token, and its reward
and advantage.
"""

import re
from collections.abc import Sequence
from typing import Any

import streamlit as st

from lab.dashboard.components.js_component import js_component
from lab.dashboard.state.run_cache import Snapshot

sample_table_element = js_component("sample_table")
ANSWER = re.compile(r".*</think>|<think>.*", re.DOTALL)  # All but the answer of a completion.
CHAIN_TOKEN = re.compile(r"</?think>|.", re.DOTALL)  # The embedded model has a token for each sign.


def sample_tables(rows: list[dict[str, Any]], run: Snapshot) -> None:
    """Show completions of one step: the training group (for PPO of several prompts), best reward first,
    then held-out prompts with their gold answers.
    """
    group = [row for row in rows if not row.get("held_out") and "completion" in row]
    held_out = [row for row in rows if row.get("held_out") and "completion" in row]
    if not (group or held_out):
        return
    is_chain = run.config["task"] == "chain" and run.config["model"] == "embedded"
    columns = iter(st.columns(2 if group and held_out else 1, gap="medium"))
    if group:
        with next(columns):
            group_table(group, is_chain)
    if held_out:
        with next(columns):
            step = held_out[0]["step"]
            held_out_table(
                held_out, f"Step {step}: one completion for each of some held-out prompts", is_chain
            )


def held_out_table(rows: list[dict[str, Any]], heading: str, is_chain: bool = True) -> None:
    """Show completions of held-out prompts with their gold answers."""
    sample_table(
        heading,
        "held-out",
        ["answer", "prompt", "completion"],
        [
            {
                "answer": answer_cell(row, is_chain),
                "prompt": {"text": row["prompt"]},
                "completion": completion_cell(row["completion"], is_chain),
            }
            for row in rows
        ],
    )


def group_table(group: list[dict[str, Any]], is_chain: bool) -> None:
    """Show the training completions of a rollout, sorted by reward, with their mean reward."""
    group = sorted(group, key=lambda row: -(row.get("reward") or 0))
    rewards = [r["reward"] for r in group if r.get("reward") is not None]
    several_prompts = len({r["prompt"] for r in group}) > 1
    heading = (
        "the first prompts of the rollout, one completion each"
        if several_prompts
        else f"one prompt with G = {len(group)} completions:   {group[0]['prompt']}"
    )
    mean = f",   mean reward {sum(rewards) / len(rewards):.2f}" if rewards else ""
    columns = ["answer"] * is_chain + ["reward r"] + ["advantage A"] * ("advantage" in group[0])
    sample_table(
        f"Step {group[0]['step']}: {heading}{mean}",
        "group",
        [*columns, *["prompt"] * several_prompts, "completion"],
        [
            {
                "answer": answer_cell(row, is_chain),
                "reward r": number_cell(row.get("reward"), "{:.2f}"),
                "advantage A": number_cell(row.get("advantage"), "{:+.2f}"),
                "prompt": {"text": row["prompt"]},
                "completion": completion_cell(row["completion"], is_chain),
            }
            for row in group
        ],
    )


def answer_cell(row: dict[str, Any], is_chain: bool) -> dict[str, Any]:
    """What a completion answers, whether it is right, and the right answer if it is not."""
    said = ANSWER.sub("", row["completion"]).strip() or "no answer" if is_chain else ""
    right = None if row.get("gold") is None else bool(row["gold"])
    gold = str(row.get("answer") or "")
    return {"text": said, "right": right, "note": gold if right is False and gold else ""}


def number_cell(value: float | None, form: str) -> dict[str, Any]:
    """A number with its digits, and a dash for none."""
    return {"text": "–" if value is None else form.format(value).replace("-", "−")}


def completion_cell(text: str, is_chain: bool) -> dict[str, Any]:
    """A completion, and its tokens if they are known."""
    return {"text": text, "tokens": CHAIN_TOKEN.findall(text) if is_chain else []}


def sample_table(
    heading: str, key: str, columns: Sequence[str], rows: Sequence[dict[str, Any]]
) -> None:
    """Show a table whose cells wrap. Heading and cells show their text literally."""
    sample_table_element(
        key=key,
        data={
            "heading": heading,
            "columns": columns,
            "rows": [[row[column] for column in columns] for row in rows],
        },
    )
