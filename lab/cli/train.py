"""The command train, which starts and resumes runs."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

from lab.analysis.diagnose import diagnose
from lab.cli.method_arguments import METHOD_NAME, METHOD_TO_TRAIN
from lab.cli.program import program
from lab.config.input_checks import Range
from lab.config.json_format import CONFIG_FORMAT, from_dict, to_dict
from lab.config.methods import make_config, method_of
from lab.config.sampler_settings import are_servers
from lab.config.user_code import require_code
from lab.distributed.launcher import with_launcher_settings
from lab.errors import LabError
from lab.runs import catalogue
from lab.runs import folder as runs
from lab.runs.records import columns_of
from lab.tasks.registry import check_task


def train_from_arguments(method: Annotated[Any, METHOD_TO_TRAIN]) -> None:
    """Train a LoRA adapter with one method. Ctrl-C stops after the present update and keeps
    everything; `--resume --out RUN` goes on.
    """
    knobs = vars(method).copy()
    name, out = type(method).__name__, knobs.pop("out")
    del knobs["config"]  # `with_config_file` has put its settings in.
    if _follows():
        return
    config = with_launcher_settings(make_config(name, knobs), os.environ)
    check_task(config)
    folder = runs.create(Path(out) if out else catalogue.new_path(name), config)
    try:
        _drive(folder)
    except LabError as error:
        if getattr(error.__cause__, "errno", None) is None:  # With one it is the disk's.
            _remove_unstarted(folder)
        raise


def _remove_unstarted(folder: runs.RunFolder) -> None:
    """Remove the folder of a new run that was refused before its first record, so that the command
    can be given again.
    """
    if (folder.path / "checkpoint").exists() or any(
        row["type"] == "step" for row in folder.history()
    ):
        return
    shutil.rmtree(folder.path, ignore_errors=True)


def resume(
    method: Annotated[str, METHOD_NAME] = "",
    /,
    *,
    out: Path,
    steps: Annotated[int | None, Range(int, 1, 1_000_000)] = None,
    reward: str = "",
    sampler: str = "",
) -> None:
    """Continue a run from its checkpoint, along the same trajectory.

    Args:
        method: Its method; may be left out.
        out: Folder of the run.
        steps: Updates in all; left out, the run keeps its number.
        reward: Only for a run whose reward is code of your own: MODULE:FUNCTION again, since a
        folder names no code by itself.
        sampler: Only for a run on a vLLM server that now has another address: vllm://HOST:PORT.
    """
    if _follows():
        return
    folder = catalogue.open_run(str(out))
    own = method_of(folder.config)
    if method and method != own:
        raise LabError(
            f"{out} is a run of {own}, not {method}. Leave the method out, or name {own}."
        )
    require_code(folder.config, reward)
    if sampler:
        _move_to_server(folder, sampler)
    _drive(folder, steps)


def _move_to_server(folder: runs.RunFolder, sampler: str) -> None:
    """Write the new address of a run's vLLM server into its config.json."""
    before = getattr(folder.config, "sampler", "")
    if not are_servers(before, sampler):
        raise LabError(
            f"sampler is '{sampler}', but a resumed run keeps its sampler, which is '{before}'; only the"
            " address of a vLLM server may change, to another vllm://HOST:PORT. Leave --sampler out."
        )
    folder.write_config(
        from_dict(to_dict(folder.config) | {"sampler": sampler, "format": CONFIG_FORMAT})
    )


def _follows() -> bool:
    """Take part in a run as one of several processes, unless this one leads or was started alone."""
    from lab.distributed.collectives import env_rank

    if not env_rank():
        return False
    from lab.training.driver import follow_rank_zero

    follow_rank_zero()
    return True


def _drive(folder: runs.RunFolder, steps: int | None = None) -> None:
    from lab.profiling.out_of_memory import expected_memory
    from lab.serving.run_report import REPORT_PAGE, reported
    from lab.training.driver import drive
    from lab.training.progress_bar import Progress

    progress = Progress(sys.stdout)
    with reported(folder):
        try:
            run = drive(folder, steps, progress.show, expected_memory=expected_memory)
        finally:
            progress.close()
    rows = folder.history()
    for text in diagnose(
        to_dict(run.config), columns_of(rows), [row for row in rows if row["type"] == "event"]
    ):
        print(text)
    print(
        f"{folder.path} is {folder.state} after {run.step} updates in {run.timer.training_seconds:.1f} s. Measure"
        f" it: {program()} eval {folder.path}"
    )
    if (page := folder.path / REPORT_PAGE).is_file():
        print(f"Report: {page}")
