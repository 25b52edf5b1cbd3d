"""All pages of the dashboard, in the order of its navigation."""

from dataclasses import dataclass

from lab.dashboard.components.layout import DEFAULT_PAGE_URL


@dataclass(frozen=True)
class PageEntry:
    """One page: `module` is its module in `lab.dashboard.pages`, `url` its address on the server."""

    module: str
    title: str
    url: str
    default: bool = False
    """Whether an address without a path shows this page."""


PAGES = (
    PageEntry("play.page", "Play", DEFAULT_PAGE_URL, default=True),
    PageEntry("map.page", "Map", "map"),
    PageEntry("rlhf_dpo.page", "RLHF and DPO", "rlhf-dpo"),
    PageEntry("dpo.page", "DPO", "dpo"),
    PageEntry("ipo_kto.page", "IPO and KTO", "ipo-kto"),
    PageEntry("grpo.page", "GRPO", "grpo"),
    PageEntry("online_offline", "Online and offline", "online"),
    PageEntry("choose.page", "Choose a method", "choose"),
    PageEntry("train.page", "Train", "train"),
    PageEntry("runs.page", "Runs", "runs"),
    PageEntry("talk.page", "Talk", "talk"),
    PageEntry("taste.page", "Taste", "taste"),
)
