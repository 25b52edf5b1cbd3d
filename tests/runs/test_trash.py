"""Deleting a run and bringing it back."""

import os
import shutil

import pytest
from support.run_folders import finished

from lab.errors import LabError
from lab.runs.catalogue import list_runs
from lab.runs.folder import RunFolder
from lab.runs.trash import TRASH_FOLDER, discard, restore, trashed_runs


@pytest.fixture
def root(tmp_path):
    finished(tmp_path / "runs", "a", seed=1)
    finished(tmp_path / "runs", "b")
    finished(tmp_path, "outside")
    return tmp_path / "runs"


def names(root):
    return [run.name for run in list_runs(root)]


def test_a_deleted_run_is_gone_and_comes_back_whole(root):
    place = discard(root, "a")
    assert (
        names(root) == ["b"]
        and trashed_runs(root) == [place]
        and (root / TRASH_FOLDER / "a" / "config.json").is_file()
    )
    assert restore(root, place) == "a"
    assert (
        names(root) == ["a", "b"]
        and RunFolder(root / "a").config.seed == 1
        and trashed_runs(root) == []
    )


def test_runs_of_one_name_lie_in_the_trash_side_by_side_and_none_overwrites_another(root):
    first = discard(root, "a")
    finished(root, "a", seed=2)
    second = discard(root, "a")
    assert (first, second) == ("a", "a~2") and set(trashed_runs(root)) == {"a", "a~2"}
    assert (restore(root, second), restore(root, first)) == ("a", "a-2")
    assert (RunFolder(root / "a").config.seed, RunFolder(root / "a-2").config.seed) == (2, 1)


def test_a_run_that_trains_is_not_deleted(root):
    folder = RunFolder(root / "a")
    folder.write_status("running", 0)
    with pytest.raises(LabError, match="being trained"):
        discard(root, "a")
    assert names(root) == ["a", "b"]
    folder.write_status("queued", 0)
    with pytest.raises(LabError, match="queue"):
        discard(root, "a")
    folder.write_status("finished", 0)
    discard(root, "a")


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "..",
        ".",
        "",
        "/etc",
        "a/../../outside",
        "..\\outside",
        ".trash",
        "a\0",
        "no-such-run",
        "a~2",
    ],
)
def test_nothing_but_a_run_of_this_folder_is_deleted_or_brought_back(root, name):
    before = sorted(os.walk(root.parent))
    for act in (discard, restore):
        with pytest.raises(LabError):
            act(root, name)
    shutil.rmtree(root / TRASH_FOLDER, ignore_errors=True)
    assert sorted(os.walk(root.parent)) == before


def test_a_folder_that_is_no_run_is_not_deleted(root):
    (root / "notes").mkdir()
    with pytest.raises(LabError, match="no run"):
        discard(root, "notes")


def test_a_link_is_moved_and_what_it_points_to_stays(root):
    (root / "link").symlink_to(root.parent / "outside")
    discard(root, "link")
    assert (root.parent / "outside" / "config.json").is_file() and not (root / "link").exists()
