"""The plotly.js bundle in static/ and the recipe that fetches it; the network is not used."""

import importlib.util
import io
import tarfile

import pytest
from plotly.offline import get_plotlyjs_version
from support.browser import ROOT

from lab.dashboard.components.js_component import PLOTLY_FILE_NAME, PLOTLY_VERSION

SPEC = importlib.util.spec_from_file_location("fetch_plotly", ROOT / "scripts/fetch_plotly.py")
recipe = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(recipe)


def npm_archive(path, version):
    """An npm package with a bundle that says it is of this version."""
    files = {
        recipe.BUNDLE: f"/**\n* plotly.js (cartesian - minified) v{version}\n*/ drawing",
        recipe.LICENSE: "MIT License",
    }
    with tarfile.open(path, "w:gz") as package:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            package.addfile(member, io.BytesIO(text.encode()))


def test_file_name_code_installed_plotly_and_recipe_name_one_version(tmp_path):
    assert [path.name for path in (ROOT / "static").glob("plotly*.js")] == [PLOTLY_FILE_NAME]
    assert PLOTLY_FILE_NAME == f"plotly-cartesian-{PLOTLY_VERSION}.min.js"
    assert get_plotlyjs_version() == PLOTLY_VERSION
    assert recipe.pack_command(PLOTLY_VERSION, tmp_path) == [
        "npm",
        "pack",
        f"plotly.js-cartesian-dist-min@{PLOTLY_VERSION}",
        "--pack-destination",
        str(tmp_path),
    ]
    assert recipe.STATIC == ROOT / "static"


def test_make_plotly_runs_the_recipe():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert "\nplotly: $(INSTALLED)\n\t$(BIN)/python scripts/fetch_plotly.py\n" in makefile
    assert "plotly" in makefile.partition(".PHONY:")[2].splitlines()[0].split()


def test_the_recipe_writes_the_bundle_its_licence_and_removes_the_old_bundle(tmp_path, monkeypatch):
    def pack(command, check):
        assert check and command[:2] == ["npm", "pack"]
        npm_archive(f"{command[-1]}/{recipe.archive_name(PLOTLY_VERSION)}", PLOTLY_VERSION)

    (tmp_path / "plotly-cartesian-1.0.0.min.js").write_text("old")
    monkeypatch.setattr(recipe.subprocess, "run", pack)
    monkeypatch.setattr(recipe.install, "__defaults__", (tmp_path,))
    recipe.main()
    assert {path.name for path in tmp_path.iterdir()} == {PLOTLY_FILE_NAME, "plotly-LICENSE.txt"}
    written, shipped = (
        (folder / PLOTLY_FILE_NAME).read_text("utf-8") for folder in (tmp_path, ROOT / "static")
    )
    assert "drawing" in written
    # the line must be the first one: Chromium looks for it nowhere else
    assert {text.partition("\n")[0] for text in (written, shipped)} == {
        "//# allFunctionsCalledOnLoad"
    }


def test_a_bundle_of_another_version_is_refused(tmp_path):
    npm_archive(tmp_path / "bundle.tgz", "9.9.9")
    with pytest.raises(ValueError, match="another version than 1.0.0"):
        recipe.install(tmp_path / "bundle.tgz", "1.0.0", tmp_path)
