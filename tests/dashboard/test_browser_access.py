"""Every page at its own address in a real browser: nothing is asked for in vain, nothing is said on
the console, and axe-core finds no serious fault in either theme.
"""

import importlib.util
import os
from pathlib import Path

import pytest
from support.browser import SECONDS, VIEWPORT
from test_screens import OPENED, PAGES, SETTLED

from lab.figures.palette import THEMES

FAULTS = """() => axe.run(document, { resultTypes: ['violations'] }).then((found) => found.violations
  .filter(({ impact }) => impact === 'serious' || impact === 'critical')
  .flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 200)}`)))"""


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, from the package axe-playwright-python."""
    spec = importlib.util.find_spec("axe_playwright_python")
    if spec is None or not spec.submodule_search_locations:
        if os.environ.get("CI"):
            pytest.fail("axe-playwright-python is missing, which is among the tests' packages.")
        pytest.skip("Install axe-playwright-python to look for faults with axe-core.")
    folder = Path(next(iter(spec.submodule_search_locations)))
    return (folder / "axe.min.js").read_text("utf-8")


@pytest.fixture
def noted(page) -> list[str]:
    """What goes wrong on the page: errors on the console, of scripts, and of requests."""
    problems: list[str] = []
    page.on(
        "console",
        lambda message: (
            problems.append(f"{message.text} {message.location.get('url')}")
            if message.type == "error"
            else None
        ),
    )
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "response",
        lambda response: (
            problems.append(f"{response.status} {response.url}") if response.status >= 400 else None
        ),
    )
    return problems


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_errors_and_everybody_can_use_it(page, server, axe, noted, name):
    page.set_viewport_size(VIEWPORT)
    page.goto(f"{server.url}/{name}" if name != "play" else server.url)
    page.wait_for_function(OPENED, arg=None, timeout=SECONDS)
    page.evaluate(axe)
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.wait_for_function(
            SETTLED, arg=[theme, VIEWPORT["width"], THEMES[theme]["muted"]], timeout=SECONDS
        )
        assert page.evaluate(FAULTS) == [], theme
    assert noted == []
