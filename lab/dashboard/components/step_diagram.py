"""A picture in steps that the browser walks through by itself: buttons, Play, and a sentence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from lab.dashboard.components.js_component import js_component

_step_diagram_element = js_component("step_diagram")


@dataclass(frozen=True)
class DiagramStep:
    """One step: `name` in the URL, `label` on its button, `html` of the picture, which the lab has
    written and escaped, and `says`, the sentence under it.
    """

    name: str
    label: str
    html: str
    says: str = ""


def step_diagram_data(
    key: str, label: str, steps: Sequence[DiagramStep], at: int = 0
) -> dict[str, Any]:
    """The diagram as step_diagram.js takes it, standing at step `at`."""
    return {"key": key, "label": label, "at": at, "steps": [vars(step) for step in steps]}


def step_diagram(
    key: str, label: str, steps: Sequence[DiagramStep], at: int, on_step: Callable[[], None]
) -> None:
    """Show the diagram. `on_step` is called when the reader has moved it; the name of the step is then
    in the session under `key`.
    """
    _step_diagram_element(
        key=key,
        data=step_diagram_data(key, label, steps, at),
        on_step_change=on_step,
        on_dark_change=lambda: None,
    )


def described(picture: str, alt: str) -> str:
    """A picture as HTML with its description for screen readers."""
    return f'<div role="img" aria-label="{escape(alt)}">{picture}</div>'


def bars(rows: Sequence[tuple[str, float, str, str]], source: str = "measured") -> str:
    """Horizontal bars as HTML: of every row its label, its share of the longest possible bar, its text
    and its colour. `source`: "article" hatches the bars.
    """
    cells = "".join(
        f'<dt>{escape(label)}</dt><dd data-source="{source}"'
        f' style="--share:{share:.4g};--colour:{colour}">{escape(text)}</dd>'
        for label, share, text, colour in rows
    )
    return f'<dl class="lab-bars">{cells}</dl>'


def verdict_list(advantages: Sequence[str], issues: Sequence[str]) -> str:
    """Advantages with a check mark and issues with a cross, as HTML."""
    items = [("✓", "advantage", text) for text in advantages] + [
        ("✗", "issue", text) for text in issues
    ]
    rows = "".join(
        f'<li><b role="img" aria-label="{kind}">{mark}</b>{escape(text)}</li>'
        for mark, kind, text in items
    )
    return f'<ul class="lab-verdicts">{rows}</ul>'
