"""The Train page in a real browser: start a run, steer it, lose the page and the server, find
everything again.
"""

import re

import pytest
from support.browser import SECONDS, wait_for

from lab.runs.folder import RunFolder


def drawn_step(page):
    return int(page.locator(".lab-plot").get_attribute("data-step", timeout=SECONDS) or 0)


@pytest.mark.timeout(600)
def test_a_run_is_started_steered_and_found_again_after_a_refresh_and_a_killed_server(
    page, own_server
):
    server = own_server
    page.goto(f"{server.url}/train")
    page.get_by_role("button", name="All other settings").or_(
        page.get_by_text("All other settings")
    ).first.click(timeout=SECONDS)
    for label, value in (
        ("steps", "5000"),  # It ends by a command, however slow the browser is.
        ("batch size", "16"),
        ("eval prompts", "16"),
        ("eval every", "2"),
    ):
        box = page.get_by_role("spinbutton", name=label, exact=True)
        box.fill(value, timeout=SECONDS)
        box.press("Tab")
        page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')")
    page.get_by_test_id("stMain").get_by_role("button", name="Start", exact=True).click()
    folder = RunFolder(server.runs / "grpo-1")

    def told():
        log = folder.path / "log.txt"
        return (
            f"{folder.state}, {folder.status()}; log: {log.read_text('utf-8')[-2000:]}; page:"
            f" {page.get_by_test_id('stMain').inner_text()[:1000]}"
        )

    page.locator('.lab-plot[aria-label^="grpo-1:"] .main-svg').first.wait_for(
        timeout=SECONDS
    )  # until then a recorded run is drawn
    assert "run=grpo-1" in page.url
    assert (folder.config.steps, folder.config.batch_size, folder.config.beta) == (5000, 16, 0.0)
    first = drawn_step(page)
    wait_for(lambda: drawn_step(page) > first)

    page.get_by_role("slider", name=re.compile("β of this run")).press("ArrowRight")
    changed = wait_for(
        lambda: [
            row for row in folder.read()[0] if row["type"] == "event" and row["kind"] == "changed"
        ]
    )
    beta = changed[0]["detail"]["to"]
    assert changed[0]["detail"]["knob"] == "beta" and beta > 0
    page.get_by_text(re.compile(r"The run answered: β 0 → .* from step \d+ on")).wait_for(
        timeout=SECONDS
    )
    page.locator(".lab-plot .annotation-text", has_text=f"β {beta:g}").first.wait_for(
        timeout=SECONDS
    )

    page.reload()
    wait_for(lambda: drawn_step(page) > first)
    page.locator(".lab-plot .annotation-text", has_text=f"β {beta:g}").first.wait_for(
        timeout=SECONDS
    )

    server.kill()
    before = folder.status()["step"]
    wait_for(lambda: folder.status()["step"] > before, told=told)
    assert folder.state == "running"
    server.start()
    page.goto(f"{server.url}/?run=grpo-1")
    wait_for(lambda: drawn_step(page) > before)

    page.get_by_role("button", name="Pause", exact=True).click()
    wait_for(lambda: folder.state == "paused", told=told)
    page.get_by_role("button", name="Continue", exact=True).click(timeout=SECONDS)
    wait_for(lambda: folder.state == "running", told=told)
    page.get_by_role("button", name="Stop", exact=True).click(timeout=SECONDS)
    wait_for(lambda: folder.state == "stopped", told=told)
    page.get_by_text("stopped, step").wait_for(timeout=SECONDS)
    assert (folder.path / "adapter" / "adapter_model.safetensors").is_file()
    stopped_at = folder.status()["step"]
    page.get_by_role("button", name=f"Continue from step {stopped_at}").click(timeout=SECONDS)
    wait_for(lambda: folder.state == "running" and folder.status()["step"] > stopped_at, told=told)
    page.get_by_role("button", name="Stop", exact=True).click(timeout=SECONDS)
    wait_for(lambda: folder.state == "stopped", told=told)
    steps = [row["step"] for row in folder.history() if row["type"] == "step"]
    assert steps == list(range(steps[-1] + 1))
