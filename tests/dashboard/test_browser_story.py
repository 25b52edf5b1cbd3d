"""The page Story in a real browser: scrolling moves the figures, words light up for the mouse, the
keyboard and a finger, a badge opens its measurement.
"""

import re

import pytest
from support.browser import SECONDS, box_at_rest

SCROLL = """([key, index, share]) => {  // puts a step at a share of the window's height
  const step = document.querySelectorAll(`#${key} .lab-step`)[index];
  document.querySelector('[data-testid=stMain]').scrollBy(0, step.getBoundingClientRect().top - innerHeight * share);
}"""
NOW = """([key, index]) =>
  document.querySelectorAll(`#${key} .lab-step`)[index]?.getAttribute('aria-current') === 'step'"""
GLOWS = """([selector, style, off]) => {
  const part = document.querySelector(selector);
  return part && getComputedStyle(part)[style] !== off;
}"""


def scroll_to(page, key, index, share):
    page.wait_for_function(f"document.querySelectorAll('#{key} .lab-step').length > {index}")
    for _ in range(2):  # figures above grow when they come into view
        page.evaluate(SCROLL, [key, index, share])
        page.wait_for_function(NOW, arg=[key, index], timeout=SECONDS)


@pytest.mark.timeout(600)
def test_scrolling_sets_step_and_beta_and_words_light_up(page, server):
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{server.url}/story")
    page.locator("#resources").wait_for(timeout=3 * SECONDS, state="attached")
    page.locator("#rlhf .lab-diagram[data-at='0'] svg").wait_for(timeout=SECONDS)
    scroll_to(page, "rlhf", 1, 0.4)
    page.locator("#rlhf .lab-diagram[data-at='1'] svg").wait_for(timeout=SECONDS)
    scroll_to(page, "loss", 3, 0.4)
    page.locator("#loss output", has_text=re.compile("^0.5$")).wait_for(timeout=SECONDS)
    page.wait_for_function("location.hash === '#loss'", timeout=SECONDS)
    page.locator("#loss .lab-figure .main-svg").first.wait_for(timeout=SECONDS)
    stage = box_at_rest(page.locator("#loss .lab-stage"))
    assert 0 <= stage["y"] < 120  # it stays in view while the text goes by

    page.locator("#loss .lab-term", has_text="margin").last.hover()
    note = page.locator("#loss-note")
    note.filter(has_text="a number of each pair").wait_for(timeout=SECONDS)
    page.wait_for_function(
        GLOWS, arg=["#loss .xtitle", "textDecorationLine", "none"], timeout=SECONDS
    )
    page.mouse.move(5, 400)
    note.wait_for(state="hidden", timeout=SECONDS)

    page.locator("#rlhf .lab-term", has_text="critic").first.focus()
    page.locator("#rlhf-note", has_text="predicts the reward").wait_for(timeout=SECONDS)
    page.locator("#rlhf .lab-diagram[data-at='3'] svg").wait_for(timeout=SECONDS)
    box = "#rlhf [data-name=critic] > rect"
    page.wait_for_function(GLOWS, arg=[box, "strokeWidth", "1.5px"], timeout=SECONDS)
    page.keyboard.press("Escape")
    page.locator("#rlhf-note").wait_for(state="hidden", timeout=SECONDS)

    badge = page.locator("#rlhf .lab-badge").first
    badge.focus()
    page.keyboard.press("Enter")
    assert badge.get_attribute("aria-expanded") == "true"
    page.locator("#rlhf .lab-measured code", has_text="python -m lab").first.wait_for(
        timeout=SECONDS
    )
    walk = page.get_by_role("button", name="Play or pause: One update of RLHF")
    walk.click()
    page.locator("#rlhf .lab-diagram[data-at='5']").wait_for(timeout=SECONDS)
    page.get_by_role("button", name="1 Generate").click()
    page.locator("#rlhf .lab-diagram[data-at='0']").wait_for(timeout=SECONDS)
    page.keyboard.press("ArrowRight")
    page.locator("#rlhf .lab-diagram[data-at='1']").wait_for(timeout=SECONDS)


@pytest.mark.timeout(600)
def test_on_a_phone_the_figure_stays_above_the_text_and_a_tap_explains(browser, server):
    context = browser.browser.new_context(
        viewport={"width": 390, "height": 844}, reduced_motion="reduce", has_touch=True
    )
    page = context.new_page()
    try:
        page.goto(f"{server.url}/story")
        page.locator("#resources").wait_for(timeout=3 * SECONDS, state="attached")
        scroll_to(page, "grpo", 0, 0.6)
        card = page.locator("#grpo .lab-card").first
        card.wait_for(timeout=SECONDS)
        assert card.evaluate("(card) => getComputedStyle(card).animationName") == "none"
        scroll_to(page, "grpo", 2, 0.6)
        page.locator("#grpo .lab-diagram[data-at='2']").wait_for(timeout=SECONDS)
        stage, step = (
            box_at_rest(page.locator(f"#grpo {part}"))
            for part in (".lab-stage", ".lab-step >> nth=2")
        )
        assert stage["y"] + stage["height"] <= step["y"] < 844
        page.locator("#grpo .lab-step >> nth=2").locator(".lab-term", has_text="critic").tap()
        page.locator("#grpo-note", has_text="predicts the reward").wait_for(timeout=SECONDS)
        main = page.locator("[data-testid=stMain]")
        assert main.evaluate("(main) => main.scrollWidth") <= 390
    finally:
        context.close()
