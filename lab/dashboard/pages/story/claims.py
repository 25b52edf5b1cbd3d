"""The article's claims of the story, each with its verdict and its measurement."""

from lab.dashboard.components.story import StoryClaim
from lab.dashboard.pages.map.claims import CLAIM_VERDICTS, RecordedTables
from lab.dashboard.pages.map.methods import METHOD_NODES

KINDS = {True: "holds", False: "fails", None: "open"}


def story_claims(tables: RecordedTables) -> dict[str, StoryClaim]:
    """By key, the article's claims with what the lab measured."""
    claims = {}
    for node in METHOD_NODES.values():
        for claim in node.claims:
            measurement, holds = claim.measure(tables)
            claims[claim.measure.__name__] = StoryClaim(
                claim.article.rstrip("."),
                KINDS[holds],
                CLAIM_VERDICTS[holds],
                measurement,
                tables.tokens.table["command"],
            )
    return claims
