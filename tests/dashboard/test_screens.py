"""Every page in a real browser, light and dark, wide and narrow: nothing fails, nothing sticks out,
and a picture of each is left in build/screens.
"""

import pytest
from support.browser import ROOT, SECONDS, go_to

from lab.figures.palette import THEMES

PAGES = {
    "play": "Play",
    "story": "Story",
    "map": "Map",
    "rlhf-dpo": "RLHF and DPO",
    "dpo": "DPO",
    "ipo-kto": "IPO and KTO",
    "grpo": "GRPO",
    "online": "Online and offline",
    "choose": "Choose a method",
    "train": "Train",
    "runs": "Runs",
    "talk": "Talk",
    "taste": "Taste",
    "evidence": "Measurements",
}
SCREENS = ROOT / "build" / "screens"
TALLEST = {("choose", 1280): 2 * 800, ("choose", 390): 2 * 844}
"""By page and width of the window, the most pixels that the page may be high: two screens."""
OPENED = """(before) => {  // another page than `before` stands there, down to what it cannot show
  const title = document.querySelector('h1')?.innerText;
  const folds = [...document.querySelectorAll('[data-testid=stExpander] summary, .lab-play summary')];
  return title && title !== before && folds.some((fold) => fold.innerText.includes('What this cannot show')) && title;
}"""
SETTLED = """([theme, width, ink]) => {  // what the browser draws and what the server draws have the theme
  const app = document.querySelector('[data-testid=stApp]'), main = document.querySelector('[data-testid=stMain]');
  const light = Number(getComputedStyle(app).backgroundColor.match(/\\d+/)[0]) > 127;
  return app.dataset.testScriptState === 'notRunning'
    && !main.querySelector('[data-testid=stSpinner], [data-testid=stSkeleton]')
    && light === (theme === 'light')
    && [...main.querySelectorAll('.lab-figure, .lab-plot')].every((figure) => figure.querySelector('.main-svg'))
    && [...main.querySelectorAll('img[src^="data:image/svg"]:not(.lab-spark img)')]
      .every((diagram) => atob(diagram.src.split(',')[1]).includes(ink))
    && [...main.querySelectorAll('.main-svg')].every((figure) => figure.clientWidth <= width);
}"""

CUT = """(main) => [...main.querySelectorAll('.katex-display, [data-testid=stButtonGroup] [role=radiogroup]')]
  .filter((row) => row.scrollWidth > row.clientWidth + 4).map((row) => row.textContent)"""
"""Formulas and buttons that are cut by more than their rounding."""


@pytest.mark.timeout(600)
def test_every_page_is_shown_whole_in_both_themes_and_at_both_widths(page, server):
    """One visit: from page to page by its link, and on each the window narrows, the system's theme
    changes and the window widens again.
    """
    SCREENS.mkdir(parents=True, exist_ok=True)
    page.goto(f"{server.url}/talk")
    title, themes = page.wait_for_function(OPENED, timeout=SECONDS).json_value(), ("light", "dark")
    for name, label in PAGES.items():
        go_to(page, label)
        title = page.wait_for_function(OPENED, arg=title, timeout=SECONDS).json_value()
        for theme, width in zip((*themes[:1] * 2, *themes[1:] * 2), (1280, 390, 390, 1280)):
            page.emulate_media(color_scheme=theme)
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_function(
                SETTLED, arg=[theme, width, THEMES[theme]["muted"]], timeout=SECONDS
            )
            problems = page.locator(
                "[data-testid=stException], [data-testid=stAlertContentError], .lab-problem"
            )
            assert problems.all_inner_texts() == [], name
            main = page.locator("[data-testid=stMain]")
            assert main.evaluate("(main) => main.scrollWidth") <= width, (
                f"{name} is wider than the window"
            )
            assert main.evaluate(CUT) == [], name
            height = main.evaluate("(main) => main.scrollHeight")
            assert height <= TALLEST.get((name, width), height), name
            page.set_viewport_size({"width": width, "height": min(height, 6000)})
            page.screenshot(path=SCREENS / f"{name}-{theme}-{width}.png")
        themes = themes[::-1]


def test_on_a_phone_the_menu_closes_when_a_page_was_picked(page, server):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{server.url}/map")
    left = "document.querySelector('[data-testid=stSidebar]')?.getBoundingClientRect().x"
    page.get_by_test_id("stExpandSidebarButton").click(timeout=SECONDS)
    page.wait_for_function(f"{left} === 0", timeout=SECONDS)
    page.get_by_test_id("stSidebarNavLink").filter(has_text="Runs").click(timeout=SECONDS)
    page.wait_for_function("location.pathname === '/runs'", timeout=SECONDS)
    page.wait_for_function(f"!({left} > -200)", timeout=SECONDS)
