"""KaTeX in docs/assets/katex and the recipe that fetches it; the network is not used."""

import importlib.util
import io
import re
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("fetch_katex", ROOT / "scripts/fetch_katex.py")
recipe = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(recipe)

STYLES = (
    '@font-face{src:url(fonts/A-B.woff2) format("woff2"),url(fonts/A-B.woff) format("woff"),'
    'url(fonts/A-B.ttf) format("truetype")}'
)


def test_the_script_is_the_version_that_the_recipe_names():
    script = (recipe.TARGET / "katex.min.js").read_text("utf-8")
    assert f'version:"{recipe.VERSION}"' in script
    assert "MIT" in (recipe.TARGET / "LICENSE.txt").read_text("utf-8")


def test_the_styles_ask_for_fonts_that_are_there_and_for_nothing_else():
    styles = (recipe.TARGET / "katex.min.css").read_text("utf-8")
    fonts = {path.name for path in (recipe.TARGET / "fonts").iterdir()}
    assert {name.removeprefix("fonts/") for name in re.findall(r"url\(([^)]*)\)", styles)} == fonts


def test_the_recipe_keeps_script_styles_woff2_and_licence(tmp_path):
    files = {
        "package/LICENSE": "MIT",
        "package/dist/katex.min.js": "draws",
        "package/dist/katex.js": "draws at length",
        "package/dist/katex.min.css": STYLES,
        "package/dist/fonts/A-B.woff2": "letters",
        "package/dist/fonts/A-B.ttf": "larger letters",
        "package/dist/fonts/../../../outside.woff2": "elsewhere",
    }
    archive = tmp_path / "katex.tgz"
    with tarfile.open(archive, "w:gz") as package:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            package.addfile(member, io.BytesIO(text.encode()))
    target = tmp_path / "katex"
    written = recipe.install(archive, target)
    assert [path.relative_to(target).as_posix() for path in written] == [
        "LICENSE.txt",
        "fonts/A-B.woff2",
        "katex.min.css",
        "katex.min.js",
    ]
    assert (target / "katex.min.css").read_text() == (
        '@font-face{src:url(fonts/A-B.woff2) format("woff2")}'
    )
