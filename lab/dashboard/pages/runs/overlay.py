"""The curves of the shown runs over each other on page Runs: single runs, or mean and band over seeds."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import streamlit as st

from lab.dashboard.components import text
from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.components.replay_chart import replay_curves
from lab.dashboard.state.run_cache import Snapshot
from lab.dashboard.state.run_selection import MAX_SHOWN_RUNS, SHIPPED_PREFIX, run_curves
from lab.figures.seed_bands import Band, band_traces, families, grouped
from lab.figures.training_curves import RunCurves, default_panels
from lab.runs.summary import Summary

NO_EVENTS: defaultdict[str, tuple] = defaultdict(tuple)


def runs_of_other_seeds(there: Mapping[str, Summary], names: list[str]) -> list[str]:
    """Runs that differ from the first shown one only in seed, one of each seed that is not shown
    yet.
    """
    first = names[0], there[names[0]].config
    alike = {
        name: s.config["seed"]
        for name, s in there.items()
        if name != names[0] and len(families(dict([first, (name, s.config)]), NO_EVENTS)) == 1
    }
    seen = {first[1]["seed"], *(alike[name] for name in names if name in alike)}
    more = {seed: name for name, seed in alike.items() if seed not in seen}
    return list(more.values())[: MAX_SHOWN_RUNS - len(names)]


def show_runs_and_mean(more: list[str]) -> None:
    """Callback: show more runs, and their mean."""
    st.session_state["run"] = [*st.session_state["run"], *more]
    st.session_state["mean"] = True


def overlaid_curves(snapshots: Mapping[str, Snapshot], more: list[str]) -> int:
    """The curves over each other, single or as mean and band over seeds, up to the replayed step;
    returns that step.
    """
    curves, configs = (
        run_curves(dict(snapshots)),
        {name: s.started for name, s in snapshots.items()},
    )
    several = len(families(configs, {name: s.events for name, s in snapshots.items()})) < len(
        snapshots
    )
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    mean = row.toggle(
        "Mean and band over seeds",
        key="mean",
        bind="query-params",
        disabled=not several,
        help=(
            "Runs that are alike but for their seed become one line, in the 95 % interval of their"
            " mean."
        ),
    )
    if more:
        row.button(
            f"Add {len(more)} of other seeds",
            key="alike",
            on_click=show_runs_and_mean,
            args=(more,),
            help="Runs that differ from the first shown one only in seed.",
        )
    around: dict[str, dict[str, Band]] = {}
    if mean and several:
        curves, around = grouped(curves, configs)
        curves = [replace(c, label=c.label.replace(SHIPPED_PREFIX, "")) for c in curves]
    drawn = {
        c.name: (
            replace(snapshots[c.name], columns=c.columns, points={})
            if c.name in around
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
            interval_text(c, around[c.name])
            if c.name in around
            else f"**{escape_markdown(c.label)}** {text.run_caption(drawn[c.name])}"
        )
        for c in curves
    ]
    step = replay_curves(
        curves,
        drawn,
        panels,
        " ".join(lines),
        {name: band_traces(c, around[name], panels) for c in curves if (name := c.name) in around},
    )
    st.markdown("  \n".join(lines))
    return step


def interval_text(line: RunCurves, around: Mapping[str, Band]) -> str:
    """What a group of runs reached, with its interval, as markdown."""
    parts = []
    for name, word, form, unit in text.CAPTION_MEASURES:
        if name in around:
            step, middle, half = (column[-1] for column in around[name])
            parts.append(
                f"{word} {form.format(middle)} ± {form.format(half)}{unit}".replace("%", " %")
                + (f" at step {step}" if not parts else "")
            )
    return f"**{escape_markdown(line.label)}** {', '.join(parts)}."
