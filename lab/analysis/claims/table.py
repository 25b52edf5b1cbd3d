"""All claims: those of the article in its order, then those of papers."""

from lab.analysis.claims import chart, dpo, grpo, papers, rlhf, selection, summary, variants
from lab.analysis.claims.claim import Claim
from lab.errors import unknown

CLAIMS: dict[str, Claim] = {
    claim.key: claim
    for part in (rlhf, dpo, variants, grpo, selection, chart, summary, papers)
    for claim in part.CLAIMS
}
"""Every claim by its key."""


def find_claim(key: str) -> Claim:
    """Return the claim of this key. Raises `LabError`, with the nearest keys, for an unknown one."""
    if key not in CLAIMS:
        raise unknown("claim", key, list(CLAIMS))
    return CLAIMS[key]


def claims_about(method: str) -> list[Claim]:
    """Return the claims that speak about a method."""
    return [claim for claim in CLAIMS.values() if method in claim.methods]
