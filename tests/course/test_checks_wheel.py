"""The small package with the checks: unpacked by itself it checks a learner's function, and nothing of the
dashboard or of training is in it.
"""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lab.course.checks_wheel import build_checks_wheel

TRY = """
import sys, pathlib
import lab
assert pathlib.Path(lab.__file__).is_relative_to(sys.argv[1]), lab.__file__
from lab.course.check import check
from torch.nn.functional import logsigmoid
def my_dpo_loss(cw, cl, rw, rl, beta):
    return -logsigmoid(beta * ((cw - rw) - (cl - rl)))
check(my_dpo_loss, recorded=False, seed=1)
check("my_dpo_loss", lambda cw, cl, rw, rl, beta: -my_dpo_loss(cw, cl, rw, rl, beta), recorded=False, seed=1)
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"streamlit", "jupyterlab", "plotly", "datasets", "pyarrow", "nbformat"}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_checks_wheel(tmp_path_factory.mktemp("wheel"))


def test_the_unpacked_package_checks_a_function_without_the_lab(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines[0].startswith("Right: my_dpo_loss agrees") and lines[1].startswith("Not yet: ")
    assert lines[-1] == "[]"


def test_the_package_has_no_dashboard_no_training_loop_and_no_solutions(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for absent in (
        "lab/dashboard/",
        "lab/training/loop.py",
        "lab/course/solutions.py",
        "lab/assets/",
    ):
        assert not any(name.startswith(absent) for name in names), absent
    assert "lab/course/checker.py" in names and "alab.py" in names
    assert wheel.stat().st_size < 400_000


def test_the_docs_give_the_size_of_the_package(wheel):
    text = (Path(__file__).parents[2] / "docs" / "course.md").read_text("utf-8")
    size, count = map(int, re.search(r"\(about (\d+) kB, about (\d+) modules\)", text).groups())
    modules = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")]
    # Rounded numbers of words such as "about": off by at most a twelfth.
    assert wheel.stat().st_size / 1000 == pytest.approx(size, rel=1 / 12)
    assert len(modules) == pytest.approx(count, rel=1 / 12)
