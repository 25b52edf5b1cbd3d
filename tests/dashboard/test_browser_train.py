"""The Train page in a real browser: a zoom while the curves grow, one click from a fresh clone."""

import pytest
from support.browser import SECONDS, box_at_rest, grow, running, wait_for

from lab.runs.folder import RunFolder


@pytest.mark.timeout(600)
def test_a_zoom_survives_the_growth_of_the_curves(page, server, trainer):
    folder = running(server.runs, "a", trainer)
    page.goto(f"{server.url}/?run=a")
    page.locator(".lab-plot .main-svg").first.wait_for(timeout=SECONDS)
    box = box_at_rest(page.locator(".lab-plot .nsewdrag").first)
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 22, steps=8)
    page.mouse.up()
    page.get_by_role("button", name="Whole run").wait_for(timeout=SECONDS)
    zoomed = page.evaluate(
        "document.querySelector('.lab-plot').layout.xaxis.range.map(x => Math.round(x * 10))"
    )
    grow(folder, 10, 60)
    wait_for(lambda: page.locator(".lab-plot").get_attribute("data-step") == "59")
    assert (
        page.evaluate(
            "document.querySelector('.lab-plot').layout.xaxis.range.map(x => Math.round(x * 10))"
        )
        == zoomed
    )
    assert page.evaluate("document.querySelector('.lab-plot').data.some(t => t.x.includes(59))")


@pytest.mark.timeout(600)
def test_a_card_fills_the_form_and_start_trains_it(page, server):
    page.goto(f"{server.url}/train?method=dpo&beta=0.5")
    page.locator(".lab-plot .main-svg").first.wait_for(
        timeout=SECONDS
    )  # a recorded run, before any training
    assert page.get_by_text("recorded", exact=True).count() and "beta=0.5" in page.url
    page.goto(f"{server.url}/train?run=recorded:grpo&run=recorded:dpo")
    page.locator(".lab-legend").get_by_text("grpo (recorded)").wait_for(timeout=SECONDS)
    page.locator(".lab-legend").get_by_text("dpo (recorded)").wait_for(timeout=SECONDS)
    page.goto(f"{server.url}/train?method=dpo&beta=0.5")
    page.get_by_role("button", name="DPO, 32 pairs").click(timeout=SECONDS)
    page.wait_for_url("**pairs=32*", timeout=SECONDS)
    assert not server.runs.exists() or not list(server.runs.glob("dpo-*"))
    page.get_by_test_id("stMain").get_by_role("button", name="Start", exact=True).click(
        timeout=SECONDS
    )
    page.get_by_text("The run sees the same 32 pairs").first.wait_for(timeout=SECONDS)
    folder = RunFolder(server.runs / "dpo-1")
    wait_for(lambda: folder.state == "running")
    page.wait_for_url("**run=dpo-1*", timeout=SECONDS)
    assert folder.config.pairs == 32
    page.get_by_role("button", name="Stop", exact=True).click(timeout=SECONDS)
    wait_for(lambda: folder.state == "stopped")
