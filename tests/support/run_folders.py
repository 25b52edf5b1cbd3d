"""Run folders made without training."""

from lab.config.methods import make_config
from lab.runs.folder import create


def finished(root, name, **knobs):
    folder = create(root / name, make_config("dpo", knobs))
    folder.write_status("finished", 0)
    return folder
