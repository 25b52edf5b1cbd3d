"""The GRPO page in a real browser: G is dragged, the group grows at once, and the address follows."""

import re

import pytest
from support.browser import SECONDS, opened, wait_for

BARS = (
    "document.querySelector('.lab-figure').data.filter((trace) => trace.type ==="
    " 'bar').reduce((sum, trace) => sum + (trace.x?.length ?? 0), 0)"
)


def test_an_arrow_key_doubles_the_group_before_the_server_knows_and_resample_keeps_its_size(
    page, server
):
    opened(page, server, "grpo?from=the%20base&G=8&more=")
    slider = page.get_by_role("slider", name=re.compile("G, completions"))
    assert page.evaluate(BARS) == 8
    asked = page.evaluate(
        """(bars) => {
      const input = document.querySelector('.lab-slider input');
      input.value = String(Number(input.value) + 1);
      input.dispatchEvent(new Event('input', {bubbles: true}));
      return [eval(bars), location.search];
    }""",
        BARS,
    )
    assert asked[0] == 16 and "G=8" in asked[1]
    slider.press("ArrowRight")
    wait_for(lambda: "G=32" in page.evaluate("location.href"))
    assert page.evaluate(BARS) == 32 and page.locator(".lab-says").first.inner_text().startswith(
        "G = 32: mean "
    )
    page.get_by_role("button", name="Resample").click()
    wait_for(lambda: "draw=1" in page.evaluate("location.href"))
    wait_for(lambda: "random order number 1;" in page.content())
    assert "G=32" in page.evaluate("location.href") and page.evaluate(BARS) == 32


CUT = """() => [...document.querySelectorAll('.lab-samples-box, .lab-samples-box :is(td, th)')]
  .filter((part) => part.clientWidth && part.scrollWidth > part.clientWidth + 1)
  .map((part) => part.textContent.slice(0, 60))"""


@pytest.mark.timeout(600)
def test_tables_of_completions_wrap_and_cut_nothing_on_a_phone(page, server):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{server.url}/grpo?from=the%20base&more=Learning%20to%20think")
    page.get_by_text("The completions of this group").click(timeout=SECONDS)
    table = page.locator(".lab-samples-box").filter(has_text="advantage A")
    table.locator("tbody tr").first.wait_for(timeout=SECONDS)
    page.get_by_text("one completion for each of some held-out prompts").wait_for(timeout=SECONDS)
    assert page.locator(".lab-samples-box").count() == 2 and page.evaluate(CUT) == []
