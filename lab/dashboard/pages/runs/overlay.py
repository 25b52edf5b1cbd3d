"""The curves of the shown runs over each other on page Runs: single runs, or mean and band over seeds."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import streamlit as st

from lab.dashboard.components import text
from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.components.replay_chart import replay_curves
from lab.dashboard.state.run_cache import Snapshot
from lab.dashboard.state.run_selection import MAX_SHOWN_RUNS, SHIPPED_PREFIX, snapshot_curves
from lab.figures.run_curves import RunCurves, default_panels
from lab.figures.seed_bands import Band, band_traces, group_by_seed, seed_groups
from lab.runs.summary import Summary

NO_EVENTS: defaultdict[str, tuple[Mapping[str, Any], ...]] = defaultdict(tuple)


def runs_of_other_seeds(runs: Mapping[str, Summary], names: list[str]) -> list[str]:
    """Names of runs that differ from the first shown run only in their seed, one run per seed that is
    not shown yet. `names`: the shown runs.
    """
    first, config = names[0], runs[names[0]].config
    seeds = {
        name: s.config["seed"]
        for name, s in runs.items()
        if name != first and len(seed_groups({first: config, name: s.config}, NO_EVENTS)) == 1
    }
    shown_seeds = {config["seed"], *(seeds[name] for name in names if name in seeds)}
    by_seed = {seed: name for name, seed in seeds.items() if seed not in shown_seeds}
    return list(by_seed.values())[: MAX_SHOWN_RUNS - len(names)]


def show_runs_and_mean(names: list[str]) -> None:
    """Callback: show more runs, and the mean over seeds."""
    st.session_state["run"] = [*st.session_state["run"], *names]
    st.session_state["mean"] = True


def overlaid_curves(snapshots: Mapping[str, Snapshot], other_seeds: list[str]) -> int:
    """Show the curves over each other, as single runs or as mean and band over seeds, up to the
    replayed step; returns this step. `other_seeds`: runs that a button adds.
    """
    curves = snapshot_curves(dict(snapshots))
    bands: dict[str, dict[str, Band]] = {}
    if mean_toggle(snapshots, other_seeds):
        configs = {name: s.started for name, s in snapshots.items()}
        curves, bands = group_by_seed(curves, configs)
        curves = [replace(c, label=c.label.replace(SHIPPED_PREFIX, "")) for c in curves]
    group_snapshots = {
        c.name: (
            replace(snapshots[c.name], columns=c.columns, points={})
            if c.name in bands
            else snapshots[c.name]
        )
        for c in curves
    }
    panels = default_panels(curves)
    if not panels:
        st.markdown("These runs have no numbers yet.")
        return 0
    lines = [
        (
            interval_text(c, bands[c.name])
            if c.name in bands
            else f"**{escape_markdown(c.label)}** {text.run_caption(group_snapshots[c.name])}"
        )
        for c in curves
    ]
    step = replay_curves(
        curves,
        group_snapshots,
        panels,
        " ".join(lines),
        {name: band_traces(c, bands[name], panels) for c in curves if (name := c.name) in bands},
    )
    st.markdown("  \n".join(lines))
    return step


def mean_toggle(snapshots: Mapping[str, Snapshot], other_seeds: list[str]) -> bool:
    """Show the toggle between single runs and means over seeds, and a button that adds the runs
    `other_seeds`; returns whether means are drawn.
    """
    configs = {name: s.started for name, s in snapshots.items()}
    groups = seed_groups(configs, {name: s.events for name, s in snapshots.items()})
    has_groups = len(groups) < len(snapshots)
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    mean = row.toggle(
        "Mean and band over seeds",
        key="mean",
        bind="query-params",
        disabled=not has_groups,
        help=(
            "Runs that are alike but for their seed become one line, in the 95 % interval of their"
            " mean."
        ),
    )
    if other_seeds:
        row.button(
            f"Add {len(other_seeds)} of other seeds",
            key="alike",
            on_click=show_runs_and_mean,
            args=(other_seeds,),
            help="Runs that differ from the first shown one only in seed.",
        )
    return mean and has_groups


def interval_text(group: RunCurves, bands: Mapping[str, Band]) -> str:
    """The last means of a group of runs with their intervals, as Markdown."""
    parts: list[str] = []
    for name, label, form, unit in text.CAPTION_MEASURES:
        if name in bands:
            step, middle, half = (column[-1] for column in bands[name])
            parts.append(
                f"{label} {form.format(middle)} ± {form.format(half)}{unit}".replace("%", " %")
                + (f" at step {step}" if not parts else "")
            )
    return f"**{escape_markdown(group.label)}** {', '.join(parts)}."
