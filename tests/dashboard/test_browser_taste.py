"""The page Taste in a real browser: labels by keys, by mouse and by touch, and nothing lost on a reload."""

import json

import pytest
from support.browser import SECONDS, box_at_rest, wait_for

ROOT_ELEMENT = ".lab-labeller"
ANSWERS = f"{ROOT_ELEMENT} .lab-answer .lab-answer-text"


def rows(server, name, file="labels.jsonl"):
    path = server.runs / "taste" / name / "chain" / file
    return (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    )


def shown(page):
    """The prompt and the answers of the pair that is asked."""
    prompt = page.locator(".lab-label-prompt").inner_text()
    return prompt, [own.inner_text() for own in page.locator(ANSWERS).all()]


def asked_after(page, before):
    """Wait until another pair is asked, and return it."""
    wait_for(lambda: page.locator(ANSWERS).count() == 2 and shown(page) != before)
    return shown(page)


@pytest.mark.timeout(600)
def test_keys_label_undo_and_skip_and_a_reload_loses_nothing(page, server):
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{server.url}/taste?set=keys")
    page.locator(ANSWERS).first.wait_for(timeout=SECONDS)
    first = shown(page)
    page.keyboard.press("ArrowLeft")
    second = asked_after(page, first)
    page.keyboard.press("j")
    third = asked_after(page, second)
    assert [(r["prompt"], r["chosen"]) for r in rows(server, "keys")] == [
        (first[0], first[1][0]),
        (second[0], second[1][1]),
    ]
    page.reload()
    page.locator(ANSWERS).first.wait_for(timeout=SECONDS)
    assert shown(page) == third and page.locator(".lab-label-status").inner_text().startswith("2 l")
    page.keyboard.press("z")
    assert asked_after(page, third) == second
    page.keyboard.press("s")
    assert asked_after(page, second) == third
    assert len(rows(server, "keys")) == 1 and len(rows(server, "keys", "skipped.jsonl")) == 1
    page.get_by_text("Keep, share and compare labels").click()
    field = page.get_by_label("Go on with another set")
    field.press_sequentially("jjs")  # Keys that are typed into a field are no labels.
    wait_for(lambda: field.input_value() == "jjs")
    assert len(rows(server, "keys")) == 1 and shown(page) == third


@pytest.mark.timeout(600)
def test_a_finger_labels_at_the_width_of_a_telephone(browser, server):
    telephone = browser.browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    page = telephone.new_page()
    try:
        page.goto(f"{server.url}/taste?set=touch")
        page.locator(ANSWERS).first.wait_for(timeout=SECONDS)
        before = shown(page)
        boxes = [box_at_rest(own) for own in page.locator(f"{ROOT_ELEMENT} .lab-answer").all()]
        assert all(box["width"] >= 300 and box["height"] >= 44 for box in boxes)
        page.locator(f"{ROOT_ELEMENT} .lab-answer").nth(1).tap()
        asked_after(page, before)
        assert [row["chosen"] for row in rows(server, "touch")] == [before[1][1]]
        main = page.locator("[data-testid=stMain]")
        assert main.evaluate("(main) => main.scrollWidth") <= 390
        page.locator("[data-action=undo]").tap()
        wait_for(lambda: rows(server, "touch") == [])
        wait_for(lambda: shown(page) == before)
    finally:
        telephone.close()
