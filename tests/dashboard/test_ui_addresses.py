"""Numbers in the address of a page: whatever they are, the page opens, and stands where its
controls can stand.
"""

import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from support.elements import healthy, opened, page_script
from test_ui_safety import PAGES, UI, NoModel

from lab.config.methods import make_config
from lab.dashboard.pages.talk import answers
from lab.dashboard.pages.talk import page as talk
from lab.dashboard.state.url import url_parameters
from lab.runs.folder import create
from lab.runs.records import StepRecord
from lab.storage.jsonl import append_rows

SOURCES = "\n".join(path.read_text("utf-8") for path in UI.rglob("*.py"))
NAMES = sorted(
    {
        "estimate",
        *url_parameters(),
        *re.findall(r'key="([\w-]+)"[^)]*?bind="query-params"', SOURCES),
        *re.findall(r'Slider\("(\w+)"', SOURCES),
        *re.findall(
            r'(?:url_choice|url_number|positive_number_in_url|query_params\.get|query_params\[)\(?"([\w ]+)"',
            SOURCES,
        ),
    }
)
"""Every name that a page reads from its address."""
VALUES = ["1e999", "nan", "-1", "9" * 400, ""]


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    for module in (talk, answers):
        monkeypatch.setattr(module, "inference_worker", NoModel)
    monkeypatch.setattr(
        talk, "answer_pair", lambda *asked: (answers.recorded_answers()["answers"][0], False)
    )
    for name in ("a", "b"):
        folder = create(tmp_path / "runs" / name, make_config("dpo", {"steps": 1}))
        append_rows(
            folder.path / "metrics.jsonl",
            [StepRecord(i, {"gold/accuracy": 0.5, "loss": 0.5}, 1.0, 1).row() for i in (0, 1)],
        )
        folder.write_status("finished", 1)


def test_the_names_are_those_that_pages_read():
    assert {
        "seed",
        "temperature",
        "step",
        "beta",
        "G",
        "draw",
        "at",
        "smoothing",
        "mean",
        "seeds",
        "values",
        "more",
        "estimate",
    } <= set(NAMES)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("value", VALUES, ids=lambda text: text[:9] or "empty")
def test_no_number_in_the_address_keeps_a_page_from_opening(page, value):
    app = AppTest.from_string(page_script(page), default_timeout=120)
    for name in NAMES:
        app.query_params[name] = value
    app.query_params["run"] = ["a", "b"] if page == "runs" else "a"
    if page == "train":
        app.query_params["method"] = "grpo"
    healthy(app.run())


@pytest.mark.parametrize(
    "text, stands",
    [("7", 7), ("9999", 9999), ("10000", 0), ("1e999", 0), ("-1", 0), ("7.0", 0), ("nan", 0)],
)
def test_the_seed_in_the_address_is_one_that_the_page_offers_or_none(text, stands):
    app = opened("talk", seed=text)
    assert app.number_input(key="seed").value == stands
    assert ("seed" in app.query_params) == (stands != 0)
    app.number_input(key="seed").set_value(3)
    assert (
        healthy(app.run()).query_params["seed"] in ("3", ["3"])
        and app.number_input(key="seed").value == 3
    )


def test_no_number_field_is_bound_to_the_address_by_streamlit_which_fails_at_infinity():
    assert Path(talk.__file__).is_file() and "number_input(" in SOURCES
    assert re.findall(r"number_input\([^)]*bind=", SOURCES) == []
