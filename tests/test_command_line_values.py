"""Whatever stands behind a command and an option: accepted as its help says, or one line on stderr and exit code 2.

Commands, options, positions and ranges are read from the help that tyro prints, so that a new one is covered as soon as it exists.
"""

import contextlib
import inspect
import io
import re
from functools import cache
from pathlib import Path

import pytest

from lab.cli import main, parse
from lab.errors import LabError

NUMBERS = ("0", "-1", "1", "2", "1.5", "7e-1", "1e9", "1000000000", "99999999999999999999", "1e400", "nan", "-inf", "inf", "text", "", " ", "0x10", "1,5")
TEXTS = ("holds\0nul", "not utf-8 \udcff", "x" * 100_000, "", " ", "-", "nan", "../..", "line\nline")
FILLED = {"RUN": "a", "OUT": "new", "NAME": "owner/name", "ORDER": "stop", "SOURCE": "rows.jsonl", "FOLDER": ".", "PROMPT": "1+1=", "STR": "dpo"}


class Option:
    """An option or a position as the help shows it: its name, the sign that stands for its value, and its text."""

    def __init__(self, row):
        self.name, _, rest = row.partition(" ") if row.startswith("--") else ("", "", row)
        self.sign = re.match(r"\s*((?:INT|FLOAT) \S+\.\.\S+|\{[^}]*\}|\[?\S+)", rest)[1] if rest.strip() else ""
        self.text = rest

    @property
    def bounds(self):
        """The range that the help gives."""
        found = re.search(r"(?:INT|FLOAT) (\S+)\.\.(\S+)", self.sign) or re.search(r"From ([\d.,e+-]+) to ([\d.,e+-]+?)\.?(?: |$)", self.text)
        return tuple(float(bound.replace(",", "")) for bound in found.groups())

    def takes(self, text):
        """The number that `text` is to this option, or None where the help rules it out."""
        try:
            value = (int if self.sign.startswith("INT") else float)(text)
        except ValueError:
            return None
        low, high = self.bounds
        return value if low <= value <= high else None


def help_of(words):
    """Rows of each box of a command's help, a row for each option, position or subcommand."""
    drawn = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # With lines around its boxes.
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(drawn):
        patch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stop:
            main([*words, "--help"])
    assert stop.value.code in (0, None)
    boxes, rows = {}, []
    drawn.seek(0)
    for line in drawn.read().splitlines():
        if line.startswith("╭"):
            rows = boxes.setdefault(line.strip("╭╮─ "), [])
        elif line.startswith("│"):
            text = line.strip("│ ")
            if line.startswith("│ ") and line[2:3].strip() or text.startswith("•"):
                rows.append(text)
            elif rows:
                rows[-1] += f" {text}"
    return boxes


@cache
def commands():
    """Every command with the words that come before its options: ("eval",), ("train", "dpo"), ("train", "--resume"), …"""
    def below(words):
        found = [row.split()[1] for row in help_of(words).get("subcommands", []) if row.startswith("•")]
        return [deeper for name in found for deeper in below((*words, name))] if found else [words]

    return [*below(()), ("train", "--resume")]


@cache
def options(words):
    """The options of a command that take a value, and its positions."""
    boxes = help_of(words)
    taking = [Option(row) for row in boxes.get("options", []) if row.startswith("--") and "--no-" not in row.split(" ")[1]]
    return taking, [Option(row) for row in boxes.get("positional arguments", [])]


def line(words, out, **given):
    """The words of a command with something for each position, one of them replaced by its place."""
    _, positions = options(words)
    filled = [given.get(f"at{i}", p.sign.strip("{[").split(",")[0] if p.sign.startswith("{") else FILLED.get(p.sign, "x")) for i, p in enumerate(positions)]
    needed = ["--out", str(out / "run")] if words == ("train", "--resume") else []
    return [*words, *(str(out / text) if text == "new" else text for text in filled), *needed]


def outcome(words):
    """What the command line makes of some words: the command bound to its arguments, or its refusal; an assertion where it is not one line."""
    try:
        return parse(words)
    except LabError as error:
        return error


def refusal(capsys, words):
    """The one line on stderr of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1 and len(err) < 3000, (words, err[:500])
    return err


ALL = commands()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))


def test_the_table_is_read_from_the_help():
    assert len(ALL) > 30 and ("build-base",) in ALL and ("resources", "kto") in ALL
    assert [o.name for o in options(("chat",))[0]] == ["--temperature", "--max-tokens", "--seed", "--device"]
    assert options(("train", "dpo"))[0][0].name == "--model" and [p.sign for p in options(("merge",))[1]] == ["RUN", "OUT"]
    assert next(o for o in options(("train", "dpo"))[0] if o.name == "--steps").bounds == (1, 1_000_000)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_a_number_is_taken_exactly_within_the_range_that_the_help_gives(words, tmp_path, capsys):
    numeric = [o for o in options(words)[0] if o.sign.startswith(("INT", "FLOAT"))]
    for option in numeric:
        low, high = option.bounds
        assert -1e12 < low < high < 1e13, option.name
        name = option.name.removeprefix("--").replace("-", "_")
        for text in {*NUMBERS, f"{low:.15g}", f"{high:.15g}", f"{low - 1:.15g}", f"{high * 2 + 1:.15g}"}:
            given = [*line(words, tmp_path), f"{option.name}={text}"]
            found, value = outcome(given), option.takes(text)
            if value is None:
                assert isinstance(found, LabError) and str(found).startswith(f"{name} is '{text}'" if not_a_number(option, text) else f"{name} is "), given
            else:
                assert not isinstance(found, LabError) and value_in(found, name) == value, (given, found)
        assert name in refusal(capsys, [*line(words, tmp_path), option.name, "nan"])


def not_a_number(option, text):
    try:
        (int if option.sign.startswith("INT") else float)(text)
    except ValueError:
        return True
    return False


def value_in(bound, name):
    """The value that a bound command was given for an option."""
    arguments = inspect.signature(bound.func).bind(*bound.args, **bound.keywords).arguments
    return arguments[name] if name in arguments else getattr(arguments["method"], name)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_no_text_ends_in_a_traceback_and_what_is_no_text_is_refused(words, tmp_path):
    taking, positions = options(words)
    given = [[*line(words, tmp_path), option.name, text] for option in taking for text in TEXTS]
    given += [line(words, tmp_path, **{f"at{i}": text}) for i in range(len(positions)) for text in TEXTS]
    for one in given:
        found = outcome(one)
        if any(re.search("[\0\ud800-\udfff]", word) for word in one):
            assert isinstance(found, LabError) and str(found).startswith("argument "), one
    assert isinstance(outcome([*line(words, tmp_path), "--out", ""]), LabError) or "--out" not in [o.name for o in taking] or words[0] == "train"


@pytest.mark.parametrize("words", [w for w in ALL if any(o.sign in ("FILE", "FOLDER", "OUT") and (o.name or w == ("merge",)) for part in options(w) for o in part)],
                         ids=" ".join)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(words, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    taking, positions = options(words)
    sign = next(o.sign for o in [*taking, *positions] if o.sign in ("FILE", "FOLDER", "OUT"))
    places = ["file/below", "file/below/deeper", "/proc/nowhere/out", "n" * 300, "n" * 240, "/".join(["deep" * 20] * 60), "folder" if sign == "FILE" else "file"]
    for place in places:
        given = line(words, Path(""), at1=place) if sign == "OUT" else [*line(words, tmp_path), "--out", place]
        assert "out is '" in refusal(capsys, given), place
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_a_slip_in_an_option_names_the_nearest_one(words, tmp_path, capsys):
    for option in options(words)[0]:
        said = refusal(capsys, [*line(words, tmp_path), f"{option.name}s" if not option.name.endswith("s") else f"{option.name}x", "1"])
        assert f"Did you mean '{option.name.removeprefix('--').replace('-', '_')}'?" in said, said


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_an_option_without_a_value_and_a_word_too_many_are_refused(words, tmp_path, capsys):
    for option in options(words)[0]:
        assert f"{' '.join(words[:1])}" in refusal(capsys, [*line(words, tmp_path), option.name])
    assert "surplus" in refusal(capsys, [*line(words, tmp_path), "surplus", "surplus"])
    required = [p for p in options(words)[1] if "(required)" in p.text]
    if required:
        assert required[0].sign.strip("{}").split(",")[0] in refusal(capsys, list(words)).replace("'", "")
