"""What an instructor needs: the outline, the bank of questions, the slides; and the first cell of a notebook."""

import json
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
import torch
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from lab.algorithms.advantages import group_advantages, whiten
from lab.algorithms.losses import dpo_loss, ipo_loss, kto_loss
from lab.cli.main import main
from lab.course.build_notebooks import (
    MAX_NOTEBOOK_BYTES,
    code_digest,
    notebooks,
    put_setup_cells,
    read_notebook,
)
from lab.course.exercises.registry import EXERCISES
from lab.course.outline import DIFFICULTIES, GOALS, PLANS, exercise_table, notebook_table
from lab.course.quiz_bank import LETTERS, quiz_bank, quiz_page
from lab.course.setup_cell import SETUP, put_setup_cell, setup_source
from lab.errors import LabError

ROOT = Path(__file__).parents[2]
QUESTIONS = quiz_bank()


# --- the outline


def test_every_exercise_has_a_goal_and_every_notebook_time_for_its_exercises():
    assert set(EXERCISES) <= set(GOALS)
    for name, goal in GOALS.items():
        assert 2 <= goal.minutes <= 20 and 1 <= goal.difficulty <= len(DIFFICULTIES), name
    for path in notebooks():
        plan = PLANS[path.name[:2]]
        own = [n for n, e in EXERCISES.items() if e.notebook == int(path.name[:2])]
        assert sum(GOALS[name].minutes for name in own) < plan.minutes, path.name
        assert all(number < path.name[:2] and number in PLANS for number in plan.before)


def test_the_tables_have_a_row_for_each_exercise_and_notebook_and_badges_with_an_address():
    assert exercise_table().count("\n") == len(EXERCISES) + 1
    plain, badges = notebook_table(""), notebook_table("someone/alignment-lab")
    assert plain.count("\n") == badges.count("\n") == len(notebooks()) + 1
    assert "colab" not in plain
    for path in notebooks():
        link = f"colab.research.google.com/github/someone/alignment-lab/blob/main/notebooks/{path.name}"
        assert link in badges and f"(notebooks/{path.stem}.md)" in plain


# --- the bank of questions


def test_there_are_forty_questions_and_each_wrong_option_has_its_misconception():
    assert len(QUESTIONS) == 40 == len({q.question for q in QUESTIONS})
    for question in QUESTIONS:
        assert len(question.options) == len(question.misconceptions) == len(LETTERS)
        assert len(set(question.options)) == 4, question.question
        wrong = [text for text in question.misconceptions if text]
        assert len(wrong) == 3 == len(set(wrong)), question.question
        assert all(len(text) >= 15 for text in [*wrong, question.why])
        assert question.question.endswith(("?", "."))


def test_the_right_options_are_balanced_by_place_and_are_not_the_longest_ones():
    places = Counter(q.right for q in QUESTIONS)
    assert all(8 <= places[place] <= 12 for place in range(4)), places
    longest = sum(max(q.options, key=len) == q.options[q.right] for q in QUESTIONS)
    assert longest <= len(QUESTIONS) / 2
    assert {q.notebook for q in QUESTIONS} >= {f"0{n}" for n in range(1, 8)}


def numbers():
    """What the questions with a number have as the right option, and the same from the definitions."""
    t = torch.tensor
    zero = t([0.0], dtype=torch.float64)
    one_of_four = group_advantages(t([1.0, 0, 0, 0]), 4, scale="group")[0]
    two = group_advantages(t([1.0, 0.2]), 2, scale="group")[0]
    pair = [t([v], dtype=torch.float64) for v in (-10.0, -20.0, -15.0, -15.0)]
    good = kto_loss(
        zero, zero, t([True]), t(0.0), beta=0.1, desirable_weight=1.0, undesirable_weight=1.0
    )[0]
    whitened = whiten(t([[3.0, 5.0, 9.0]]), torch.ones(1, 3, dtype=torch.bool))
    surrogate = -min(1.5 * -1.0, 1.2 * -1.0)
    return {
        "0.313": dpo_loss(*pair, beta=0.1)[0].item(),
        "log 2 ≈ 0.693 for every β": dpo_loss(zero, zero, zero, zero, beta=3.0)[0].item(),
        "25": ipo_loss(zero, zero, zero, zero, beta=0.1)[0].item(),
        "At 5": 1 / (2 * 0.1),
        "0.5": good.item(),
        "3/4": 3 / (3 + 1),
        "1.50": one_of_four.item(),
        "About ±0.707, whatever the gap is": two.item(),
        "0.43": 0.9**8 + 0.1**8,
        "1.5": surrogate,
        "0": whitened.mean().item(),
        "5 to 6.7": 100 / 20,
    }


def test_the_numbers_of_the_right_options_are_those_of_the_definitions():
    right = {q.options[q.right] for q in QUESTIONS}
    for text, value in numbers().items():
        assert text in right
        shown = re.search(r"(?:≈ |±|At )?(\d+(?:\.\d+)?)(/4)?", text.replace("log 2 ≈ ", ""))
        number = float(shown[1]) / (4 if shown[2] else 1)
        digits = len(shown[1].partition(".")[2])
        assert math.isclose(number, value, abs_tol=0.5 * 10**-digits + 1e-4), (text, value)


def test_the_page_folds_the_answers_and_names_the_right_letter():
    page = quiz_page()
    assert page.count("<details") == page.count("</details>") == 40
    answers = re.findall(r"^\*\*([A-D])\.\*\*", page, re.M)
    assert answers == [LETTERS[q.right] for q in QUESTIONS]


# --- slides


def test_slides_show_passages_and_figures_and_need_no_network(tmp_path, capsys):
    main(["course", "slides", str(tmp_path), "--only", "03"])
    (page,) = tmp_path.glob("*.html")
    assert capsys.readouterr().out.strip() == str(page)
    text = page.read_text("utf-8")
    head = read_notebook(notebooks()[3]).cells[0].source.splitlines()[0]
    assert head.partition(" · ")[2][:20] in text
    figures = sum(
        "image/png" in output.get("data", {})
        for cell in read_notebook(notebooks()[3]).cells
        for output in cell.get("outputs", [])
    )
    assert text.count('src="data:image/png;base64') == figures > 0
    assert text.count("<section") >= figures + 5
    assert "def my_" not in text and "Hint</summary>" not in text
    loaded = re.findall(r'<(?:script|link)[^>]*?(?:src|href)="([^"]+)"', text)
    assert loaded and all((tmp_path / name).is_file() for name in loaded)


def test_slides_of_a_notebook_that_does_not_exist_are_an_error(tmp_path):
    from lab.course.slides import write_slides

    with pytest.raises(LabError, match="Unknown notebook '77'"):
        write_slides(tmp_path, "77")


# --- the first cell


def run_cell(tmp_path, **settings):
    """Run the cell by a Python that has pip's command alone, as a module of this test's own."""
    fake = tmp_path / "pip"
    fake.mkdir(exist_ok=True)
    (fake / "__init__.py").write_text("")
    (fake / "__main__.py").write_text(
        "import pathlib, sys\n"
        f"pathlib.Path({str(tmp_path / 'asked.json')!r}).write_text(repr(sys.argv[1:]))\n"
    )
    return subprocess.run(
        [sys.executable, "-S", "-c", setup_source()],
        env={"PYTHONPATH": str(tmp_path), **settings},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_cell_installs_what_lab_install_names_and_says_so_where_nothing_is_named(tmp_path):
    done = run_cell(tmp_path, LAB_INSTALL="'/a folder/lab.whl' -c pins.txt")
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked.json").read_text()
    assert asked == "['install', '--quiet', '/a folder/lab.whl', '-c', 'pins.txt']"
    (tmp_path / "asked.json").unlink()
    done = run_cell(tmp_path)
    assert "Set LAB_INSTALL" in done.stderr and not (tmp_path / "asked.json").exists()


def test_where_the_lab_is_the_cell_does_nothing(tmp_path):
    (tmp_path / "alab.py").write_text("")
    done = run_cell(tmp_path, LAB_INSTALL="anything")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "asked.json").exists()


def test_with_an_address_the_cell_installs_from_there():
    source = setup_source("someone/alignment-lab")
    assert "git+https://github.com/someone/alignment-lab" in source
    assert max(map(len, source.splitlines())) <= 115


def test_the_cell_comes_behind_the_title_once_and_an_executed_notebook_stays_executed(tmp_path):
    made = new_notebook(
        cells=[new_markdown_cell("# 77 · Why?"), new_code_cell("a = 1"), new_code_cell("print(a)")]
    )
    for number, cell in enumerate(made.cells[1:], 1):
        cell.execution_count = number
    made.metadata["lab"] = {"code": code_digest(made), "fast": [[], ["1\n"]]}
    path = tmp_path / "77.ipynb"
    nbformat.write(made, path)
    assert put_setup_cells([path]) == [path] and put_setup_cells([path]) == []
    found = read_notebook(path)
    nbformat.validate(found)
    assert [c.get("execution_count") for c in found.cells] == [None, 1, 2, 3]
    assert found.cells[1].metadata["tags"] == [SETUP]
    assert found.metadata["lab"]["fast"] == [[], [], ["1\n"]]
    assert found.metadata["lab"]["code"] == code_digest(found)
    found.cells[1].source = "an older text"
    put_setup_cell(found)
    assert [c.source for c in found.cells[1:]] == [setup_source(), "a = 1", "print(a)"]
    assert len(found.metadata["lab"]["fast"]) == 3


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_every_notebook_begins_with_the_cell_and_is_smaller_than_a_megabyte(path):
    code = [cell for cell in read_notebook(path).cells if cell.cell_type == "code"]
    assert code[0].source == setup_source() and code[0].outputs == []
    assert path.stat().st_size <= MAX_NOTEBOOK_BYTES == 1_000_000


# --- elsewhere


def test_codespaces_and_binder_install_the_lab_at_the_pinned_versions():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["image"].endswith("python:3.11")
    assert "-c constraints.txt" in container["postCreateCommand"]
    build = (ROOT / "binder" / "postBuild").read_text()
    assert "-c /tmp/constraints.txt ." in build
    environment = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text())
    assert "python=3.11" in environment["dependencies"]
    (torch,) = (d for d in environment["dependencies"] if str(d).startswith("pytorch-cpu"))
    pins = (ROOT / "constraints.txt").read_text()
    pinned = Version(re.search(r"^torch==(.+)$", pins, re.M)[1])
    assert pinned in SpecifierSet(torch.removeprefix("pytorch-cpu"))
