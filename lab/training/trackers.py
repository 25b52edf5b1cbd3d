"""Sends the records of a run to the trackers that `report_to` names: TensorBoard, Weights & Biases and
Trackio. A tracker that fails is left out with a note, and the run goes on.
"""

import contextlib
import importlib.util
import math
import netrc
import os
import sys
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

from lab.config.config_file import to_yaml
from lab.config.json_format import to_dict
from lab.config.methods import method_of
from lab.config.run_config import RunConfig
from lab.runs.folder import RunFolder
from lab.runs.records import Event, StepRecord
from lab.runs.trl_names import trl_metrics
from lab.training.state import TrainState

PROJECT = "alignment-lab"
WANDB_ID_FILE = "wandb-id.txt"  # Under it a resumed run goes on as the same run.
MAX_REASON_LENGTH = 200


class Tracker(Protocol):
    """One open tracker; `note` is a remark for the start of the run."""

    note: str

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Send the metrics of an update."""

    def close(self) -> None:
        """Send the rest and end."""


class TensorBoard:
    """Event files in the folder `tensorboard` of the run."""

    note = ""

    def __init__(self, folder: RunFolder, config: RunConfig, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(  # type: ignore[no-untyped-call]
            str(folder.path / "tensorboard"), purge_step=step + 1 if step else None
        )
        if not step:
            self._writer.add_text("config", f"```yaml\n{to_yaml(config)}```")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Append the metrics to the event file, where a reader sees them at once."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases; without a login it is recorded offline in the run's folder."""

    def __init__(self, folder: RunFolder, config: RunConfig, step: int) -> None:
        import wandb

        offline = "WANDB_MODE" not in os.environ and not _is_logged_in_to_wandb()
        self.note = (
            f"wandb is not logged in, so it records offline in {folder.path / 'wandb'}. To send it"
            " later: wandb login, then wandb sync with the folder in there."
            if offline
            else ""
        )
        path = folder.path / WANDB_ID_FILE
        known = path.read_text("utf-8").strip() if step and path.is_file() else None
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            id=known,
            resume="allow" if known else None,
            dir=str(folder.path),
            config=to_dict(config),
            mode="offline" if offline else None,
            settings=wandb.Settings(console="off", silent=True, reinit="create_new"),
        )
        path.write_text(f"{self._run.id}\n", "utf-8")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Send the metrics."""
        self._run.log(metrics, step=step)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


class Trackio:
    """A run of Trackio, on this machine or where its environment variables say."""

    note = ""

    def __init__(self, folder: RunFolder, config: RunConfig, step: int) -> None:
        import trackio

        with contextlib.redirect_stdout(sys.stderr):  # It prints how to open its dashboard.
            self._run: Any = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", PROJECT),
                name=folder.name,
                config=to_dict(config),
                resume="allow" if step else "never",
                embed=False,
            )

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Send the metrics."""
        self._run.log(metrics, step=step)

    def close(self) -> None:
        """Send what is left."""
        with contextlib.redirect_stdout(sys.stderr):
            self._run.finish()


TRACKERS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": WandB, "trackio": Trackio}
"""The trackers by the names of their packages, which `report_to` takes."""


def is_installed(name: str) -> bool:
    """Return whether the package of a tracker can be imported."""
    return importlib.util.find_spec(name) is not None


def _is_logged_in_to_wandb() -> bool:
    """Whether wandb finds a key without asking for one: in its environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    places: list[str] = [os.environ.get("NETRC", "")]
    places += [str(Path.home() / name) for name in (".netrc", "_netrc")]
    for place in filter(None, places):
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(place).authenticators(host):
                return True
    return False


class Trackers:
    """The open trackers of a run. Notes on them are added to `run.notes`."""

    def __init__(self, folder: RunFolder, run: TrainState) -> None:
        self._open: dict[str, Tracker] = {}
        names = dict.fromkeys(name.strip() for name in run.config.report_to.split(","))
        for name in filter(TRACKERS.__contains__, names):
            if not is_installed(name):
                run.notes.append(
                    f"{name} is not installed, so it gets no metrics; the run goes on. To have it:"
                    f" pip install {name}"
                )
                continue
            try:
                self._open[name] = TRACKERS[name](folder, run.config, run.step)
            except (
                Exception
            ) as error:  # Each tracker has errors of its own, and none may end a run.
                run.notes.append(_failed(name, error))
            else:
                run.notes += filter(None, [self._open[name].note])

    def log(self, record: StepRecord | Event, run: TrainState) -> None:
        """Send the metrics of an update under TRL's names; a tracker that fails gets no more."""
        if not isinstance(record, StepRecord) or not self._open:
            return
        method = method_of(run.config)
        metrics = {
            name: value
            for name, value in trl_metrics(method, record.metrics).items()
            if math.isfinite(value)
        } | {"train/completion_tokens": float(record.tokens), "train/seconds": record.seconds}
        for name, tracker in list(self._open.items()):
            try:
                tracker.log(record.step, metrics)
            except Exception as error:  # The same as at the start.
                run.notes.append(_failed(name, error))
                del self._open[name]

    def close(self) -> list[str]:
        """Close all trackers; return a line for each that failed."""
        failures = []
        for name, tracker in self._open.items():
            try:
                tracker.close()
            except Exception as error:  # The same as at the start.
                failures.append(_failed(name, error))
        self._open = {}
        return failures


def _failed(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:MAX_REASON_LENGTH]
    return (
        f"{name} failed ({type(error).__name__}: {reason}), so it gets no more metrics; the run goes"
        " on, and its folder holds all of them."
    )
