"""The files by which others join the project: they parse, and they agree with the project."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PINS = dict(re.findall(r"^([\w.-]+)==(.+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.M))
PAGES = ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", ".github/pull_request_template.md"]
YAML = sorted(
    [*ROOT.glob(".github/**/*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"]
)


def read(name: str):
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_each_file_is_yaml(path):
    assert isinstance(yaml.safe_load(path.read_text("utf-8")), dict)


def test_the_version_is_the_same_everywhere():
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    newest, day = re.search(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)$", changelog, re.M).groups()
    citation = read("CITATION.cff")
    assert newest == citation["version"] == PROJECT["version"]
    assert day == str(citation["date-released"])
    assert PROJECT["license"] == citation["license"]


def test_the_citation_has_what_its_format_asks_for():
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0" and citation["authors"][0]["name"]


def test_the_workflow_calls_the_script_of_ci_on_three_systems():
    workflow = read(".github/workflows/ci.yml")
    (job,) = workflow["jobs"].values()
    assert [system.split("-")[0] for system in job["strategy"]["matrix"]["os"]] == [
        "ubuntu",
        "macos",
        "windows",
    ]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == [".ci/run"] and job["defaults"]["run"]["shell"] == "bash"
    python = next(step for step in job["steps"] if "setup-python" in step.get("uses", ""))
    assert PROJECT["requires-python"] == f">={python['with']['python-version']}"
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML reads the key "on" as true


def test_pre_commit_runs_the_pinned_ruff_and_the_environments_mypy():
    ruff, local = read(".pre-commit-config.yaml")["repos"]
    assert ruff["rev"] == f"v{PINS['ruff']}"
    assert [hook["id"] for hook in ruff["hooks"]] == ["ruff-check", "ruff-format"]
    assert local["repo"] == "local" and local["hooks"][0]["entry"] == "python -m mypy"


def test_dependabot_watches_python_and_the_workflow():
    kinds = {update["package-ecosystem"] for update in read(".github/dependabot.yml")["updates"]}
    assert kinds == {"pip", "github-actions"}


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/ISSUE_TEMPLATE/[!c]*.yml")), ids=str)
def test_an_issue_template_has_a_name_a_description_and_questions(path):
    form = yaml.safe_load(path.read_text("utf-8"))
    assert form["name"] and form["description"]
    assert all(field["attributes"]["label"] for field in form["body"])


@pytest.mark.parametrize("name", PAGES)
def test_the_files_and_make_targets_that_a_page_names_exist(name):
    text = (ROOT / name).read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    assert set(re.findall(r"\bmake ([a-z]+)\b", text)) <= targets | {"sure"}
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / name).parent.joinpath(link).exists(), link


def test_what_the_page_on_security_says_of_loading_is_true_of_the_code():
    calls = [
        (path, node, ast.unparse(node.func))
        for path in (ROOT / "lab").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
    ]
    loads = [node for _, node, name in calls if name == "torch.load"]
    assert loads and all(
        any(
            word.arg == "weights_only" and ast.unparse(word.value) == "True"
            for word in node.keywords
        )
        for node in loads
    )
    trusting = [
        ast.unparse(word.value)
        for _, node, _ in calls
        for word in node.keywords
        if word.arg == "trust_remote_code"
    ]
    assert set(trusting) == {"False"}
    unpickling = {path.name for path, _, name in calls if name in ("pickle.load", "pickle.loads")}
    assert unpickling == {"sandbox.py"}  # between the lab's own processes, over their pipes
