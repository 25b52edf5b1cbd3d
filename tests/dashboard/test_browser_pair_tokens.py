"""One pair of page DPO in a real browser: it stops at recorded updates only, and its tokens follow."""

from support.browser import SECONDS, box_at_rest, wait_for

from lab.analysis.recorded_results import load_result

(RUN,) = load_result("pair_tokens")["rows"]
SUM = "() => [...document.querySelectorAll('.lab-sum')].map((sum) => sum.textContent)"


def sums(pair, at):
    """The log-ratios of both texts, as the page writes them."""
    values = [sum(RUN["pairs"][pair][side]["ratios"][at]) for side in ("chosen", "rejected")]
    return [f"{value:+.2f} nats".replace("-", "−") for value in values]


def test_a_dragged_pair_shows_what_was_recorded_and_nothing_between(page, server):
    page.goto(f"{server.url}/dpo?show=one pair, token by token&pair=3&update=50")
    page.locator(".lab-handle-pair").wait_for(timeout=SECONDS)
    assert page.evaluate(SUM) == sums(2, RUN["steps"].index(50))
    recorded = [sums(2, at) for at in range(len(RUN["steps"]))]
    page.locator(".lab-pair-curve").scroll_into_view_if_needed()
    box = box_at_rest(page.locator(".lab-handle-pair"))
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    seen = []
    for far in range(0, 400, 20):
        page.mouse.move(x + far, y)
        seen.append(page.evaluate(SUM))
    page.mouse.up()
    assert all(pair in recorded for pair in seen) and len({*map(tuple, seen)}) > 2
    wait_for(lambda: "update=50" not in page.evaluate("location.search"))
    slider = page.get_by_role("slider", name="Update of the recorded run")
    slider.focus()
    slider.press("Home")
    assert page.locator(".lab-pair-says").inner_text().startswith("After 0 updates: h = ")
    assert page.locator(".lab-pair .lab-more, .lab-pair .lab-less").count() == 0
    slider.press("End")
    assert page.evaluate(SUM) == recorded[-1]
    ratios = RUN["pairs"][2]["rejected"]["ratios"][-1]
    coloured = (
        page.locator(".lab-pair-side")
        .nth(1)
        .locator(".lab-token")
        .evaluate_all("tokens => tokens.map((token) => token.classList.contains('lab-less'))")
    )
    assert coloured == [ratio < -0.09 for ratio in ratios]  # 3 % of the full colour
