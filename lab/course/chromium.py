"""Where Chromium or Chrome lies on this machine."""

import os
import shutil
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
MACOS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
WINDOWS_FOLDERS = ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")


def chromium_path() -> str | None:
    """Return the path of the browser's program, or None if none is installed: from PATH, or from the
    folders in which macOS and Windows keep it.
    """
    windows = [
        Path(os.environ[folder], "Google", "Chrome", "Application", "chrome.exe")
        for folder in WINDOWS_FOLDERS
        if folder in os.environ
    ]
    found = (shutil.which(name) for name in NAMES)
    places = (str(path) for path in (*map(Path, MACOS), *windows) if path.is_file())
    return next(filter(None, found), None) or next(places, None)
