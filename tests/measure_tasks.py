"""Five tasks as a new user does them, in a browser on this machine: what each takes in clicks and seconds.

    python tests/measure_tasks.py                        # each task in two windows
    python tests/measure_tasks.py --pictures /tmp/tasks  # and a picture of the end of each

Every task begins on the first page of a new server, in a new browser, and ends when the page says what
the user wanted to know. A press, a drag and a move of the pointer onto something count as one click each;
so does scrolling to something that is not in view. The script does not read or hesitate, so that a person
needs longer. The machine's load stands beside the seconds.
"""

import argparse
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure_pages import load
from playwright.sync_api import Locator, Page, sync_playwright
from support.browser import CHROMIUM, FLAGS, SECONDS, Server, box_at_rest

WINDOWS = {"1280x800": (1280, 800), "390x844": (390, 844)}
READY = ".lab-play path.lab-run"


class Hand:
    """Does what a hand does on a page, and counts it."""

    def __init__(self, page: Page) -> None:
        self.page, self.clicks = page, 0

    def to(self, target: Locator) -> dict[str, float]:
        """Scroll to the target where that is needed; returns its box."""
        target.wait_for(timeout=SECONDS)
        box, size = target.bounding_box(), self.page.viewport_size
        assert size
        if not box or box["y"] < 0 or box["y"] + box["height"] > size["height"]:
            target.scroll_into_view_if_needed(timeout=SECONDS)
            self.clicks += 1
        return box_at_rest(target)

    def press(self, target: Locator) -> None:
        self.to(target)
        target.click(timeout=SECONDS)
        self.clicks += 1

    def drag(self, slider: Locator, share: float) -> None:
        """Drag the slider to a share of its track."""
        box = self.to(slider)
        y = box["y"] + box["height"] / 2
        value, most = int(slider.input_value()), int(slider.get_attribute("max") or 1)
        ends = [box["x"] + 9 + (box["width"] - 18) * at for at in (value / most, share)]
        self.page.mouse.move(ends[0], y)
        self.page.mouse.down()
        self.page.mouse.move(ends[1], y, steps=8)
        self.page.mouse.up()
        self.clicks += 1

    def open(self, title: str, section: str) -> None:
        """Go to a page by the menu."""
        menu = self.page.get_by_test_id("stExpandSidebarButton")
        if menu.is_visible():  # a narrow window
            self.press(menu)
            self.press(self.page.get_by_test_id("stSidebarNavLink").filter(has_text=_whole(title)))
            return
        self.press(self.page.get_by_test_id("stTopNavSection").filter(has_text=section))
        self.press(self.page.get_by_test_id("stTopNavDropdownLink").filter(has_text=_whole(title)))


def _whole(text: str) -> re.Pattern[str]:
    return re.compile(f"^{re.escape(text)}$")


def find_the_effect_of_beta(page: Page, hand: Hand) -> str:
    """Drag β, and read what its change did to the KL beside the run without it."""
    hand.drag(page.locator("#lab-play-beta"), 0.9)
    page.locator(".lab-mark-text", has_text="did this").first.wait_for(timeout=SECONDS)
    value = page.locator(".lab-charts figure:has([data-panel=kl]) .lab-value")
    page.wait_for_function(
        "document.querySelector('.lab-charts figure:has([data-panel=kl]) .lab-value').title",
        timeout=SECONDS,
    )
    return value.get_attribute("title") or ""


def make_a_run_collapse(page: Page, hand: Hand) -> str:
    """Drag the learning rate to the end of its full range, until hardly an answer is right."""
    hand.press(page.get_by_text("full range"))
    hand.drag(page.locator("#lab-play-learning_rate"), 1.0)
    page.wait_for_function(
        "parseFloat(document.querySelector('.lab-play[data-mode=live]"
        " figure:has([data-panel=accuracy]) .lab-value')?.textContent) < 0.1",
        timeout=SECONDS,
    )
    return page.locator(".lab-charts figure").first.inner_text().replace("\n", " ")


def tell_which_answer_grpo_pushed(page: Page, hand: Hand) -> str:
    """Open page GRPO, apply one update, and point at the card that rose most."""
    hand.open("GRPO", "Methods")
    page.locator(".lab-group[data-phase=done]").wait_for(timeout=SECONDS)
    hand.press(page.get_by_role("button", name="Apply one update"))
    page.wait_for_function(
        "!document.querySelector('.lab-group').dataset.busy?.match('true')"
        " && document.querySelector('.lab-group').dataset.phase === 'done'"
        " && /update/.test(document.querySelector('.lab-group .lab-says').textContent)",
        timeout=SECONDS,
    )
    card = page.locator(".lab-card.lab-right").first
    hand.to(card)
    card.hover()
    hand.clicks += 1
    return page.locator(".lab-group .lab-says").inner_text()


def stop_a_run_and_resume_it(page: Page, hand: Hand) -> str:
    """Start a run on page Train, stop it, and let it go on from where it stood."""
    hand.open("Train", "Train")
    hand.press(page.locator(".st-key-start button"))
    hand.press(page.get_by_role("button", name="Stop", exact=True))
    again = page.get_by_role("button", name=re.compile("^Continue from step"))
    hand.press(again)
    page.get_by_role("button", name="Pause", exact=True).wait_for(timeout=SECONDS)
    return "the run trains again"


def show_it_to_a_class(page: Page, hand: Hand) -> str:
    """Open the presentation of the first page: one figure, and a code that phones read."""
    hand.press(page.get_by_role("button", name="Present"))
    page.locator(".lab-present-code svg").wait_for(timeout=SECONDS)
    page.locator("[data-lab-presented]").wait_for(timeout=SECONDS)
    return page.url.partition("?")[2]


TASKS: dict[str, Callable[[Page, Hand], str]] = {
    "find the effect of β": find_the_effect_of_beta,
    "make a run collapse": make_a_run_collapse,
    "tell which answer GRPO pushed": tell_which_answer_grpo_pushed,
    "stop a run and resume it": stop_a_run_and_resume_it,
    "show it to a class": show_it_to_a_class,
}


def measure(playwright: Any, task: str, window: str, pictures: Path | None) -> None:
    """Print the clicks and the seconds of a task, and what the page said at its end."""
    width, height = WINDOWS[window]
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "runs")
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": width, "height": height})
            began = time.perf_counter()
            page.goto(server.url)
            page.locator(READY).first.wait_for(timeout=SECONDS, state="attached")
            there, hand = time.perf_counter(), Hand(page)
            try:
                said = TASKS[task](page, hand)
                ended = time.perf_counter()
            finally:
                if pictures:
                    page.screenshot(path=pictures / f"{window}-{task.replace(' ', '-')}.png")
            print(
                f"{window:8} {task:30} {hand.clicks} clicks, {ended - there:5.1f} s after"
                f" {there - began:.1f} s of loading; {load()}; {said}",
                flush=True,
            )
            browser.close()
        finally:
            server.kill()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--windows", nargs="+", choices=WINDOWS, default=list(WINDOWS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--pictures", type=Path, help="a folder for a picture of the end of each")
    asked = parser.parse_args()
    if asked.pictures:
        asked.pictures.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        for window in asked.windows:
            for task in asked.tasks:
                try:
                    measure(playwright, task, window, asked.pictures)
                except Exception as error:  # the other tasks still count
                    print(f"{window:8} {task:30} not done: {str(error)[:300]}", flush=True)


if __name__ == "__main__":
    main()
