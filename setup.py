"""The one step of a build that pyproject.toml cannot declare: a wheel also holds the notebooks and the
dashboard's entry, which lie beside the package in a clone.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# pip may otherwise download for minutes before it says so.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        f"error: The lab needs Python 3.11 or newer, and this is {sys.version.split()[0]}. Install a"
        " newer one, and make an environment with it: python3.12 -m venv .venv"
    )

ROOT = Path(__file__).parent
TOP_LEVEL = ["app.py", ".streamlit/*.toml", "static/*", "notebooks/[0-9][0-9]-*.ipynb"]
TOP_LEVEL += ["docs/assets/katex/*.*", "docs/assets/katex/fonts/*"]

if not os.access(ROOT, os.W_OK):
    sys.exit(
        f"error: The build writes into {ROOT.resolve()}, which may not be written. Copy the lab to a"
        " folder that you may write, and install it from there."
    )


class BuildWithTopLevel(build_py):
    """Copies `TOP_LEVEL` to `lab/top_level`, where `lab.storage.paths.top_level` finds them."""

    def run(self) -> None:
        """Build; an editable installation uses the clone's own files."""
        super().run()
        if self.editable_mode:
            return
        for pattern in TOP_LEVEL:
            for source in sorted(ROOT.glob(pattern)):
                target = Path(self.build_lib, "lab", "top_level", source.relative_to(ROOT))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)


setup(cmdclass={"build_py": BuildWithTopLevel})
