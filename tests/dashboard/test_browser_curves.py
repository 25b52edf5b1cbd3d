"""The curves of runs in a real browser: a step is read off in all panels, and a run is seen alone by
pointing at its name, by tapping it and by the keyboard.
"""

import pytest
from support.browser import SECONDS, box_at_rest, wait_for

from lab.config.methods import make_config
from lab.runs.folder import create
from lab.runs.records import Event, StepRecord
from lab.storage.jsonl import append_rows

PLOT = "document.querySelector('.lab-plot')"
LABELS = f"{PLOT}.querySelectorAll('.hoverlayer .hovertext').length"
FAINT = f"""[...new Set([...{PLOT}.querySelectorAll('.cartesianlayer .trace')]
  .map((trace) => [trace.__data__[0].trace.line.dash, trace.style.opacity].join(' ')))]"""


def finished(root, name, seed):
    folder = create(root / name, make_config("dpo", {"steps": 20, "seed": seed}))
    rows = [
        StepRecord(i, {"loss": 0.7 - i / 100, "gold/accuracy": 0.4 + i / 50}, i * 0.5, i).row()
        for i in range(21)
    ]
    append_rows(folder.path / "metrics.jsonl", [*rows, Event(20, "finished").row()])
    folder.write_status("finished", 20)


@pytest.mark.timeout(600)
def test_a_step_is_read_off_in_all_panels_and_a_run_is_seen_alone_by_its_name(page, server):
    finished(server.runs, "a", 0)
    finished(server.runs, "b", 1)
    page.goto(f"{server.url}/runs?run=a&run=b")
    page.locator(".lab-plot .main-svg").first.wait_for(timeout=SECONDS)
    panels = page.evaluate(f"Object.keys({PLOT}._fullLayout._plots).length")
    assert panels == 2

    box = box_at_rest(page.locator(".lab-plot .nsewdrag").first)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    wait_for(lambda: page.evaluate(LABELS) == 2 * panels)  # of two runs, in each panel
    page.mouse.move(2, 2)
    wait_for(lambda: page.evaluate(LABELS) == 0)

    first, second = page.locator(".lab-legend button[aria-pressed]").all()
    assert page.evaluate(FAINT) == ["solid ", "dash "]
    second.hover()
    wait_for(lambda: page.evaluate(FAINT) == ["solid 0.12", "dash "])
    page.mouse.move(2, 2)
    wait_for(lambda: page.evaluate(FAINT) == ["solid ", "dash "])

    first.focus()
    page.keyboard.press("Tab")
    wait_for(lambda: page.evaluate(FAINT) == ["solid 0.12", "dash "])
    page.keyboard.press("Enter")
    assert second.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Tab")
    assert page.evaluate(FAINT) == ["solid 0.12", "dash "], "the chosen run stays alone"
    second.dispatch_event("click")  # as a finger does
    second.blur()
    wait_for(lambda: page.evaluate(FAINT) == ["solid ", "dash "])
