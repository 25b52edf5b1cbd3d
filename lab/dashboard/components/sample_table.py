"""Tables of a run's completions with their rewards and advantages."""

from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lab.dashboard.state.run_cache import Snapshot


def sample_tables(rows: list[dict[str, Any]], run: Snapshot) -> None:
    """Show completions of one step: the training group (for PPO of several prompts), best reward first,
    then held-out prompts with their gold answers.
    """
    group = [row for row in rows if not row.get("held_out") and "completion" in row]
    held_out = [row for row in rows if row.get("held_out") and "completion" in row]
    if not (group or held_out):
        return
    columns = iter(st.columns(2 if group and held_out else 1, gap="medium"))
    if group:
        group_table(next(columns), group)
    if held_out:
        heading_and_table(
            next(columns),
            f"Step {held_out[0]['step']}: one completion for each of some held-out prompts",
            "held-out",
            {
                "prompt": [r["prompt"] for r in held_out],
                "completion": [r["completion"] for r in held_out],
                "answer": [r.get("answer", "") for r in held_out],
                "right": [None if r.get("gold") is None else bool(r["gold"]) for r in held_out],
            },
        )


def group_table(column: DeltaGenerator, group: list[dict[str, Any]]) -> None:
    """Show the training completions of a rollout, sorted by reward, with their mean reward."""
    group = sorted(group, key=lambda row: -(row.get("reward") or 0))
    rewards = [r["reward"] for r in group if r.get("reward") is not None]
    if len({r["prompt"] for r in group}) > 1:
        heading, first_columns = (
            "the first prompts of the rollout, one completion each",
            {"prompt": [r["prompt"] for r in group]},
        )
    else:
        heading, first_columns = (
            f"one prompt with G = {len(group)} completions:   {group[0]['prompt']}",
            {},
        )
    mean = f",   mean reward {sum(rewards) / len(rewards):.2f}" if rewards else ""
    heading_and_table(
        column,
        f"Step {group[0]['step']}: {heading}{mean}",
        "group",
        first_columns
        | {
            "completion": [r["completion"] for r in group],
            "reward r": [r.get("reward") for r in group],
        }
        | ({"advantage A": [r.get("advantage") for r in group]} if "advantage" in group[0] else {}),
    )


def heading_and_table(
    column: DeltaGenerator, heading: str, key: str, columns: dict[str, list[Any]]
) -> None:
    """Show a heading and a table; both show their text literally."""
    column.text(heading)
    column.dataframe(
        columns,
        hide_index=True,
        key=key,
        column_config={
            "prompt": st.column_config.TextColumn(width=115),
            "completion": st.column_config.TextColumn(width=315),
            "answer": st.column_config.Column(width=65, help="The right answer."),
            "right": st.column_config.Column(width=50),
            "reward r": st.column_config.NumberColumn(format="%.2f", width=75),
            "advantage A": st.column_config.NumberColumn(format="%+.2f", width=95),
        },
    )
