"""Replaces KaTeX in docs/assets/katex, which draws the formulas of the site: `python scripts/fetch_katex.py`.

For another version change `VERSION`, run this, and commit the files. Fonts are kept as woff2 alone,
which every browser that the site supports reads.
"""

import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

VERSION = "0.19.1"
TARGET = Path(__file__).parents[1] / "docs" / "assets" / "katex"
OTHER_FONT_FORMATS = re.compile(r',url\([^)]*\.(?:woff|ttf)\) format\("\w+"\)')


def install(archive: Path, target: Path = TARGET) -> list[Path]:
    """Write the script, the styles, the fonts and the licence of an npm archive into `target`, which
    is emptied before, and return their paths.
    """
    shutil.rmtree(target, ignore_errors=True)
    (target / "fonts").mkdir(parents=True)
    with tarfile.open(archive) as package:
        for member in package.getmembers():
            name = member.name.removeprefix("package/dist/").removeprefix("package/")
            file = package.extractfile(member)
            if file is None:
                continue
            if name == "katex.min.css":
                styles = OTHER_FONT_FORMATS.sub("", file.read().decode("utf-8"))
                (target / name).write_text(styles, "utf-8")
            elif name == "LICENSE":
                (target / "LICENSE.txt").write_bytes(file.read())
            elif name == "katex.min.js" or re.fullmatch(r"fonts/[\w-]+\.woff2", name):
                (target / name).write_bytes(file.read())
    return sorted(path for path in target.rglob("*") if path.is_file())


def main() -> None:
    """Download and install `VERSION`."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", f"katex@{VERSION}", "--pack-destination", folder], check=True
        )
        for path in install(Path(folder) / f"katex-{VERSION}.tgz"):
            print(path)


if __name__ == "__main__":
    main()
