"""Whatever stands behind a command and an option: accepted as its help says, or one line on stderr
and exit code 2.

Commands, options, positions and ranges are read from the help that tyro prints, so that a new one
is covered as soon as it exists.
"""

import contextlib
import errno
import inspect
import io
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import lab.config.input_checks
from lab.cli.arguments import checked_command
from lab.cli.main import main, parse
from lab.config.input_checks import require_writable
from lab.config.methods import make_config
from lab.errors import LabError
from lab.runs.folder import create

NUMBERS = ("0", "-1", "1.5", "1e9", "1000000000", "1e400", "nan", "inf", "text", "")
TEXTS = ("holds\0nul", "not utf-8 \udcff", "x" * 100_000, "", "../..", "line\nline")
FILLED = {
    "RUN": "a",
    "OUT": "new",
    "NAME": "owner/name",
    "ORDER": "stop",
    "SOURCE": "rows.jsonl",
    "FOLDER": ".",
    "PROMPT": "1+1=",
    "STR": "dpo",
}


class Option:
    """An option or a position as the help shows it: its name, the sign that stands for its value,
    and its text.
    """

    def __init__(self, row):
        self.name, _, rest = row.partition(" ") if row.startswith("--") else ("", "", row)
        self.sign = (
            re.match(r"\s*((?:INT|FLOAT) \S+\.\.\S+|\{[^}]*\}|\[?\S+)", rest)[1]
            if rest.strip()
            else ""
        )
        self.text = rest

    @property
    def bounds(self):
        """The range that the help gives."""
        found = re.search(r"(?:INT|FLOAT) (\S+)\.\.(\S+)", self.sign) or re.search(
            r"From ([\d.,e+-]+) to ([\d.,e+-]+?)\.?(?: |$)", self.text
        )
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
    """Every command with the words that come before its options: ("eval",), ("train", "dpo"),
    ("train", "--resume"), …
    """

    def below(words):
        found = [
            row.split()[1] for row in help_of(words).get("subcommands", []) if row.startswith("•")
        ]
        return [deeper for name in found for deeper in below((*words, name))] if found else [words]

    return [*below(()), ("train", "--resume")]


@cache
def options(words):
    """The options of a command that take a value, and its positions."""
    boxes = help_of(words)
    taking = [
        Option(row)
        for row in boxes.get("options", [])
        if row.startswith("--") and "--no-" not in row.split(" ")[1]
    ]
    return taking, [Option(row) for row in boxes.get("positional arguments", [])]


@cache
def first_seen(words):
    """The options of a command that no method's command before it has: methods share their knobs."""

    def known(one):
        return {
            (o.name, o.sign, o.bounds if o.sign in ("INT", "FLOAT") else None)
            for o in options(one)[0]
        }

    before = [known(one) for one in ALL[: ALL.index(words)] if len(one) > 1]
    return [
        o
        for o in options(words)[0]
        if not any(
            (o.name, o.sign, o.bounds if o.sign in ("INT", "FLOAT") else None) in one
            for one in before
        )
    ]


def line(words, out, **given):
    """The words of a command with something for each position, one of them replaced by its place."""
    _, positions = options(words)
    filled = [
        given.get(
            f"at{i}",
            (
                p.sign.strip("{[").split(",")[0]
                if p.sign.startswith(("{", "[{"))
                else FILLED.get(p.sign, "x")
            ),
        )
        for i, p in enumerate(positions)
    ]
    needed = ["--out", str(out / "run")] if words == ("train", "--resume") else []
    return [*words, *(str(out / text) if text == "new" else text for text in filled), *needed]


def outcome(words):
    """What the command line makes of some words: the command bound to its arguments, or its
    refusal; an assertion where it is not one line.
    """
    try:
        return parse(words)
    except LabError as error:
        return error


def refusal(capsys, words):
    """The one line on stderr of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    out, err = capsys.readouterr()
    assert (
        stop.value.code == 2
        and out == ""
        and err.startswith("error: ")
        and err.count("\n") == 1
        and len(err) < 3000
    ), (words, err[:500])
    return err


ALL = commands()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))


def test_the_table_is_read_from_the_help():
    assert len(ALL) > 30 and ("build-base",) in ALL and ("resources", "kto") in ALL
    assert [o.name for o in options(("chat",))[0]] == [
        "--temperature",
        "--max-tokens",
        "--seed",
        "--device",
    ]
    assert options(("train", "dpo"))[0][0].name == "--model" and [
        p.sign for p in options(("merge",))[1]
    ] == ["RUN", "OUT"]
    assert next(o for o in options(("train", "dpo"))[0] if o.name == "--steps").bounds == (
        1,
        1_000_000,
    )


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_a_number_is_taken_exactly_within_the_range_that_the_help_gives(words, tmp_path, capsys):
    numeric = [o for o in options(words)[0] if o.sign.startswith(("INT", "FLOAT"))]
    for option in numeric:
        low, high = option.bounds
        assert -1e12 < low < high < 1e13, option.name
        name = option.name.removeprefix("--").replace("-", "_")
        for text in (
            {*NUMBERS, f"{low:.15g}", f"{high:.15g}", f"{low - 1:.15g}", f"{high * 2 + 1:.15g}"}
            if option in first_seen(words)
            else {"1e9"}
        ):
            given = [*line(words, tmp_path), f"{option.name}={text}"]
            found, value = outcome(given), option.takes(text)
            if value is None:
                assert isinstance(found, LabError) and str(found).startswith(
                    f"{name} is '{text}'" if not_a_number(option, text) else f"{name} is "
                ), given
            else:
                assert not isinstance(found, LabError) and value_in(found, name) == value, (
                    given,
                    found,
                )
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
    given = [
        [*line(words, tmp_path), option.name, text]
        for option in first_seen(words)
        for text in TEXTS
    ]
    given += [
        line(words, tmp_path, **{f"at{i}": text}) for i in range(len(positions)) for text in TEXTS
    ]
    for one in given:
        found = outcome(one)
        if any(re.search("[\0\ud800-\udfff]", word) for word in one):
            assert isinstance(found, LabError) and str(found).startswith("argument "), one
    assert (
        isinstance(outcome([*line(words, tmp_path), "--out", ""]), LabError)
        or "--out" not in [o.name for o in taking]
        or words[0] == "train"
    )


def writes(words):
    """Whether a command has an option or a position that names what it writes."""
    taking, positions = options(words)
    return any(o.sign in ("FILE", "FOLDER") for o in taking) or any(
        p.sign == "OUT" for p in positions
    )


@pytest.mark.parametrize("words", list(filter(writes, ALL)), ids=" ".join)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(words, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    taking, positions = options(words)
    sign = next(o.sign for o in [*taking, *positions] if o.sign in ("FILE", "FOLDER", "OUT"))
    places = [
        "file/below",
        "file/below/deeper",
        "/proc/nowhere/out",
        "n" * 300,
        "n" * 240,
        "/".join(["deep" * 20] * 60),
    ]
    places.append("folder" if sign == "FILE" else "file")
    for place in places:
        given = (
            line(words, Path(""), at1=place)
            if sign == "OUT"
            else [*line(words, tmp_path), "--out", place]
        )
        assert "out is '" in refusal(capsys, given), place
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_a_slip_in_an_option_names_the_nearest_one(words, tmp_path, capsys):
    for option in options(words)[0]:
        said = refusal(
            capsys,
            [
                *line(words, tmp_path),
                f"{option.name}s" if not option.name.endswith("s") else f"{option.name}x",
                "1",
            ],
        )
        assert f"Did you mean '{option.name.removeprefix('--').replace('-', '_')}'?" in said, said


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_an_option_without_a_value_and_a_word_too_many_are_refused(words, tmp_path, capsys):
    for option in first_seen(words):
        assert option.name in refusal(capsys, [*line(words, tmp_path), option.name])
    said = refusal(capsys, [*line(words, tmp_path), "surplus", "surplus"])
    # These two take any number of words, and name the first that is wrong.
    if words not in (("taste",), ("import",)):
        assert "surplus" in said
    required = [p for p in options(words)[1] if "(required)" in p.text]
    if required:
        assert required[0].sign.strip("{}").split(",")[0] in refusal(capsys, list(words)).replace(
            "'", ""
        )


@pytest.mark.parametrize(
    "words",
    [(), *((name,) for name in ("train", "resources")), *ALL],
    ids=lambda words: " ".join(words) or "no command",
)
def test_help_ends_with_exit_code_zero(words):
    assert help_of(words)


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "No command is given. Give one of train, eval,"),
        ([""], "Unknown command ''"),
        (["x" * 50_000], "Unknown command 'xxx"),
        (["--foo"], "--foo"),
        (["evla"], "Did you mean 'eval'?"),
        (["train"], "{dpo, ipo, kto, online_dpo,"),
        (["resources", "grop"], "Did you mean 'grpo'?"),
        (["eval"], "RUN"),
        (["eval", ""], "run is empty"),
        (["eval", "../nowhere"], "There is no run '../nowhere'"),
        (["eval", "n" * 300], "There is no run 'nnn"),
        (["chat", "n/" * 3000], "There is no run 'n/n/"),
        (["chat", "file"], "There is no run 'file'"),
        (["talk", ""], "There is no run ''"),
        (["train", "dpo", "--out", ".."], "cannot be the name of a run"),
        (["train", "dpo", "--out", "runs/-x"], "cannot be the name of a run"),
        (["train", "dpo", "--out", "n" * 300], "cannot be the name of a run"),
        (["train", "dpo", "--out", "file/run"], "file/run"),
        (["train", "dpo", "--out", "deep/" * 2000 + "run"], "File name too long"),
        (["train", "dpo", "--device", "cpu:7"], "device is 'cpu:7', but takes auto"),
        (["train", "dpo", "--device", "cuda:" + "9" * 30], "device is 'cuda:999"),
        (["train", "dpo", "--device", ""], "device is ''"),
        (["train", "grpo", "--reward", "no.such"], "Unknown reward 'no.such'"),
        (["train", "dpo", "--task", "\N{BLACK HEART SUIT}"], "Unknown task"),
        (["train", "--resume", "--outs", "a"], "Did you mean 'out'?"),
        (["train", "--resume", "--beta", "1", "--out", "a"], "cannot be given again"),
        (["eval", "a", "--device", "cpu:0"], "device is 'cpu:0'"),
        (["chat", "a", "--device", "mps"], "device is 'mps'"),
        (["control", "a", "beta=nan"], "beta"),
        (["control", "a", "beta=1e999"], "beta is inf"),
        (["control", "a", "steps=5"], "fixed"),
        (["control", "a", "=1"], "Unknown setting"),
        (["control", "a", "beta="], "beta is ''"),
        (["control", "a", ""], "Unknown order"),
        (["compare", "--budget", "updates", "--amount", "1.5"], "a whole number of updates"),
        (["compare", "--amount", "nan"], "amount is nan"),
        (["compare", "--budget", "updates"], "above 0"),
        (["compare", "--amount", "5"], "the budget defaults counts nothing"),
        (["compare", "--budget", "updates", "--amount", "1e9"], "at most 1,000,000"),
        (["compare", "--budget", "days", "--amount", "1"], "Unknown budget"),
        (["compare", "--methods", ""], "Unknown method to compare ''"),
        (["compare", "--methods", "dpo,dpo"], "each is compared once"),
        (["compare", "--methods", "dpo@gold"], "Leave '@gold' out"),
        (["compare", "--methods", "grpo@me"], "Unknown scorer"),
        (["compare", "--seeds", "1"], "from 2 to 100"),
        (["compare", "--knobs", "dpo.beta=nan"], "beta is nan"),
        (["compare", "--knobs", "x.y=1"], "Unknown method in knobs"),
        (["compare", "--knobs", "y=1"], "Unknown setting of the methods compared"),
        (["compare", "--knobs", "beta=0.1,beta=0.2"], "more than once"),
        (["compare", "--knobs", "dpo.beta=0.1,,"], "neither SETTING=VALUE"),
        (["compare", "--knobs", "dpo.seed=4"], "--seeds decides it"),
        (["compare", "--knobs", "device=cpu"], "--device decides it"),
        (
            ["compare", "--budget", "updates", "--amount", "3", "--knobs", "dpo.steps=4"],
            "--budget decides it",
        ),
        (["compare", "--model", ""], "No model"),
        (["experiment", "betta"], "Did you mean 'beta'?"),
        (["experiment", "beta", "--seeds", "1"], "at least two seeds"),
        (["experiment", "pool", "--seeds", "2"], "one seed"),
        (["experiment", "beta", "--jobs", "0"], "jobs is 0"),
        (["experiment", "beta", "--jobs", "1e9"], "jobs is '1e9'"),
        (["estimate", "--model", "9b"], "Unknown model"),
        (["estimate", "--method", "sft"], "Unknown method to estimate"),
        (["estimate", "--layout", "x"], "'shared', 'separate'"),
        (["estimate", "--optimizer", "x"], "Unknown optimizer"),
        (["estimate", "--check", "9b"], "Unknown size"),
        (["estimate", "--out", "x.json"], "no sizes to check"),
        (
            ["estimate", "--batch-size", "3", "--micro-batches", "2"],
            "micro_batches divides batch_size",
        ),
        (
            ["estimate", "--batch-size", "65536", "--completion-tokens", "131072"],
            "at most 2,097,152 are estimated",
        ),
        (["bench", "--works", "x"], "Unknown work"),
        (["bench", "--sizes", ""], "Unknown size"),
        (["bench", "--peer", "x"], "Unknown peer"),
        (["course", "report", "nowhere"], "no progress.jsonl"),
        (["course", "build", "--only", "99"], "Unknown notebook"),
        (["course", "handout", "file"], "a file is there"),
        (["course", "print"], "Expected one of ('report'"),
        (["fetch", "gpt5"], "Unknown model"),
        (["data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["data", ""], "No data file"),
        (["build-pairs", "--out", "pairs.json"], "ends in .jsonl"),
        (["build-pairs", "--out", "p.jsonl", "--task", "chian"], "chain"),
        (["build-pairs", "--out", "p.jsonl", "--reward", "fromat"], "Did you mean 'format'?"),
        (["build-pairs", "--out", "p.jsonl", "--model", "./nowhere"], "No model folder"),
        (["push", "a", "name"], "There is no run 'a'"),
        (["merge", "a", "file"], "exists already"),
        (["build-talk", "a"], "There is no run 'a'"),
        (["runs", "--root", "file"], "file"),
        (["queue", "--root", "file"], "file"),
    ],
)
def test_a_slip_that_only_the_command_can_see_is_one_line_too(words, says, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    if words[:1] == ["control"]:
        create(tmp_path / "runs" / "a", make_config("grpo"))
    assert says in refusal(capsys, words)
    assert {path.name for path in tmp_path.iterdir()} <= {"file", "runs"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one update, by its path."""
    path = tmp_path_factory.mktemp("runs") / "a"
    main(
        [
            "train",
            "dpo",
            "--steps",
            "1",
            "--batch-size",
            "4",
            "--pairs",
            "4",
            "--eval-prompts",
            "2",
            "--eval-every",
            "0",
            "--max-completion-tokens",
            "4",
            "--device",
            "cpu",
            "--out",
            str(path),
        ]
    )
    return str(path)


def typed(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))


def test_what_is_typed_into_a_chat_may_be_anything(trained, monkeypatch, capsys):
    typed(
        monkeypatch,
        b"1+1=\n\xff\xfe1\n" + "caf\u00e9 \u2764\n/reset\n\n".encode() + b"1+\x001=\n" + b"2+2=",
    )
    main(["chat", trained, "--max-tokens", "1", "--temperature", "0", "--device", "cpu"])
    out = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in out] == [
        "reference",
        "policy",
        "error",
        "error",
        "error",
        "reference",
        "policy",
    ]
    assert "not UTF-8" in out[2] and "vocabulary" in out[3] and "NUL" in out[4]


def test_every_request_to_a_worker_that_talks_is_answered_in_words(trained, monkeypatch, capsys):
    good = {"run": trained, "prompt": "1+2=", "max_tokens": 1}
    wrong = [
        b"not json",
        b"[]",
        b"5",
        b"{}",
        b'{"run": 5}',
        b'{"run": "nowhere"}',
        b"\xff",
        b'"\\ud800"',
        b"[" * 100_000,
    ]
    odd = [
        good | change
        for change in (
            {"seed": -1},
            {"seed": 1.5},
            {"seed": True},
            {"temperature": "1"},
            {"draws": 10**9},
            {"max_tokens": 8193},
            {"prompt": 5},
            {"prompt": "\ud800"},
            {"prompt": "a\0b"},
            {"sed": 3},
        )
    ]
    wrong += [json.dumps(row).encode() for row in odd] + [
        json.dumps(good).encode()[:-1] + text
        for text in (b', "seed": 1e999}', b', "temperature": NaN}')
    ]
    typed(monkeypatch, b"\n".join([*wrong, json.dumps(good).encode()]))
    main(["talk", "--serve", "--device", "cpu"])
    answers = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert len(answers) == len(wrong) + 1 and answers[-1]["prompt"] == "1+2="
    assert [
        row
        for row in answers[:-1]
        if set(row) != {"error"} or re.match(r"\w+(Error|Exception): ", row["error"])
    ] == []


def test_the_least_that_each_command_takes_works(trained, capsys, tmp_path):
    main(["eval", trained, "--prompts", "1", "--samples", "1", "--device", "cpu", "--json"])
    assert json.loads(capsys.readouterr().out)["prompts"] == 1
    main(
        [
            "talk",
            trained,
            "1+2=",
            "--max-tokens",
            "1",
            "--draws",
            "0",
            "--temperature",
            "0",
            "--device",
            "cpu",
            "--json",
        ]
    )
    assert json.loads(capsys.readouterr().out)["seed"] == 0
    main(
        [
            "build-pairs",
            "--count",
            "1",
            "--max-tokens",
            "16",
            "--out",
            str(tmp_path / "new" / "one.jsonl"),
            "--device",
            "cpu",
        ]
    )
    assert len((tmp_path / "new" / "one.jsonl").read_text().splitlines()) == 1
    main(["merge", trained, str(tmp_path / "new" / "deeper" / "merged")])
    assert (tmp_path / "new" / "deeper" / "merged" / "config.json").is_file()


def started(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "lab", *words],
        capture_output=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
    )


@pytest.mark.parametrize(
    "words, environment, says",
    [
        (["eval", b"\xff\xfe"], {}, b"argument 2 is '\\udcff\\udcfe', which is not UTF-8"),
        (
            ["build-base", "--steps", "0"],
            {},
            b"steps is 0, but takes a whole number from 1 to 1,000,000.",
        ),
        (
            ["estimate", "--layout", "\N{BLACK HEART SUIT}"],
            {"PYTHONIOENCODING": "ascii"},
            b"\\u2665",
        ),
        (
            ["train", "dpo", "--steps", "1"],
            {"WORLD_SIZE": "two"},
            b"WORLD_SIZE is 'two', but takes a whole number",
        ),
        (["train", "dpo", "--steps", "1"], {"LAB_RUNS": "/proc/nowhere"}, b"/proc/nowhere"),
        (
            ["experiment", "beta"],
            {"LAB_RUNS": "/proc/nowhere"},
            b"out is '/proc/nowhere/beta', but nothing can be written in /proc",
        ),
    ],
)
def test_a_process_that_refuses_says_one_line_and_ends_with_two(words, environment, says):
    done = started(*words, **environment)
    assert (
        done.returncode == 2
        and done.stdout == b""
        and done.stderr.startswith(b"error: ")
        and done.stderr.count(b"\n") == 1
    ), done.stderr[-2000:]
    assert says in done.stderr


def test_what_a_terminal_has_no_sign_for_is_written_as_an_escape():
    done = started("tasks", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stdout.isascii() and b"chain" in done.stdout


def test_a_number_without_a_range_cannot_be_declared():
    def command(rows: int = 3) -> None:
        """A command."""

    with pytest.raises(TypeError, match="rows is a number without a range"):
        checked_command(command)


def test_a_folder_that_is_read_only_a_file_that_may_not_be_written_and_one_that_may(
    tmp_path, monkeypatch
):
    def refused(**options):
        raise PermissionError(errno.EACCES, "Permission denied")

    require_writable("out", tmp_path / "new" / "deep", folder=True)
    require_writable("out", tmp_path, folder=True)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(
        lab.config.input_checks.tempfile, "TemporaryFile", refused
    )  # Whoever runs the tests as root may write everywhere.
    with pytest.raises(
        LabError,
        match=(
            "nothing can be written in .*: Permission denied. Give a file in a folder that you may write"
        ),
    ):
        require_writable("out", tmp_path / "new" / "rows.jsonl", folder=False)


def test_the_folder_of_a_benchmark_s_file_is_made_before_anything_is_measured(
    tmp_path, monkeypatch, capsys
):
    def limits(where):
        raise LabError("measuring begins")

    monkeypatch.setattr("lab.benchmarks.run.device_limits", limits)
    assert "measuring begins" in refusal(
        capsys, ["bench", "--device", "cpu", "--out", str(tmp_path / "new" / "deep" / "bench.json")]
    )
    assert list((tmp_path / "new" / "deep").iterdir()) == []
