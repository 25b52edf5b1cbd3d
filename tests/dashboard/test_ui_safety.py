"""Whatever an address says, no page reads a run outside of the runs folder, and none shows a user's
words as anything but text.
"""

import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from support.elements import page_script

from lab.config.methods import make_config
from lab.dashboard.pages import registry
from lab.dashboard.pages.talk import answers
from lab.dashboard.pages.talk import page as talk
from lab.runs.folder import create
from lab.runs.records import StepRecord
from lab.storage.jsonl import append_rows

UI = Path(__file__).parents[2] / "lab" / "dashboard"
PAGES = sorted(
    # The first page hands these parameters to the page Train.
    entry.module.removesuffix(".page")
    for entry in registry.PAGES
    if not entry.default
)
NAMES = [
    "../outside",
    "..",
    "/etc/passwd",
    "inside/../../outside",
    "recorded:../../../outside",
    "recorded:..",
    "%2e%2e/outside",
    "..\\outside",
    "link/../outside",
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "a\0b",
    "x" * 5000,
]
KEYS = [
    "run",
    "focus",
    "search",
    "prompt",
    "seed",
    "step",
    "mean",
    "take",
    "speaker",
    "beta",
    "guess",
    "own",
    "from",
    "policy",
    "preset",
    "method",
]
opened: list[str] = []
sys.addaudithook(lambda event, details: opened.append(str(details[0])) if event == "open" else None)


class NoModel:
    def warm(self):
        pass

    def ask(self, question):
        raise AssertionError(f"A model was asked: {question}")


@pytest.mark.parametrize("page", PAGES)
def test_no_address_makes_a_page_read_outside_of_the_runs_folder(page, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    for module in (talk, answers):
        monkeypatch.setattr(module, "inference_worker", NoModel)
    for root in (tmp_path, tmp_path / "runs"):
        folder = create(
            root / ("outside" if root == tmp_path else "inside"), make_config("dpo", {"steps": 1})
        )
        append_rows(
            folder.path / "metrics.jsonl",
            [StepRecord(i, {"gold/accuracy": 0.5, "loss": 0.5}, 1.0, 1).row() for i in (0, 1)],
        )
        folder.write_status("finished", 1)
    app = AppTest.from_string(page_script(page), default_timeout=120)
    for key in KEYS:
        app.query_params[key] = NAMES if key == "run" else NAMES[KEYS.index(key) % len(NAMES)]
    opened.clear()
    app.run()
    assert not app.exception, app.exception
    assert [
        path
        for path in opened
        if str(tmp_path / "outside") in str(Path(path).resolve() if "\0" not in path else path)
    ] == []
    assert [path for path in opened if path.startswith("/etc/passwd")] == []
    said = " ".join(
        str(e.value)
        for kind in ("markdown", "caption", "error", "warning", "info")
        for e in app.get(kind)
    )
    assert "<script" not in said and "](javascript" not in said
    assert not any(e.proto.allow_html for e in app.get("markdown"))
    if page == "runs":
        assert any(str(tmp_path / "runs" / "inside") in path for path in opened), (
            "the test itself sees what is opened"
        )


HTML_OF_NUMBERS = {
    "components/config_widgets.py",
    "components/quiz.py",
    "pages/train/experiment_cards.py",
    "pages/train/page.py",
}
"""Modules whose HTML holds constants of the code and numbers alone, and no text of a visitor or a file."""


def test_nothing_in_the_dashboard_turns_text_into_html():
    sources = {
        path.relative_to(UI).as_posix(): path.read_text("utf-8")
        for path in UI.rglob("*")
        if path.suffix in (".py", ".js")
    }
    assert "components/live_chart.js" in sources and "pages/train/page.py" in sources
    assert {name for name, text in sources.items() if "st.html" in text} == HTML_OF_NUMBERS
    for word in (
        "unsafe_allow_html",
        "components.v1",
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ):
        assert [name for name, text in sources.items() if word in text] == [], word


def test_a_damaged_run_is_named_without_the_place_of_the_runs_on_the_server(tmp_path):
    folder = create(tmp_path / "torn", make_config("dpo", {"steps": 1}))
    (folder.path / "config.json").write_text("{", "utf-8")
    app = AppTest.from_string(
        "from pathlib import Path\n"
        "from lab.dashboard.components.damaged_runs import damaged_runs_warning\n"
        f"damaged_runs_warning(Path({str(tmp_path)!r}))\n"
    ).run()
    (warning,) = app.warning
    assert "`torn` is damaged" in warning.value and "config" in warning.value
    assert str(tmp_path) not in warning.value.replace("\\", "")
