"""The block with the claims of the article and their verdicts."""

from collections import Counter

from docs_blocks.markdown import markdown_table
from lab.analysis.claims.claim import Verdict
from lab.analysis.claims.records import Records
from lab.analysis.claims.table import CLAIMS


def table() -> str:
    """Return every claim with its verdict, numbers and commands, section by section."""
    records = Records()
    measured = {key: claim.measure(records) for key, claim in CLAIMS.items()}
    counts = Counter(found.verdict for found in measured.values())
    listed = "; ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)
    parts = [f"{len(CLAIMS)} claims: {listed}."]
    for section in dict.fromkeys(claim.section for claim in CLAIMS.values()):
        rows = []
        for key, claim in CLAIMS.items():
            if claim.section != section:
                continue
            commands = "<br>".join(f"`{command}`" for command in claim.commands(records))
            text = measured[key].text.replace("|", "\\|")
            rows.append([claim.sentence, f"**{measured[key].verdict}**", text, commands])
        heads = ["claim", "verdict", "measurement", "command"]
        parts.append(f"## {section}\n\n{markdown_table(heads, rows)}")
    return "\n\n".join(parts)


BLOCKS = {"claims": table}
