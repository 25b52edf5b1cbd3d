"""The command line: reads the arguments and runs the command. Only the commands that compute import
torch.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import tyro

from lab.cli.app import app
from lab.cli.arguments import checked_command, one_line, require_texts, shown
from lab.cli.build import build_base_command, build_pairs_command, build_talk
from lab.cli.claims import claims
from lab.cli.config_file import with_config_file
from lab.cli.course import course
from lab.cli.measure import MEASURING_COMMANDS
from lab.cli.models_and_data import MODEL_AND_DATA_COMMANDS, tasks
from lab.cli.names import require_known_names
from lab.cli.program import program
from lab.cli.runs import (
    control,
    import_command,
    print_evaluation,
    print_runs,
    queue,
    report,
    share,
    talk,
)
from lab.cli.taste import build_taste_command, taste
from lab.cli.train import resume, train_from_arguments
from lab.errors import LabError
from lab.storage.pipes import tolerate_closed_output

COMMANDS: dict[str, Callable[..., None]] = {
    "train": train_from_arguments,
    "eval": print_evaluation,
    "runs": print_runs,
    "control": control,
    "talk": talk,
    "share": share,
    "report": report,
    "import": import_command,
    "queue": queue,
    "app": app,
    **MEASURING_COMMANDS,
    "claims": claims,
    "course": course,
    "taste": taste,
    "tasks": tasks,
    "build-base": build_base_command,
    "build-pairs": build_pairs_command,
    "build-talk": build_talk,
    "build-taste": build_taste_command,
    **MODEL_AND_DATA_COMMANDS,
}


def parse(arguments: list[str]) -> Callable[[], None]:
    """The command that `arguments` ask for, bound to them and checked, but not run; raise
    `LabError` for what it does not take.
    """
    require_texts(arguments)
    arguments = with_config_file(arguments)
    require_known_names(arguments, COMMANDS)
    if arguments[0] == "app" and "--help" not in arguments:
        return partial(app, *arguments[1:])  # Streamlit reads its options itself.
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    if arguments[:1] == ["train"] and "--resume" in arguments:
        prog = f"{program()} train --resume"
        with one_line(prog):
            return tyro.cli(
                checked_command(resume),
                args=[a for a in arguments[1:] if a != "--resume"],
                prog=prog,
            )
    if arguments[0] in COMMANDS:
        prog = f"{program()} {arguments[0]}"
        with one_line(prog):
            return tyro.cli(
                checked_command(COMMANDS[arguments[0]]),
                args=arguments[1:],
                prog=prog,
                config=config,
            )
    with one_line(program()):
        return tyro.extras.subcommand_cli_from_dict(
            {name: checked_command(new_command) for name, new_command in COMMANDS.items()},
            args=arguments,
            prog=program(),
            description="A lab in which language models learn from preferences.",
            config=config,
        )


def main(arguments: list[str] | None = None) -> None:
    """Run one command; an error that the user can mend is one line on stderr and exit code 2. A
    reader that goes away, as in `| head`, ends nothing.
    """
    _speak_utf8()
    with tolerate_closed_output():
        _run(sys.argv[1:] if arguments is None else arguments)


def _run(arguments: list[str]) -> None:
    try:
        parse(arguments)()
    except BrokenPipeError:
        raise
    except (LabError, OSError) as error:
        print(f"error: {shown(error)}", file=sys.stderr)
        if os.environ.get("WORLD_SIZE", "1") != "1":
            _end_at_once(2)
        raise SystemExit(2) from None


def _end_at_once(code: int) -> NoReturn:
    """End one of several processes of a run without the interpreter's own end, where torch's threads, which
    still wait for a process that is gone, sometimes abort it (signal 6).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _speak_utf8() -> None:
    """Read UTF-8 whatever the locale, bytes that are none as lone surrogates; write what the
    terminal has no sign for as an escape.
    """
    for stream, options in (
        (sys.stdin, {"encoding": "utf-8", "errors": "surrogateescape"}),
        (sys.stdout, {"errors": "backslashreplace"}),
        (sys.stderr, {"errors": "backslashreplace"}),
    ):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(**options)
