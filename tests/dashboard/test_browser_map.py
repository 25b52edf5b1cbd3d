"""The Map and its neighbours in a real browser: a click on a node, a step of the update, one page
after the other.
"""

import re

import pytest
from support.browser import SECONDS, go_to, opened


@pytest.mark.timeout(600)
def test_a_click_on_a_node_picks_it_and_pages_switch_in_a_moment(page, server):
    opened(page, server, "map?method=dpo")
    page.locator(".st-key-graph svg text").filter(has_text=re.compile("^IPO$")).first.click(
        timeout=SECONDS
    )
    page.get_by_role("heading", name="IPO", exact=True).wait_for(timeout=SECONDS)
    page.wait_for_url("**method=ipo**", timeout=SECONDS)
    page.get_by_role("radio", name="GRPO").or_(
        page.get_by_role("button", name="GRPO", exact=True)
    ).last.click(timeout=SECONDS)
    page.get_by_role("heading", name="GRPO", exact=True).wait_for(timeout=SECONDS)

    for name, heading in (
        ("Online and offline", "Does the training data still"),
        ("Map", "Which problem did each method"),
        ("Online and offline", "Does the training data still"),
    ):
        go_to(page, name)
        page.get_by_role("heading", name=re.compile(heading)).wait_for(timeout=SECONDS)

    go_to(page, "RLHF and DPO")
    page.get_by_role("button", name="2 Score").click(timeout=SECONDS)
    page.wait_for_url("**step=score**", timeout=SECONDS)
    page.get_by_text("The reward model gives the completion").wait_for(timeout=SECONDS)
