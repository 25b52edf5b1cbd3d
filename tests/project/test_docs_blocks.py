"""The generated blocks of README.md and docs/."""

import subprocess
import sys
from pathlib import Path

import pytest
import write_docs
from docs_blocks.markdown import command_text, markdown_table, signed, tables_of

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "write_docs.py"


def test_every_block_is_what_the_records_and_the_command_line_give_today():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--check"], capture_output=True, text=True, timeout=240
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A README and a page in docs/ with the block "number", which is 42."""
    monkeypatch.setattr(write_docs, "BLOCKS", {"number": lambda: "42\n"})
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "README.md").write_text("No block.\n", "utf-8")
    page = tmp_path / "docs" / "deep" / "page.md"
    page.write_text("<!-- begin: number -->\n42\n<!-- end: number -->\n", "utf-8")
    return page


def test_a_number_that_was_changed_is_named_and_written_anew(site, tmp_path, capsys):
    right = site.read_text("utf-8")
    assert write_docs.main(["--check", "--root", str(tmp_path)]) == 0
    site.write_text(right.replace("42", "43"), "utf-8")
    assert write_docs.main(["--check", "--root", str(tmp_path)]) == 1
    assert capsys.readouterr().out == f"{site}: number\n" and "43" in site.read_text("utf-8")
    assert write_docs.main(["--root", str(tmp_path)]) == 0
    assert site.read_text("utf-8") == right


def test_a_block_on_no_page_and_markers_that_do_not_match_end_with_an_error(site, tmp_path, capsys):
    site.write_text("Nothing.\n", "utf-8")
    assert write_docs.main(["--root", str(tmp_path)]) == 1
    assert capsys.readouterr().out == "number: on no page\n"
    site.write_text("<!-- begin: number -->\n", "utf-8")
    assert write_docs.main(["--root", str(tmp_path)]) == 2
    assert "'number' has no end" in capsys.readouterr().err


def test_only_what_stands_between_the_markers_is_written():
    text = "before\n<!-- begin: one -->\nold\n<!-- end: one -->\nafter\n"
    new, names = write_docs.renewed(text, {"one": lambda: "new\nlines\n"})
    assert new == "before\n<!-- begin: one -->\nnew\nlines\n<!-- end: one -->\nafter\n"
    assert names == ["one"]
    assert write_docs.renewed(new, {"one": lambda: "new\nlines\n"})[0] == new


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<!-- begin: other -->\n<!-- end: other -->", "'other' is unknown"),
        ("<!-- begin: one -->\n", "'one' has no end"),
        ("<!-- end: one -->\n", "'one' do not match"),
        ("<!-- begin: one -->\n<!-- begin: two -->\n<!-- end: one -->", "'one' do not match"),
        ("<!-- begin: one -->\n<!-- end: two -->", "'one' do not match"),
    ],
)
def test_markers_that_do_not_match_are_refused(text, says):
    with pytest.raises(ValueError, match=says):
        write_docs.renewed(text, {"one": lambda: "", "two": lambda: ""})


def test_stale_blocks_are_named_in_their_order():
    page = "<!-- begin: {0} -->\n{1}\n<!-- end: {0} -->\n"
    old = page.format("one", "a") + page.format("two", "b") + page.format("three", "c")
    new = page.format("one", "a") + page.format("two", "x") + page.format("three", "y")
    assert write_docs.stale_blocks(old, new, ["one", "two", "three"]) == ["two", "three"]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.166, 2, "+0.17"),
        (-6.53, 1, "−6.5"),
        (-0.001, 2, "0.00"),
        (0.0, 0, "0"),
        (-10.0, 0, "−10"),
    ],
)
def test_a_number_is_written_with_its_sign_unless_it_rounds_to_zero(value, digits, text):
    assert signed(value, digits) == text


def test_a_table_and_a_long_command_as_markdown():
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    assert command_text("python -m lab bench") == "Command: `python -m lab bench`"
    long = "python -m lab compare --methods " + "dpo," * 40 + " --seeds 3"
    assert " \\\n    --seeds 3\n```" in command_text(long)


def test_only_the_tables_of_a_report_are_taken():
    assert (
        tables_of("# Title\n\ntext\n\n| a |\n| - |\n\nmore\n\n| b |\n") == "| a |\n| - |\n\n| b |"
    )
