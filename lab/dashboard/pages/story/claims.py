"""The article's claims of the story, each with its verdict and its measurement."""

import streamlit as st

from lab.analysis.claims.claim import Verdict
from lab.analysis.claims.records import Records
from lab.analysis.claims.table import CLAIMS, find_claim
from lab.dashboard.components.story import StoryClaim

KINDS = {
    Verdict.HOLDS: "holds",
    Verdict.HOLDS_HERE: "holds",
    Verdict.FAILS_HERE: "fails",
    Verdict.UNDECIDED: "open",
    Verdict.UNTESTABLE: "open",
}


@st.cache_data(show_spinner=False)
def measured_claim(key: str) -> StoryClaim:
    """The claim of this key with its measurement."""
    claim, records = find_claim(key), Records()
    measurement = claim.measure(records)
    return StoryClaim(
        claim.sentence.rstrip("."),
        KINDS[measurement.verdict],
        measurement.verdict,
        measurement.text,
        "; ".join(claim.commands(records)),
    )


def claims(*keys: str) -> tuple[StoryClaim, ...]:
    """The claims of these keys, as far as their results are recorded."""
    return tuple(measured_claim(key) for key in keys if key in CLAIMS)


def claims_of_section(section: str, without: tuple[str, ...] = ()) -> tuple[StoryClaim, ...]:
    """All claims of a section of the article but those `without`."""
    return claims(
        *(key for key, claim in CLAIMS.items() if claim.section == section and key not in without)
    )
