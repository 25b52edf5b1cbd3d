"""The playground in a real browser: it plays without a hand and without the server, and a hand forks it."""

import re

import pytest
from support.browser import SECONDS, box_at_rest, go_to, wait_for

from lab.runs.folder import RunFolder

POINTS = "() => Number(document.querySelector('[data-panel=reward]')?.dataset.points)"
COUNT = "document.querySelector('.lab-bar output').textContent"
FITS = """() => {
  const main = document.querySelector('[data-testid=stMain]');
  const inside = [...document.querySelectorAll('.lab-play button, .lab-play input, .lab-holder, .lab-chips li')]
    .every((part) => part.getBoundingClientRect().bottom <= innerHeight + 1);
  return inside && main.scrollHeight <= innerHeight && main.scrollWidth <= innerWidth;
}"""


def points(page):
    return page.evaluate(POINTS)


@pytest.mark.timeout(600)
def test_it_plays_on_arrival_and_a_dragged_slider_forks_a_run_whose_curve_moves(page, server):
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto(f"{server.url}/?play=dpo")
    page.wait_for_function(f"({POINTS})() > 40", timeout=SECONDS)  # nearer to update 50 than to 0
    page.wait_for_function(FITS, timeout=SECONDS)
    page.get_by_role("button", name="Pause the recorded run").click()
    stands = points(page)
    slider = page.get_by_role("slider", name=re.compile("^β"))
    box = box_at_rest(slider)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2, steps=4)
    status = page.get_by_role("status").filter(has_text="Release to fork into a live run")
    status.wait_for(timeout=SECONDS)
    assert "DPO goes on from update" in status.inner_text() and points(page) == stands
    page.mouse.up()
    page.locator(".lab-play[data-mode=live]").wait_for(timeout=SECONDS)
    folder = RunFolder(server.runs / "play-dpo-1")
    start = folder.config.steps - 300
    page.wait_for_function(f"({POINTS})() > {start + 1}", timeout=SECONDS)
    (change,) = [row for row in folder.history() if row.get("kind") == "changed"]
    assert (change["step"], change["detail"]["knob"]) == (start, "beta")
    assert change["detail"]["to"] > 0.1 and "live=play-dpo-1" in page.url
    page.get_by_role("status").filter(has_text="Live: DPO trains").wait_for(timeout=SECONDS)
    assert page.locator(".lab-recorded").count() == 4

    slider.press("ArrowRight")
    wait_for(
        lambda: (
            [row for row in folder.read()[0] if row.get("kind") == "changed"][-1]["step"] > start
        )
    )
    page.reload()
    page.locator(".lab-play[data-mode=live]").wait_for(timeout=SECONDS)
    page.get_by_role("button", name="Back to the recorded run, from its start").click()
    page.locator(".lab-play[data-mode=recorded]").wait_for(timeout=SECONDS)
    wait_for(lambda: folder.state in ("stopped", "finished"))
    page.wait_for_function("!location.search.includes('live')", timeout=SECONDS)


@pytest.mark.timeout(600)
def test_on_a_phone_everything_stands_in_the_window_and_nothing_moves_for_who_wants_no_motion(
    browser, server
):
    context = browser.browser.new_context(
        viewport={"width": 390, "height": 844}, reduced_motion="reduce"
    )
    page = context.new_page()
    try:
        page.goto(f"{server.url}/")
        page.wait_for_function(f"({POINTS})() === 40", timeout=SECONDS)
        page.wait_for_function(FITS, timeout=SECONDS)
        assert page.evaluate(COUNT) == "update 40 of 40"
        page.get_by_role("button", name="Play the recorded run").wait_for(timeout=SECONDS)
        page.get_by_role("radio", name="PPO").check(force=True)
        page.wait_for_function(f"{COUNT} === 'update 60 of 60'", timeout=SECONDS)
        page.wait_for_function("location.search.includes('play=ppo')", timeout=SECONDS)
        assert page.get_by_role("slider", name=re.compile("^G")).is_disabled()
        marks = page.locator("[data-part=mark]")
        assert {mark.get_attribute("aria-label") for mark in marks.all()} <= {"right", "wrong"}
        assert marks.count() == 8
    finally:
        context.close()


DASHES = "getComputedStyle(document.querySelector('.lab-recorded')).strokeDasharray"
MARK_AT = """([x, y]) => {
  const box = [...document.querySelectorAll('[data-panel=reward] .lab-handle')].at(-1).getBoundingClientRect();
  return box.left < x && x < box.right && box.top < y && y < box.bottom;
}"""


def press_mark(page):
    """Press the last mark, hold it until the run's next update has drawn the curves anew, and release
    it there. While a run trains its marks move, so this is done again if one has moved away meanwhile.
    """

    def is_pressed():
        box = box_at_rest(page.locator("[data-panel=reward] .lab-handle").last)
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        line = page.locator("[data-panel=reward] .lab-run").element_handle(timeout=SECONDS)
        page.mouse.down()
        was_there = page.evaluate(MARK_AT, [x, y])
        page.wait_for_function("(line) => !line.isConnected", arg=line, timeout=3 * SECONDS)
        is_there = page.evaluate(MARK_AT, [x, y])
        page.mouse.up()
        return was_there and is_there

    wait_for(is_pressed)


@pytest.mark.timeout(600)
def test_a_live_change_has_a_twin_whose_gap_is_shaded_and_named_and_a_click_on_its_mark_undoes_it(
    page, server
):
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto(f"{server.url}/?play=dpo")
    page.wait_for_function(f"({POINTS})() > 15", timeout=3 * SECONDS)
    page.get_by_role("button", name="Pause the recorded run").click()
    slider = page.get_by_role("slider", name=re.compile("^β"))
    slider.fill("9")  # one move: an index of the values around 0.1, below that of 0.1
    page.locator(".lab-play[data-mode=live]").wait_for(timeout=3 * SECONDS)
    mark = page.locator("[data-panel=reward] .lab-mark-text")
    mark.filter(has_text=re.compile(r"β 0\.1 → 0\.0\d+ did this")).wait_for(timeout=3 * SECONDS)
    assert page.locator("[data-panel=reward] .lab-gap").count() == 1

    folder = RunFolder(server.runs / "play-dpo-1")
    slider.fill("5")
    start = folder.config.steps - 300
    (change,) = wait_for(
        lambda: [
            row for row in folder.read()[0] if row.get("kind") == "changed" and row["step"] > start
        ],
        180,
    )
    step, detail = change["step"], change["detail"]
    page.get_by_text("Dashed: the twin, which goes on without the change.").wait_for(
        timeout=5 * SECONDS
    )
    twin = RunFolder(server.runs / f"play-dpo-1-before-{step}")
    assert max(row["step"] for row in twin.history() if row["type"] == "step") > step
    assert [row["step"] for row in twin.history() if row.get("kind") == "changed"] == [start]
    mark.filter(has_text=f"β {detail['from']:g} → {detail['to']:g} did this").wait_for(
        timeout=SECONDS
    )
    page.wait_for_function(
        "document.querySelectorAll('.lab-recorded').length === 4 && document.querySelectorAll("
        "'[data-panel=reward] .lab-gap').length === 1",
        timeout=SECONDS,
    )
    assert page.evaluate(DASHES) != "none"

    press_mark(page)
    page.wait_for_url(f"**live=play-dpo-1-before-{step}*", timeout=3 * SECONDS)
    wait_for(lambda: folder.state in ("stopped", "finished"), 180)
    mark.filter(has_text=re.compile(r"β 0\.1 → 0\.0\d+")).wait_for(timeout=3 * SECONDS)
    page.get_by_role("button", name="Undo").click(timeout=3 * SECONDS)
    page.locator(".lab-play[data-mode=recorded]").wait_for(timeout=3 * SECONDS)
    wait_for(lambda: twin.state in ("stopped", "finished"), 180)


@pytest.mark.timeout(600)
def test_a_page_that_is_left_while_it_plays_raises_no_error_in_the_browser(page, server):
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{server.url}/")
    for _ in range(4):
        page.wait_for_function(f"({POINTS})() > 0", timeout=SECONDS)
        go_to(page, "Story")
        page.locator(".lab-play").wait_for(state="detached", timeout=SECONDS)
        page.locator(".lab-chapter").first.wait_for(timeout=SECONDS)
        go_to(page, "Play")
        page.locator(".lab-chapter").first.wait_for(state="detached", timeout=SECONDS)
    page.wait_for_function(f"({POINTS})() > 0", timeout=SECONDS)
    assert errors == []
