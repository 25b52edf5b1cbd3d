"""The prepared experiments as cards: what is done, and how gold accuracy went in the recorded run."""

import base64
from collections.abc import Mapping
from typing import Any

import streamlit as st

from lab.config.json_format import to_dict
from lab.config.methods import make_config
from lab.config.presets import RUN_PRESETS, Preset
from lab.dashboard.components import text
from lab.dashboard.state.run_cache import run_record
from lab.dashboard.state.shipped_runs import SHIPPED_RUNS_FOLDER
from lab.dashboard.state.url import fill_form
from lab.figures.palette import METHOD_COLOURS

WIDTH, HEIGHT = 190, 44  # of a sparkline, in pixels
STYLE = """<style>
.st-key-experiments { flex-wrap: nowrap; overflow-x: auto; padding-bottom: 0.5rem; align-items: stretch; }
.st-key-experiments > div { flex: 0 0 auto; }
.st-key-experiments .stVerticalBlock { gap: 0.4rem; }
.lab-spark { display: block; font-size: 0.8rem; line-height: 1.3; }
.lab-spark img { display: block; margin-bottom: 0.2rem; }
</style>"""


def experiment_cards() -> None:
    """Show a card for every preset. Its button fills the form; Start trains it."""
    st.markdown(
        "**Prepared experiments.** A card fills the form below; **Start** then trains it. The line"
        " is gold accuracy in the recorded run, from 0 to 1."
    )
    st.html(STYLE)
    with st.container(horizontal=True, gap="small", key="experiments"):
        for preset in RUN_PRESETS:
            with st.container(border=True, width=WIDTH + 46, key=f"card-{preset.run_name}"):
                st.button(
                    f"{text.method_dot(preset.method)} {preset.title}",
                    key=f"preset.{preset.name}",
                    width="stretch",
                    on_click=fill_form,
                    args=(preset.method, preset.knobs),
                )
                st.html(sparkline(preset))
                st.caption(preset.sentence)


def sparkline(preset: Preset) -> str:
    """Gold accuracy of the preset's recorded run as a picture, with its first and last value."""
    columns = run_record(str(SHIPPED_RUNS_FOLDER / preset.run_name)).snapshot().columns
    steps, values = columns["gold/accuracy"]
    points = " ".join(
        f"{WIDTH * step / steps[-1]:.1f},{HEIGHT * (1 - value):.1f}"
        for step, value in zip(steps, values)
    )
    says = f"gold accuracy {values[0]:.2f} → {values[-1]:.2f} in {steps[-1]} updates"
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">'
        f'<path d="M0 0.5H{WIDTH}M0 {HEIGHT - 0.5}H{WIDTH}" stroke="#808080" opacity="0.6"/>'
        f'<polyline points="{points}" fill="none" stroke="{METHOD_COLOURS[preset.method]}"'
        ' stroke-width="2.5"/></svg>'
    )
    data = base64.b64encode(picture.encode()).decode()  # A picture, because st.html takes no svg.
    return (
        f'<span class="lab-spark"><img width="{WIDTH}" height="{HEIGHT}" alt=""'
        f' src="data:image/svg+xml;base64,{data}">{says}</span>'
    )


def preset_of(config: Mapping[str, Any]) -> Preset | None:
    """The preset with the knobs of a run, whatever its seed; None if there is none."""
    return next(
        (
            preset
            for preset in RUN_PRESETS
            if to_dict(make_config(preset.method, preset.knobs)) | {"seed": 0}
            == dict(config) | {"seed": 0}
        ),
        None,
    )
