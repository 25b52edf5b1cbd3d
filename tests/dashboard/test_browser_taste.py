"""The page Taste in a real browser: labels by keys, by mouse and by touch, and nothing lost on a reload."""

import json
import os
import signal

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
    wait_for(lambda: len(rows(server, "keys")) == 2)
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
    wait_for(lambda: len(rows(server, "keys", "skipped.jsonl")) == 1)
    assert len(rows(server, "keys")) == 1
    page.get_by_text("Keep, share and compare labels").click()
    field = page.get_by_label("Go on with another set")
    field.press_sequentially("jjs")  # Keys that are typed into a field are no labels.
    wait_for(lambda: field.input_value() == "jjs")
    assert len(rows(server, "keys")) == 1 and shown(page) == third


def test_a_double_click_is_one_label(page, server):
    page.goto(f"{server.url}/taste?set=double")
    page.locator(ANSWERS).first.wait_for(timeout=SECONDS)
    first = shown(page)
    page.locator(ANSWERS).first.dblclick()
    second = asked_after(page, first)
    page.locator(ANSWERS).nth(1).click()
    wait_for(lambda: len(rows(server, "double")) == 2)
    assert [row["chosen"] for row in rows(server, "double")] == [first[1][0], second[1][1]]


def test_keys_label_at_once_after_the_mode_was_changed_with_the_mouse(page, server):
    page.goto(f"{server.url}/taste?set=mode")
    page.locator(ANSWERS).first.wait_for(timeout=SECONDS)
    page.get_by_role("radio", name="Single answers, thumbs").click()
    page.locator(f"{ROOT_ELEMENT} .lab-single").wait_for(timeout=SECONDS)
    page.keyboard.press("j")
    wait_for(lambda: len(rows(server, "mode", "thumbs.jsonl")) == 1)


@pytest.mark.timeout(600)
def test_every_key_labels_the_pair_that_it_was_pressed_for_while_the_server_is_busy(page, server):
    page.goto(f"{server.url}/taste?set=fast")
    page.locator(ANSWERS).first.wait_for(timeout=SECONDS)
    expected, seen = [], []
    os.kill(server.process.pid, signal.SIGSTOP)  # As busy as a server can be.
    try:
        for number in range(35):
            prompt, answers = shown(page)
            seen.append((prompt, answers))
            page.keyboard.press(("ArrowLeft", "ArrowRight", "j")[number % 3])
            expected.append((prompt, answers[number % 3 > 0]))
        page.keyboard.press("z")
        assert shown(page) == seen[-1]
        page.keyboard.press("ArrowRight")
        expected[-1] = (seen[-1][0], seen[-1][1][1])
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    wait_for(lambda: len(rows(server, "fast")) >= len(expected))
    status = page.locator(".lab-label-status")
    wait_for(lambda: status.inner_text().startswith("35 labels"))
    assert [(row["prompt"], row["chosen"]) for row in rows(server, "fast")] == expected
    assert [row["turn"] for row in rows(server, "fast")] == list(range(1, 36))


@pytest.mark.timeout(600)
def test_keys_that_follow_each_other_at_once_survive_a_reload_a_skip_and_an_undo(page, server):
    page.goto(f"{server.url}/taste?set=mixed")
    page.locator(ANSWERS).first.wait_for(timeout=SECONDS)
    labelled, skips, history = [], 0, []
    for key in "fjsfjjzfjfjjsfzzjffjsjjf":
        wait_for(lambda: page.locator(ANSWERS).count() == 2)
        prompt, answers = shown(page)
        page.keyboard.press(key)
        if key == "z":
            kind = history.pop()
            labelled, skips = (labelled[:-1], skips) if kind == "label" else (labelled, skips - 1)
        elif key == "s":
            skips += 1
            history.append("skip")
        else:
            labelled.append((prompt, answers[key == "j"]))
            history.append("label")
    page.reload()
    wait_for(lambda: len(rows(server, "mixed")) == len(labelled))
    assert [(row["prompt"], row["chosen"]) for row in rows(server, "mixed")] == labelled
    assert len(rows(server, "mixed", "skipped.jsonl")) == skips


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
        wait_for(lambda: rows(server, "touch") != [])
        assert [row["chosen"] for row in rows(server, "touch")] == [before[1][1]]
        main = page.locator("[data-testid=stMain]")
        assert main.evaluate("(main) => main.scrollWidth") <= 390
        page.locator("[data-action=undo]").tap()
        wait_for(lambda: rows(server, "touch") == [])
        wait_for(lambda: shown(page) == before)
    finally:
        telephone.close()
