"""The visitor's own prompt on page GRPO in a real browser: cards rise and sink, the formula follows the
pointer, updates are real, and visitors share nothing.
"""

import pytest
from support.browser import SECONDS, box_at_rest

WATCH = """() => {
  const root = document.querySelector('.lab-group');
  window.phases = [];
  new MutationObserver(() => window.phases.push(root.dataset.phase)).observe(root, {attributeFilter: ['data-phase']});
}"""
PROMPT = "3*8-5+2="


def shown(page, server, query="", motion="reduce"):
    """The page, with the cards of its group in their places."""
    page.emulate_media(reduced_motion=motion)
    page.goto(f"{server.url}/grpo?more=&{query}")
    page.locator(".lab-group[data-phase=done]").wait_for(timeout=SECONDS)
    return page


def says(page, words):
    """Wait until the sentence under the cards begins with `words`, and the cards are in their places."""
    page.wait_for_function(
        "words => document.querySelector('.lab-group .lab-says').textContent.startsWith(words)"
        " && document.querySelector('.lab-group').dataset.phase === 'done'",
        arg=words,
        timeout=SECONDS,
    )


def texts(page):
    return page.locator(".lab-card code").all_inner_texts()


def middles(page, kind):
    boxes = [box_at_rest(card) for card in page.locator(f".lab-card.{kind}").all()]
    return [box["y"] + box["height"] / 2 for box in boxes]


def test_cards_rise_and_sink_and_the_formula_has_the_numbers_of_the_card_under_the_pointer(
    page, server
):
    shown(page, server)
    box = box_at_rest(page.locator(".lab-mean"))
    assert max(middles(page, "lab-right")) < box["y"] < min(middles(page, "lab-wrong"))
    page.locator(".lab-card").nth(2).hover()
    assert page.locator(".lab-formula [data-part=a]").inner_text() == "+0.94"
    assert page.locator(".lab-formula [data-part=r]").inner_text() == "1"
    page.locator(".lab-card").nth(0).focus()
    assert page.locator(".lab-formula [data-part=a]").inner_text() == "−0.94"
    assert page.locator(".lab-formula [data-part=r]").inner_text() == "0"
    assert page.locator(".lab-formula [data-part=mean]").inner_text() == "0.5"
    assert page.locator(".lab-lit").get_attribute("data-at") == "0"
    page.set_viewport_size({"width": 390, "height": 844})  # Here better is to the right.
    lefts = [
        [box_at_rest(card)["x"] for card in page.locator(f".lab-card.{kind}").all()]
        for kind in ("lab-wrong", "lab-right")
    ]
    assert max(lefts[0]) < min(lefts[1])
    assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 1000})


@pytest.mark.parametrize(
    "motion, phases",
    [("no-preference", ["bars", "stack", "write", "judge", "mean", "done"]), ("reduce", ["done"])],
)
def test_an_update_moves_the_bars_and_writes_the_group_again_or_shows_the_end_at_once(
    page, server, motion, phases
):
    shown(page, server, motion=motion)
    page.evaluate(WATCH)
    page.get_by_role("button", name="Apply one update").click()
    says(page, "After 1 update:")
    seen = page.evaluate("window.phases")
    assert [phase for at, phase in enumerate(seen) if phase != seen[at - 1] or not at] == phases
    assert "updates=1" in page.evaluate("location.search")
    widths = (
        page.locator(".lab-card")
        .first.locator(".lab-bars i")
        .evaluate_all("bars => bars.map(bar => parseFloat(bar.style.width))")
    )
    assert widths[0] != widths[1]  # now, and before training
    page.get_by_role("button", name="Undo").click()
    says(page, "Before any update:")


def test_a_prompt_is_judged_while_it_is_typed_and_two_visitors_do_not_share_a_copy(
    page, browser, server
):
    shown(page, server)
    field = page.get_by_label("Your prompt", exact=True)
    field.fill("3*8-x")
    reason = page.locator(".lab-reason")
    reason.filter(has_text="cannot hold x").wait_for(timeout=SECONDS)
    assert "ask=" not in page.evaluate("location.search")
    field.fill(PROMPT)
    field.press("Enter")
    page.wait_for_function(
        "document.querySelector('.lab-lane ol')?.getAttribute('aria-label').includes('3*8-5+2=')",
        timeout=SECONDS,
    )
    says(page, "Before any update:")
    before = texts(page)
    page.get_by_role("button", name="Ten updates").click()
    says(page, "After 10 updates:")
    assert texts(page) != before
    other = browser.new_page()
    try:
        shown(other, server, "ask=3*8-5%2B2=")
        says(other, "Before any update:")
        assert texts(other) == before
        other.get_by_role("button", name="Apply one update").click()
        says(other, "After 1 update:")
    finally:
        other.close()
    page.get_by_role("button", name="Untouched policy").click()
    says(page, "Before any update:")
    assert texts(page) == before
