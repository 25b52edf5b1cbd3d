"""Every page in a real browser, light and dark, wide and narrow: nothing fails, nothing sticks out, and a picture of each is left in build/screens."""

from itertools import product

import pytest
from browser import ROOT, SECONDS

PAGES = ("map", "rlhf-dpo", "dpo", "ipo-kto", "grpo", "online", "choose", "", "runs", "talk")
SCREENS = ROOT / "build" / "screens"


@pytest.mark.timeout(280)
def test_every_page_is_shown_whole_in_both_themes_and_at_both_widths(page, server):
    SCREENS.mkdir(parents=True, exist_ok=True)
    for name, theme, width in product(PAGES, ("light", "dark"), (1280, 390)):
        page.emulate_media(color_scheme=theme)
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{server.url}/{name}")
        page.locator("h1").first.wait_for(timeout=SECONDS)
        page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget], [data-testid=stSpinner]')", timeout=SECONDS)
        page.locator("[data-testid=stExpander]").last.wait_for(timeout=SECONDS)  # What a page cannot show stands at its end.
        assert page.locator("[data-testid=stException], [data-testid=stAlertContentError], .lab-problem").count() == 0, name
        assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= width, f"{name} is wider than the window"
        height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        page.set_viewport_size({"width": width, "height": min(height, 6000)})
        page.screenshot(path=SCREENS / f"{name or 'train'}-{theme}-{width}.png")
