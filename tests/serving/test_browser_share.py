"""The shared file in a real browser, from the disk and without a network."""

import pytest
from support.browser import SECONDS
from support.run_folders import EVIL, recorded, sample

from lab.serving.share import share_page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_file_opens_without_a_network_and_its_button_replays_the_run(browser, tmp_path, scheme):
    samples = [
        sample(0, 0, EVIL, held_out=True, gold=0.0, answer="2"),
        sample(4, 0, "the last words", held_out=True, gold=1.0, answer="2"),
    ]
    path = tmp_path / "run.html"
    path.write_text(share_page(recorded(tmp_path, samples=samples), title=EVIL), "utf-8")
    context = browser.browser.new_context(
        viewport={"width": 1280, "height": 800}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    problems, asked = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.clock.install()
        page.goto(path.as_uri())
        page.get_by_text("the last words").first.wait_for(timeout=SECONDS)
        assert page.locator("svg").count() == 2 and page.locator(".mark").count() == 2
        assert page.get_by_text("β 0.1 → 0.02").count() == 2
        whole = page.locator(".run").first.get_attribute("d")
        page.evaluate(
            "seen = []; new MutationObserver(() => seen.push(document.body.dataset.at))"
            ".observe(document.body, {attributes: true, attributeFilter: ['data-at']})"
        )
        page.get_by_role("button", name="Play").click()
        page.get_by_role("button", name="Pause").wait_for(timeout=SECONDS)
        page.clock.run_for(11_000)
        page.get_by_role("button", name="Play").wait_for(timeout=SECONDS)  # it is at its end
        assert page.evaluate("['1', '2', '3', '4'].every((at) => seen.includes(at))")
        assert page.locator(".run").first.get_attribute("d") == whole
        slider = page.get_by_role("slider")
        slider.press("Home")
        page.wait_for_function("document.body.dataset.at === '0'", timeout=SECONDS)
        assert page.locator(".mark").count() == 0
        assert page.locator(".samples").inner_text().count("onerror") == 2  # prompt and completion
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 23, 26)")
        assert page.title() == EVIL and page.locator("img").count() == 0
        assert problems == [] and asked == [path.as_uri()]
    finally:
        context.close()
