"""Blocks on the command line: the help of every command, experiments and tasks."""

import io
import os
import re
from contextlib import redirect_stdout

from docs_blocks.markdown import markdown_table
from lab.cli.main import COMMANDS, parse
from lab.config.methods import METHODS
from lab.config.presets import RUN_PRESETS
from lab.experiments.registry import EXPERIMENTS

WIDTH = 100
HEADING = re.compile(r"^ (\S.*)\n -{3,}$", re.M)


def help_text(*command: str) -> str:
    """Return what `--help` of a command prints where the output is not a terminal."""
    os.environ["COLUMNS"] = str(WIDTH)
    printed = io.StringIO()  # It has no encoding, so the command line prints no boxes.
    with redirect_stdout(printed):
        try:
            parse([*command, "--help"])
        except SystemExit:
            pass
    text = "\n".join(line.rstrip() for line in printed.getvalue().splitlines())
    return re.sub(r"\n{3,}", "\n\n", HEADING.sub(r"\1:", text)).strip("\n")


def _section(level: int, *command: str) -> str:
    return f"{'#' * level} {' '.join(command)}\n\n```text\n{help_text(*command)}\n```\n"


def all_help() -> str:
    """Return the help of every command, and of `train` for every method."""
    sections = []
    for command in COMMANDS:
        sections.append(_section(3, command))
        if command == "train":
            sections += [_section(4, "train", method) for method in METHODS]
            sections.append(_section(4, "train", "--resume"))
    return "\n".join(sections)


def experiments() -> str:
    """Return the experiments with their questions."""
    rows = [
        [f"`{name}`", experiment.question, str(experiment.seeds)]
        for name, experiment in EXPERIMENTS.items()
    ]
    return markdown_table(["experiment", "what it measures", "seeds by default"], rows)


def presets() -> str:
    """Return the presets of the page Train with the settings that differ from the method's own."""
    rows = [
        [
            preset.title,
            METHODS[preset.method].title,
            ", ".join(f"`{name}={value}`" for name, value in preset.knobs.items()) or "defaults",
        ]
        for preset in RUN_PRESETS
    ]
    return markdown_table(["preset", "method", "settings"], rows)


BLOCKS = {"cli-help": all_help, "cli-experiments": experiments, "train-presets": presets}
