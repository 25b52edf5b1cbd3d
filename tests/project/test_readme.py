"""The README and docs/: their size, their links, and the commands and files that they name."""

import json
import re
import shlex
from pathlib import Path

import pytest

import lab.algorithms.losses
import lab.algorithms.policy_losses
from lab.analysis.recorded_results import RESULTS_FOLDER
from lab.cli.main import COMMANDS, parse
from lab.config.methods import METHODS
from lab.runs.metrics import METRICS

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
README = PAGES["README.md"]
CODE_BLOCK = re.compile(r"^```.*?^```", re.M | re.S)
FILE = r"`((?:lab|tests|scripts|docs)/[\w/.-]*\w/?|app\.py)`"


def anchors(text):
    """The addresses of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", CODE_BLOCK.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def links():
    """Every link of a page to another file or heading of the repository."""
    return [
        (page, target)
        for page, text in PAGES.items()
        for target in re.findall(r"\]\(([^)\s]+)\)", CODE_BLOCK.sub("", text))
        if not target.startswith("http")
    ]


def typed_commands():
    """The arguments of every lab command in a code block, with comments and line breaks removed."""
    found = []
    for page, text in PAGES.items():
        for block in CODE_BLOCK.findall(text):
            for line in block.replace("\\\n", " ").splitlines():
                typed = re.match(r"(?:\S*python\S*|torchrun .*?) -m lab (.*)", line)
                if typed and page != "docs/cli.md":
                    found.append((page, tuple(shlex.split(typed[1], comments=True))))
    return sorted(set(found))


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 130
    assert len(README.split()) <= 1200
    assert len(README.encode()) <= 10_000


def test_the_first_commands_are_the_three_that_a_newcomer_needs():
    assert re.findall(r"^make \w+", README, re.M)[:3] == ["make app", "make lab", "make test"]


@pytest.mark.parametrize(("page", "target"), links())
def test_every_link_leads_somewhere(page, target):
    path, _, anchor = target.partition("#")
    aim = (ROOT / page).parent / path if path else ROOT / page
    made_with_the_site = path.startswith(
        ("live/", "../live/", "notebooks/")
    )  # its strict build checks these
    assert aim.exists() or made_with_the_site
    if anchor:
        assert anchor in anchors(PAGES[str(aim.resolve().relative_to(ROOT))])


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page):
    named = set(re.findall(FILE, PAGES[page]))
    to_be_written = {"lab/training/methods/slic.py"}  # the example of docs/add-a-method.md
    assert [name for name in named - to_be_written if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_names_exists(page):
    named = set(re.findall(r"-m lab ([a-z][a-z-]+)", PAGES[page]))
    assert sorted(named - set(COMMANDS)) == []


@pytest.mark.parametrize(("page", "arguments"), typed_commands())
def test_the_command_line_takes_every_command_that_a_page_shows(page, arguments):
    if "slic" not in arguments:
        parse(list(arguments))


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_that_a_page_names_exists(page):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", PAGES[page], re.M))
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.M)] == []


def test_the_table_of_methods_names_every_method_its_loss_function_and_a_metric():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in README.split("## Methods")[1].split("## ")[0].splitlines()
        if line.startswith("| `")
    ]
    assert sorted(row[0].strip("`") for row in rows) == sorted(METHODS)
    for method, _, function, _, metric in rows:
        name = function.strip("`")
        modules = (lab.algorithms.losses, lab.algorithms.policy_losses)
        assert any(hasattr(module, name) for module in modules), method
        assert metric.strip("`") in METRICS, method


def test_the_map_has_one_line_for_every_package():
    lines = README.split("## Code map")[1].split("```")[1].strip().splitlines()
    named = [line.split()[0] for line in lines]
    packages = {f"lab/{path.parent.name}/" for path in (ROOT / "lab").glob("*/__init__.py")}
    assert sorted(named) == sorted(packages | {"lab/assets/"})


def test_the_recorded_comparison_reaches_what_the_lessons_need():
    recorded = json.loads((RESULTS_FOLDER / "tuned.json").read_text("utf-8"))
    rows = {row["arm"]: row for row in recorded["rows"] if row["view"] == "defaults"}
    assert recorded["base"]["gold/accuracy"]["mean"] <= 0.55
    assert rows["grpo"]["gold/accuracy"]["mean"] >= 0.90
    assert all(len(row["by_seed"]) >= 10 for row in rows.values())
