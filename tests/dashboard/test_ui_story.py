"""The page Story: the article's figures in its order, its claims with their verdicts, and words that
the glossary explains; and the links to the pages before and after.
"""

import json
import re
from html import unescape
from pathlib import Path

import pytest
from support.elements import opened

from lab.analysis.claims import papers
from lab.analysis.claims.records import Records
from lab.analysis.claims.table import CLAIMS
from lab.dashboard.components.glossary import WORDS
from lab.dashboard.components.js_component import COMPONENTS_FOLDER, js_component
from lab.dashboard.components.story import StoryStep, step_html, term
from lab.dashboard.pages.registry import PAGES, SECTIONS

APP = Path(__file__).parents[2] / "app.py"
ORDER = ["rlhf", "derivation", "loss", "ipo-kto", "grpo", "offline-online", "map", "resources"]
# As the article prints them, for its group of eight.
ADVANTAGES = ["+1.19", "+0.66", "+0.64", "+0.61", "+0.36", "−0.67", "−0.74", "−2.06"]


@pytest.fixture(scope="module")
def chapters():
    """By key, what the browser gets of each chapter."""
    app = opened("story")
    data = [json.loads(e.proto.json)[0] for e in app.get("bidi_component")]
    return {chapter["key"]: chapter for chapter in data}


def stops(chapter):
    """What the steps of a chapter show: the value of the slider, or the name of the diagram's step."""
    for step in chapter["steps"]:
        figure = chapter["figures"][step["figure"]]["data"]
        if step["at"] is None:
            yield figure["key"]
        elif "steps" in figure:
            yield figure["steps"][step["at"]]["name"]
        else:
            yield figure["sliders"][0]["values"][step["at"]]


def test_the_figures_stand_in_the_order_of_the_article(chapters):
    assert list(chapters) == ORDER
    assert [chapter["number"] for chapter in chapters.values()] == list(range(1, 9))


def test_the_text_sets_beta_group_size_and_step(chapters):
    assert list(stops(chapters["rlhf"])) == ["generate", "score", "advantage", "update", "dpo"]
    assert list(stops(chapters["derivation"])) == [5.0, 1.0, 0.2, 0.7]
    assert sorted(stops(chapters["loss"])) == [0.05, 0.1, 0.2, 0.5]  # the article's
    assert list(stops(chapters["ipo-kto"])) == [0.1, 0.05, 0, 10]
    assert list(stops(chapters["grpo"])) == ["sample", "score", "G8", "G4", "G32"]
    assert list(stops(chapters["map"])) == ["ppo", "dpo", "ipo", "kto", "grpo"]
    assert list(stops(chapters["resources"])) == ["story-models", "story-memory", "story-time"]


def test_the_cards_show_the_advantages_that_the_article_prints(chapters):
    steps = chapters["grpo"]["figures"][0]["data"]["steps"]
    html = {step["name"]: step["html"] for step in steps}
    assert re.findall("<span>([^<]+)</span>", html["G8"]) == ADVANTAGES
    rewards = [float(text) for text in re.findall("<b>([0-9.]+)</b>", html["G8"])]
    assert rewards == [6.0, 5.7, 5.7, 5.6, 5.5, 4.8, 4.7, 3.9]
    for size in (4, 8, 16, 32):
        assert html[f"G{size}"].count('class="lab-card"') == size
        signs = re.findall('data-side="([a-z]+)"', html[f"G{size}"])
        assert signs == sorted(signs)  # the cards are sorted, so those above the mean come first
    assert "<span>" not in html["sample"] + html["score"]


def test_every_claim_of_the_article_stands_once_with_its_verdict_and_its_measurement(chapters):
    shown = [c for chapter in chapters.values() for s in chapter["steps"] for c in s["claims"]]
    records = Records()
    of_article = [claim for claim in CLAIMS.values() if claim.section != papers.SECTION]
    assert sorted(claim["sentence"] for claim in shown) == sorted(
        claim.sentence.rstrip(".") for claim in of_article
    )
    for claim in of_article:
        (badge,) = [one for one in shown if one["sentence"] == claim.sentence.rstrip(".")]
        measured = claim.measure(records)
        assert (badge["verdict"], badge["measurement"]) == (measured.verdict, measured.text)
        assert all(command in badge["command"] for command in claim.commands(records))
        assert badge["kind"] == {
            "holds": "holds",
            "holds here": "holds",
            "fails here": "fails",
        }.get(measured.verdict, "open")


def test_every_word_that_lights_up_is_explained_and_marks_something(chapters):
    for chapter in chapters.values():
        html = "".join(step["html"] for step in chapter["steps"])
        used = set(map(unescape, re.findall('data-term="([^"]+)"', html)))
        assert used == set(chapter["terms"]) and used <= set(WORDS)
        assert "[" not in "".join(re.findall("<p>(.*?)</p>", html))  # no word has kept its brackets
    boxes = "".join(s["html"] for s in chapters["rlhf"]["figures"][0]["data"]["steps"])
    for word in ("policy", "reference", "reward model", "critic", "advantage", "completion"):
        assert word in chapters["rlhf"]["terms"] and f'data-name="{word}"' in boxes


def test_a_word_that_the_glossary_lacks_is_refused():
    with pytest.raises(KeyError):
        term("no such word", "x")
    with pytest.raises(KeyError):
        step_html(StoryStep("A [no such word] here."))
    html = step_html(StoryStep("The [models|policy] & <b>."))
    assert html == (
        '<p>The <button type="button" class="lab-term" data-term="policy">models</button>'
        " &amp; &lt;b&gt;.</p>"
    )


def test_an_element_inside_another_keeps_its_names_to_itself(monkeypatch):
    given = {}
    monkeypatch.setattr(
        "streamlit.components.v2.component", lambda name, **parts: given.update(parts)
    )
    js_component("story", "slider_figure", "step_diagram")
    for part in ("slider_figure", "step_diagram"):
        assert f"const {part} = (() => {{" in given["js"]
        assert (COMPONENTS_FOLDER / f"{part}.css").read_text("utf-8") in given["css"]
    assert given["js"].count("export default function") == 1


@pytest.mark.parametrize("entry", PAGES, ids=lambda entry: entry.url)
def test_a_page_has_one_menu_and_an_address_of_its_own(entry):
    assert entry.section in SECTIONS
    assert [page.url for page in PAGES].count(entry.url) == 1


def test_the_menus_keep_the_order_of_the_pages():
    assert [page for s in SECTIONS for page in PAGES if page.section == s] == list(PAGES)


def test_the_first_page_says_start_here_and_links_to_the_story():
    app = opened(APP)
    links = [link.proto for link in app.get("page_link")]
    assert [(link.label, link.page) for link in links] == [("Start here: Story", "story")]
    assert f"**policy**: {WORDS['policy']}" in " ".join(e.value for e in app.markdown)
