"""The question of a page in a real browser: the figure that answers it is covered for eyes, keyboard and
screen readers until one has guessed or skipped, and the verdict stands beside the buttons.
"""

import pytest
from support.browser import SECONDS, box_at_rest

HIDDEN = "(key) => getComputedStyle(document.querySelector(`.st-key-${key} input`)).visibility"
NEAR = """() => {
  const buttons = document.querySelector('.st-key-guess').getBoundingClientRect();
  const verdict = document.querySelector('.st-key-verdict').getBoundingClientRect();
  return verdict.top - buttons.bottom;
}"""


def tabbed_ids(page, presses):
    """The ids of the elements that the Tab key reaches from the quiz on."""
    page.get_by_role("radio", name="Skip").focus()
    reached = []
    for _ in range(presses):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.closest('.lab-figure') !== null"))
    return reached


@pytest.mark.timeout(600)
@pytest.mark.parametrize("width", [1280, 390])
def test_a_figure_is_covered_until_a_guess_whose_verdict_stands_beside_the_buttons(
    page, server, width
):
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"{server.url}/ipo-kto")
    plot = page.locator(".st-key-bounded .main-svg").first
    plot.wait_for(state="attached", timeout=SECONDS)
    page.get_by_text("is covered until you guess or skip").wait_for(timeout=SECONDS)
    slider = page.locator(".st-key-bounded input").first
    skip = box_at_rest(page.get_by_role("radio", name="Skip"))
    assert 0 <= skip["x"] and skip["x"] + skip["width"] <= width
    assert not plot.is_visible() and not slider.is_visible()
    assert page.get_by_role("slider").count() == page.locator("input[type=range]:visible").count()
    assert not any(tabbed_ids(page, 3))
    page.get_by_role("radio", name="never").click()
    page.get_by_text("Right. For every β").wait_for(timeout=SECONDS)
    assert page.evaluate(NEAR) < 60
    plot.wait_for(timeout=SECONDS)
    assert slider.is_visible() and "guess=never" in page.url
    page.reload()
    plot.wait_for(timeout=SECONDS)
    assert page.get_by_text("Right. For every β").is_visible()


@pytest.mark.timeout(600)
def test_a_skipped_question_and_an_address_with_a_state_show_the_figure(page, server):
    page.goto(f"{server.url}/ipo-kto?beta=0.5")
    page.locator(".st-key-bounded .main-svg").first.wait_for(timeout=SECONDS)
    page.goto(f"{server.url}/ipo-kto")
    page.get_by_text("is covered until you guess or skip").wait_for(timeout=SECONDS)
    page.get_by_role("radio", name="Skip").click()
    page.locator(".st-key-bounded .main-svg").first.wait_for(timeout=SECONDS)
    assert page.locator(".st-key-verdict").count() == 0 and "guess=Skip" in page.url
