"""Takes the three small pictures of README.md from recorded runs on the page Train, with Chromium.

python scripts/take_pictures.py http://localhost:8501   while the dashboard runs there
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parents[1] / "docs"
PICTURES = {
    "dpo-that-collapses": "picture-collapse.png",
    "grpo": "picture-thinking.png",
    "reward-hacked": "picture-hacked.png",
}
"""Recorded run → file in docs/."""
LEFT, WIDTH, HEIGHT = 30, 390, 412  # Pixels: one panel a row, the first two panels.
PATIENCE = 60_000


def take(server: str, browser_path: str | None) -> None:
    """Write every picture."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": 1600}, color_scheme="light", device_scale_factor=1.5
        )
        for run, name in PICTURES.items():
            page.goto(f"{server}/train?run=recorded:{run}")
            plot = page.locator(".js-plotly-plot").first
            plot.locator("path.js-line").first.wait_for(timeout=PATIENCE, state="attached")
            box = plot.bounding_box()
            page.screenshot(
                path=DOCS / name,
                clip={"x": LEFT, "y": box["y"], "width": WIDTH - LEFT, "height": HEIGHT},
                full_page=True,
            )
        browser.close()


if __name__ == "__main__":
    take(sys.argv[1].rstrip("/"), shutil.which("chromium"))
