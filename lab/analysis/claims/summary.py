"""The claim of the article's summary that stands in no other section."""

from lab.analysis.claims.claim import Claim, Measurement, Verdict
from lab.analysis.claims.records import Records

SECTION = "Summary"


def r1_potential(records: Records) -> Measurement:
    """Say why the lab cannot measure DeepSeek-R1."""
    return Measurement(
        Verdict.UNTESTABLE,
        "The lab cannot train a model of that size. On its own task GRPO with a rule goes from"
        f" {records.tuned.base} to {records.tuned.text('grpo')}.",
    )


CLAIMS = (
    Claim(
        "r1-potential",
        SECTION,
        "DeepSeek-R1 demonstrated GRPO's enormous potential for reasoning tasks.",
        r1_potential,
        ("tuned",),
        ("grpo",),
    ),
)
