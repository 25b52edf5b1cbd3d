"""All pages of the dashboard, in the order of its navigation."""

from dataclasses import dataclass

from lab.dashboard.state.default_page import DEFAULT_PAGE_URL


@dataclass(frozen=True)
class PageEntry:
    """One page: `module` is its module in `lab.dashboard.pages`, `url` its address on the server,
    `section` the menu that lists it.
    """

    module: str
    title: str
    url: str
    section: str
    default: bool = False
    """Whether an address without a path shows this page."""


PAGES = (
    PageEntry("play.page", "Play", DEFAULT_PAGE_URL, "Start", default=True),
    PageEntry("story.page", "Story", "story", "Start"),
    PageEntry("map.page", "Map", "map", "Start"),
    PageEntry("rlhf_dpo.page", "RLHF and DPO", "rlhf-dpo", "Methods"),
    PageEntry("dpo.page", "DPO", "dpo", "Methods"),
    PageEntry("ipo_kto.page", "IPO and KTO", "ipo-kto", "Methods"),
    PageEntry("grpo.page", "GRPO", "grpo", "Methods"),
    PageEntry("online_offline", "Online and offline", "online", "Methods"),
    PageEntry("choose.page", "Choose a method", "choose", "Methods"),
    PageEntry("train.page", "Train", "train", "Train"),
    PageEntry("runs.page", "Runs", "runs", "Train"),
    PageEntry("talk.page", "Talk", "talk", "Train"),
    PageEntry("taste.page", "Taste", "taste", "Train"),
    PageEntry("evidence.page", "Measurements", "evidence", "Evidence"),
)
"""The order of the menus, and of the links to the page before and after."""
SECTIONS = tuple(dict.fromkeys(page.section for page in PAGES))
