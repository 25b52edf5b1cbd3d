"""The command `claims`: what the article says, beside the lab's measurements."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.analysis.claims.claim import Claim
from lab.analysis.claims.records import Records
from lab.cli.arguments import OutFolder
from lab.config.input_checks import require_writable
from lab.errors import LabError
from lab.storage.paths import runs_root


def claims(key: str = "", /, *, rerun: bool = False, out: OutFolder = None) -> None:
    """List the claims of the article with the verdicts of the lab's measurements, or show one claim.

    Args:
        key: A claim, by its key in the list; left out, all.
        rerun: Measure the claim again with its commands, and show the new verdict too.
        out: Folder of the new measurement; left out, claims in the folder of runs.
    """
    from lab.analysis.claims.table import CLAIMS, find_claim

    records = Records()
    if not key:
        if rerun:
            raise LabError(
                "rerun measures one claim, but none is given. Add its key: claims KEY --rerun"
            )
        for claim in CLAIMS.values():
            print(f"{claim.key:24} {claim.measure(records).verdict:22} {claim.sentence}")
        return
    claim = find_claim(key)
    _print(claim, records)
    for command in claim.commands(records):
        print(f"  {command}")
    if rerun:
        folder = out or runs_root() / "claims"
        require_writable("out", folder, folder=True)
        print("Measured again:")
        _print(claim, Records(measure_again(claim, records, folder)))


def _print(claim: Claim, records: Records) -> None:
    found = claim.measure(records)
    print(f"“{claim.sentence}”\n{found.verdict}: {found.text}")


def measure_again(claim: Claim, records: Records, folder: Path) -> dict[str, dict[str, Any]]:
    """Run the commands behind a claim, each in a process of its own; return their tables by record.

    Raises `LabError` when a command fails. An interrupted measurement continues from `folder`.
    """
    tables = {}
    for name in claim.records:
        words = shlex.split(records[name]["command"])[3:]  # After `python -m lab`.
        to = table = folder / name / "table.json"
        if "--out" in words:  # This command writes one file.
            del words[words.index("--out") : words.index("--out") + 2]
        else:
            to = table.parent
        table.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([sys.executable, "-m", "lab", *words, "--out", str(to)], check=False)
        if done.returncode:
            raise LabError(
                f"python -m lab {shlex.join(words)} ended with exit code {done.returncode}. Its message"
                " stands above."
            )
        tables[name] = json.loads(table.read_text("utf-8"))
    return tables
