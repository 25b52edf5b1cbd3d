"""The command `claims`: the list, one claim, and a claim that is measured again."""

import json
import subprocess
import sys

import pytest

from lab.analysis.claims.records import Records
from lab.analysis.claims.table import CLAIMS
from lab.analysis.recorded_results import load_result
from lab.cli import claims
from lab.errors import LabError


def test_the_list_names_every_claim_and_one_claim_shows_its_commands(capsys):
    claims.claims()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(CLAIMS)
    claims.claims("ipo-margin")
    said = capsys.readouterr().out
    assert "holds: At β = 0.1 IPO pushes" in said and load_result("margins")["command"] in said


def test_a_rerun_takes_one_claim():
    with pytest.raises(LabError, match="none is given"):
        claims.claims(rerun=True)


@pytest.mark.parametrize(
    ("key", "record", "ending"),
    [
        ("ipo-margin", "margins", ["--out", "OUT/margins"]),
        ("memory-dpo", "resources-h100", ["--out", "OUT/resources-h100/table.json"]),
    ],
)
def test_a_claim_is_measured_again_by_the_command_of_its_record(
    key, record, ending, tmp_path, monkeypatch, capsys
):
    # The numbers of the new measurement decide: here DPO's memory is 41 % of RLHF's.
    table = load_result(record)
    for row in table["rows"]:
        if row.get("arm") in ("dpo", "ppo.separate"):
            row["measured"] = 41 if row["arm"] == "dpo" else 100
    seen = []

    def run(words, check):
        seen.append(words)
        (tmp_path / record / "table.json").write_text(json.dumps(table))
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(claims.subprocess, "run", run)
    claims.claims(key, rerun=True, out=tmp_path)
    said = capsys.readouterr().out
    (words,) = seen
    assert words[:3] == [sys.executable, "-m", "lab"] and words.count("--out") == 1
    assert words[-2:] == [word.replace("OUT", str(tmp_path)) for word in ending]
    told = load_result(record)["command"].split(" --out")[0].split()[3:]
    assert words[3:-2] == told
    if key == "memory-dpo":
        assert "Measured again:" in said and "holds here: Peak memory" in said


def test_a_command_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        claims.subprocess, "run", lambda words, check: subprocess.CompletedProcess(words, 2)
    )
    with pytest.raises(LabError, match="lab experiment margins .* exit code 2"):
        claims.measure_again(CLAIMS["ipo-margin"], Records(), tmp_path)
