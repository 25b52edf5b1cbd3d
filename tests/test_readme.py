"""What the README says that can be checked."""

import json
import re
from pathlib import Path

import pytest

from lab.cli import COMMANDS
from lab.experiments.compare import markdown

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
RECORDED = json.loads((ROOT / "lab" / "assets" / "compare" / "chain-cpu.json").read_text("utf-8"))
BUILD = json.loads((ROOT / "lab" / "assets" / "base" / "BUILD.json").read_text("utf-8"))


def test_the_table_is_the_recorded_one_with_its_command_and_versions():
    assert markdown(RECORDED) in README
    assert f"`{RECORDED['command']}`" in README and RECORDED["device"] in README and f"torch {RECORDED['torch']}" in README


def test_the_recorded_comparison_reaches_what_the_lessons_need():
    rows = {row["method"]: row for row in RECORDED["methods"]}
    assert RECORDED["base"]["gold/accuracy"] <= 0.55
    assert rows["grpo"]["gold/accuracy"]["mean"] >= 0.90 and rows["grpo"]["seconds"]["mean"] <= 60
    assert all(len(runs) >= 3 for runs in RECORDED["runs"].values())


def test_the_starting_point_is_the_one_that_was_built():
    start = BUILD["starting_point"]
    for share in ("answer_alone_accuracy", "scratchpad_accuracy", "scratchpad_share"):
        assert f"{start[share]:.0%}".replace("%", " %") in README


def test_the_first_commands_are_the_three_that_a_newcomer_needs():
    assert re.findall(r"^make \w+", README, re.M)[:3] == ["make app", "make lab", "make test"]


@pytest.mark.parametrize("path", sorted(set(re.findall(r"^((?:lab|tests)/[\w/]*(?:\.py)?|app\.py)", README, re.M)) | set(re.findall(r"docs/[\w.-]+", README))))
def test_every_file_that_the_readme_names_is_there(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"-m lab ([a-z][a-z-]+)", README))))
def test_every_command_that_the_readme_types_exists(command):
    assert command in COMMANDS
