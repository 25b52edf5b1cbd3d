"""The lab: DPO, IPO, KTO, GRPO and RLHF as real LoRA training, with pages that show it.

`train` and the other names below are documented in docs/python-api.md. They are imported when they are first
used, so that `import lab` does not import torch.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import alab

if TYPE_CHECKING:
    from lab.api import Training, train, trained_policy
    from lab.errors import LabError
    from lab.runs.folder import RunFolder
    from lab.runs.records import Event, StepRecord
    from lab.serving.side_by_side import PolicyWithReference

__all__ = [
    "Event",
    "LabError",
    "PolicyWithReference",
    "RunFolder",
    "StepRecord",
    "Training",
    "train",
    "trained_policy",
]

_MODULES = {
    "Event": "lab.runs.records",
    "LabError": "lab.errors",
    "PolicyWithReference": "lab.serving.side_by_side",
    "RunFolder": "lab.runs.folder",
    "StepRecord": "lab.runs.records",
    "Training": "lab.api",
    "train": "lab.api",
    "trained_policy": "lab.api",
}

alab.require_own_folder(Path(__file__).parent)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'lab' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)
