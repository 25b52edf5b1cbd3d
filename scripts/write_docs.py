"""Writes the generated blocks of README.md and docs/: numbers from the records, and the help of the
command line.

    python scripts/write_docs.py            write every block
    python scripts/write_docs.py --check    write nothing; exit code 1 and a line for each stale block

A block stands between the lines `<!-- begin: NAME -->` and `<!-- end: NAME -->`.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from docs_blocks import (
    claims,
    command_line,
    costs,
    course,
    grpo_questions,
    language_model,
    lora_rank,
    methods,
    speed,
    tuned,
    words,
)

ROOT = Path(__file__).parents[1]
BLOCKS: dict[str, Callable[[], str]] = {
    **claims.BLOCKS,
    **methods.BLOCKS,
    **tuned.BLOCKS,
    **language_model.BLOCKS,
    **grpo_questions.BLOCKS,
    **lora_rank.BLOCKS,
    **costs.BLOCKS,
    **speed.BLOCKS,
    **command_line.BLOCKS,
    **course.BLOCKS,
    **words.BLOCKS,
}
MARKER = re.compile(r"<!-- (begin|end): ([\w.-]+) -->")


def pages(root: Path) -> list[Path]:
    """Return README.md and every Markdown file of docs/."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def renewed(text: str, blocks: Mapping[str, Callable[[], str]]) -> tuple[str, list[str]]:
    """Return `text` with every block written anew, and the names of the blocks in it.

    Raises `ValueError` for a block without an end, an end without a block, and an unknown name.
    """
    parts, names, place, opened = [], [], 0, None
    for marker in MARKER.finditer(text):
        kind, name = marker.groups()
        if name not in blocks:
            raise ValueError(f"block {name!r} is unknown; known are {', '.join(sorted(blocks))}")
        if (opened is None) != (kind == "begin") or (kind == "end" and name != opened):
            raise ValueError(f"the markers of block {opened or name!r} do not match")
        if kind == "begin":
            parts += [text[place : marker.end()], "\n", blocks[name]().strip("\n"), "\n"]
            opened = name
            names.append(name)
        else:
            opened = None
        place = marker.start() if kind == "end" else marker.end()
    if opened is not None:
        raise ValueError(f"block {opened!r} has no end")
    return "".join([*parts, text[place:]]), names


def stale_blocks(old: str, new: str, names: list[str]) -> list[str]:
    """Return the names of the blocks in which the two texts differ."""
    old_parts, new_parts = MARKER.split(old)[3::6], MARKER.split(new)[3::6]
    return [name for name, a, b in zip(names, old_parts, new_parts) if a != b]


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the blocks of all pages; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, name stale blocks")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of README.md and docs/")
    arguments = parser.parse_args(argv)
    used: set[str] = set()
    stale = []
    for page in pages(arguments.root):
        old = page.read_text("utf-8")
        try:
            new, names = renewed(old, BLOCKS)
        except ValueError as error:
            print(f"{page}: {error}", file=sys.stderr)
            return 2
        used.update(names)
        stale += [f"{page}: {name}" for name in stale_blocks(old, new, names)]
        if new != old and not arguments.check:
            page.write_text(new, "utf-8", newline="\n")
    unused = sorted(set(BLOCKS) - used)
    for line in [*stale, *(f"{name}: on no page" for name in unused)]:
        print(line)
    return int(bool(unused or (arguments.check and stale)))


if __name__ == "__main__":
    sys.exit(main())
