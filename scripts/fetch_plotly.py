"""Replaces the plotly.js bundle in static/ by the version that the dashboard names. `make plotly` runs it.

To upgrade plotly.js: upgrade the Python package plotly, set `PLOTLY_VERSION` in
lab/dashboard/components/js_component.py to the version that `plotly.offline.get_plotlyjs_version()`
returns, run `make plotly`, and commit the new file in static/.
"""

import subprocess
import tarfile
import tempfile
from pathlib import Path

STATIC = Path(__file__).parents[1] / "static"
PACKAGE = "plotly.js-cartesian-dist-min"  # plotly.js without maps and 3D: a third of its size
BUNDLE = "package/plotly-cartesian.min.js"  # its path inside the npm package
LICENSE = "package/LICENSE"
EAGER = b"//# allFunctionsCalledOnLoad\n"
"""A first line that lets Chromium compile the whole file beside the page's main thread, while it
arrives. Without it the first figure compiles thousands of functions one by one on the main thread.
"""


def pack_command(version: str, folder: Path) -> list[str]:
    """The command that downloads the npm package of a version, as a .tgz file, into `folder`."""
    return ["npm", "pack", f"{PACKAGE}@{version}", "--pack-destination", str(folder)]


def archive_name(version: str) -> str:
    """The name of the file that `pack_command` writes."""
    return f"{PACKAGE}-{version}.tgz"


def install(archive: Path, version: str, static: Path = STATIC) -> Path:
    """Write the bundle of an npm archive, after the line `EAGER`, and its licence into `static`, remove
    bundles of other versions, and return the bundle's path. Raises `ValueError` if the bundle is of
    another version.
    """
    with tarfile.open(archive) as package:
        bundle, licence = (_read(package, name) for name in (BUNDLE, LICENSE))
    if f"v{version}\n".encode() not in bundle[:200]:
        raise ValueError(
            f"{archive.name} holds another version than {version}. Delete it and retry."
        )
    for old_bundle in static.glob("plotly-cartesian-*.min.js"):
        old_bundle.unlink()
    (static / "plotly-LICENSE.txt").write_bytes(licence)
    path = static / f"plotly-cartesian-{version}.min.js"
    path.write_bytes(EAGER + bundle)
    return path


def _read(package: tarfile.TarFile, name: str) -> bytes:
    file = package.extractfile(name)
    assert file is not None  # a regular file
    with file:
        return file.read()


def main() -> None:
    """Download and install the bundle of the version that the dashboard names."""
    from lab.dashboard.components.js_component import PLOTLY_VERSION

    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(pack_command(PLOTLY_VERSION, Path(folder)), check=True)
        print(install(Path(folder) / archive_name(PLOTLY_VERSION), PLOTLY_VERSION))


if __name__ == "__main__":
    main()
