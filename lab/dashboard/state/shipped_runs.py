"""The runs that the lab ships."""

from pathlib import Path

import lab
from lab.config.presets import RUN_PRESETS
from lab.runs.folder import RunFolder

SHIPPED_RUNS_FOLDER = Path(lab.__file__).parent / "assets" / "runs"
SHIPPED_TITLES = {preset.run_name: preset.title for preset in RUN_PRESETS if preset.knobs}
"""By folder name, the title of a shipped run that belongs to a preset."""

EARLIER_NAMES = {
    "a-stronger-pull": "dpo-with-a-larger-beta",
    "beta-too-small": "ipo-with-a-small-beta",
    "coin-flips": "rewards-at-random",
    "out-of-reach": "ipo-with-a-margin-per-token",
    "tiny-data": "dpo-on-32-pairs",
}
"""By an earlier folder name of a shipped run, which an address may hold, its present one."""
_PRESET_ORDER = {preset.run_name: place for place, preset in enumerate(RUN_PRESETS)}


def preset_order(name: str) -> int:
    """The place of a shipped run in a list: those of the presets in their order, then the others."""
    return _PRESET_ORDER.get(name, len(_PRESET_ORDER))


def shipped_run(method: str) -> RunFolder | None:
    """The shipped run of a method with its default knobs; None if the lab ships none."""
    path = SHIPPED_RUNS_FOLDER / method
    return RunFolder(path) if (path / "config.json").is_file() else None
