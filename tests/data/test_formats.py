"""Rows of a data file, against rows written out by hand, and every way in which a file can be
unreadable.
"""

import csv
import gzip
import json
import sys

import pyarrow as pa
import pytest
from pyarrow import parquet

from lab.config.data_files import ENDINGS
from lab.data.readers import load_rows, parse_file, read_numbered_rows, unpacked
from lab.data.rows import row_location
from lab.errors import LabError

TALK = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": 'I, "me"\nand you.'}]
ROWS = [
    {"prompt": "Wer?", "chosen": "ich", "rejected": "du"},
    {"prompt": "1+1=", "chosen": "2", "rejected": "3,\n4"},
]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_the_same_rows_come_from_json_lines_csv_and_parquet(write, tmp_path):
    jsonl = write("a.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    table = write("a.csv", 'prompt,chosen,rejected\nWer?,ich,du\n1+1=,2,"3,\n4"\n')
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert (
        load_rows(jsonl)
        == load_rows(str(jsonl))
        == load_rows(table)
        == load_rows(tmp_path / "a.parquet")
        == ROWS
    )


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_file_may_hold_one_array_or_json_lines(write, indent):
    assert (
        load_rows(write("a.json", json.dumps(ROWS, indent=indent)))
        == load_rows(write("b.json", "".join(json.dumps(row) + "\n" for row in ROWS)))
        == ROWS
    )


def test_the_rows_of_an_array_are_numbered_by_the_line_on_which_they_begin(write):
    text = '\ufeff\n[\n  {"a": 1}, {"a":\n\n2},\r\n\r  {"a": "x\u2028y"}\n]\n'
    assert (
        read_numbered_rows(write("a.json", text))
        == [(3, {"a": 1}), (3, {"a": 2}), (7, {"a": "x\u2028y"})]
        and row_location("a.JSON.gz", 7) == "a.JSON.gz, line 7"
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.csv", "a.tsv"])
def test_every_text_may_be_packed_with_gzip(write, name):
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    cells = 'prompt,chosen,rejected\nWer?,ich,du\n1+1=,2,"3,\n4"\n'
    text = {"csv": cells, "tsv": cells.replace(",", "\t").replace("3\t", "3,")}.get(name[2:], lines)
    assert (
        load_rows(write(name, text))
        == load_rows(write(name + ".gz", gzip.compress(text.encode())))
        == ROWS
    )
    assert {f".{name[2:]}", f".{name[2:]}.gz"} <= set(ENDINGS)


def test_what_a_packed_file_holds_is_limited():
    data = gzip.compress(b'{"a": 1}\n' * 300_000)
    assert len(data) < 2**15 and len(unpacked(data, "a.jsonl.gz", 3_000_000)) == 2_700_000
    with pytest.raises(LabError, match="a.jsonl.gz holds more than 1 MiB"):
        parse_file(data, "a.jsonl.gz", 2**20)


# Conversations that are written out as text.

SAID = [{"role": "user", "content": '1+1=?\nSay "2", it\'s [2].'}]
CALL = [
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
    }
]
# As pandas writes a column that came from Parquet.
NUMPY = "[{'content': 'a}', 'role': 'user'}\n {'content': \"it's\\n{b\", 'role': 'assistant'}]"


@pytest.mark.parametrize(
    "text, talk",
    [
        (json.dumps(SAID), SAID),
        (json.dumps(SAID, indent=1), SAID),
        (repr(SAID), SAID),
        (f" {json.dumps(TALK)}\n", TALK),
        (json.dumps(CALL), CALL),
        (repr(CALL), CALL),
        (
            '[{"content": "a", "role": "user", "name": "b"}]',
            [{"content": "a", "role": "user", "name": "b"}],
        ),
        (
            '[{"role": "user", "content": "two\nlines"}]',
            [{"role": "user", "content": "two\nlines"}],
        ),
        (NUMPY, [{"content": "a}", "role": "user"}, {"content": "it's\n{b", "role": "assistant"}]),
        (
            '[{"from": "human", "value": "a"}]',
            [{"from": "human", "value": "a"}],
        ),  # Not TRL's, so that it is refused as such a list is.
    ],
    ids=range(10),
)
def test_a_list_of_messages_that_is_written_out_as_text_is_that_list(write, tmp_path, text, talk):
    row = {"prompt": text, "answer": text}
    with open(tmp_path / "a.csv", "w", newline="") as file:
        csv.writer(file).writerows([row, row.values()])
    parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    for source in (tmp_path / "a.csv", tmp_path / "a.parquet", write("a.jsonl", json.dumps(row))):
        assert load_rows(source) == [{"prompt": talk, "answer": text}]


@pytest.mark.parametrize(
    "text",
    [
        "[INST] Who? [/INST]",
        "[1, 2, 3]",
        '["a", "b"]',
        "[]",
        "[{}]",
        '[{"name": "x", "age": 3}]',
        '[{"role": "author", "name": "Ann"}]',
        "[{'a': 1}]",
        "[{'a': 1",
        "[",
        '{"role": "user", "content": "a"}',
        '"[{}]"',
        '[{"role": "user", "content": "a"}, 3]',
        "[{'a': __import__('os').getcwd()}]",
    ],
)
def test_other_text_that_begins_with_a_bracket_stays_text(write, text):
    assert load_rows(write("a.jsonl", json.dumps({"prompt": text}))) == [{"prompt": text}]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(SAID)[:-5],
        repr(SAID)[:-1],
        "[{'role': 'user', 'content': open('x').read()}]",
        json.dumps(SAID) + " and more",
        "array([{'role': 'user', 'content': 'a'}], dtype=object)",
        '[{"role": ' + "[" * 50_000,
        "[{'role': " + "-" * 50_000 + "1}]",
    ],
    ids=range(7),
)
def test_a_list_of_messages_that_breaks_off_is_refused_with_its_line(write, text):
    path = write("a.jsonl", json.dumps({"chosen": "x"}) + "\n" + json.dumps({"chosen": text}))
    with pytest.raises(
        LabError, match=r"a\.jsonl, line 2: 'chosen' begins as a list of messages .*json\.dumps"
    ):
        load_rows(path)


def test_conversations_come_whole_from_json_lines_and_parquet(write, tmp_path):
    row = {"chosen": TALK, "label": True, "n": 3}
    jsonl = write("a.jsonl", json.dumps(row))
    parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    assert load_rows(jsonl) == load_rows(tmp_path / "a.parquet") == [row]


def test_a_row_is_numbered_by_the_line_on_which_it_begins(write):
    assert [n for n, _ in read_numbered_rows(write("a.jsonl", '\n{"a": 1}\n\n{"a": 2}'))] == [2, 4]
    assert read_numbered_rows(write("a.csv", 'a,b\r\n1,"x\r\ny"\r\n\r\n2,z\r\n')) == [
        (2, {"a": "1", "b": "x\r\ny"}),
        (5, {"a": "2", "b": "z"}),
    ]
    assert (
        row_location("a.CSV", 5) == "a.CSV, line 5"
        and row_location("a.parquet", 5) == "a.parquet, row 5"
        and row_location("owner/name:test", 5) == "owner/name:test, row 5"
    )


def test_a_csv_keeps_numbers_as_the_text_that_they_are(write):
    assert load_rows(write("a.csv", "\ufeffprompt,chosen\n007,1.50\nNaN,\n")) == [
        {"prompt": "007", "chosen": "1.50"},
        {"prompt": "NaN", "chosen": ""},
    ]


def test_a_cell_of_a_csv_may_be_as_long_as_a_book(write):
    assert len(load_rows(write("a.csv", "a\n" + "x" * 300_000))[0]["a"]) == 300_000


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("a.jsonl", '{"a": 1}\n{oops', r"a\.jsonl, line 2 is not JSON .*one JSON object a line"),
        (
            "a.jsonl",
            "[1]",
            r"line 1 holds list, not an object.*an array of them belongs in a \.json",
        ),
        ("a.jsonl", '[\n{"a": 1}\n]', r"line 1 is not JSON .*an array of them belongs in a \.json"),
        ("a.json", "[\n]", "a.json is empty"),
        (
            "a.json",
            '[\n {"a": 1},\n {"b" 2}]',
            (
                r"a\.json, line 3 is not JSON \(Expecting ':' delimiter at column 7\).*array of"
                r" JSON objects, or one object a line"
            ),
        ),
        ("a.json", '[\n {"a": 1},\n 3]', r"a\.json, line 3 holds int, not an object"),
        (
            "a.json",
            '[{"a": 1}\r\n{"a": 2}]',
            r"a\.json, line 2 is not JSON \(Expecting ',' or '\]' at column 1",
        ),
        (
            "a.json",
            '[{"a": 1},\n{"a": 2}',
            r"line 2 is not JSON \(Expecting ',' or '\]' at column 9",
        ),
        ("a.json", '[{"a": 1},\n]', r"line 2 is not JSON"),
        ("a.json", '[{"a": 1}]\n[{"a": 2}]', r"line 2 is not JSON \(Extra text behind the array"),
        (
            "a.json",
            '{\n"a": 1}',
            r"line 1 is not JSON .*array of JSON objects, or one object a line",
        ),
        ("a.json", '[\n{"a": ' + "[" * 50_000, r"line 2 is not JSON that can be read"),
        (
            "a.json",
            '[{"a": 1},\n{"a": ' + "9" * 5_000 + "}]",
            r"line 2 is not JSON that can be read",
        ),
        (
            "a.tsv",
            "a\tb\n1\t2\t3\n",
            r"a\.tsv, line 2 has 3 cells, but the header has 2.*hold a tab",
        ),
        ("a.jsonl.gz", b"no gzip", r"a\.jsonl\.gz is not gzip that can be read"),
        (
            "a.csv.gz",
            gzip.compress(b"a\n1\n", mtime=0)[:-9],
            r"a\.csv\.gz is not gzip that can be read",
        ),
        (
            "a.jsonl.GZ",
            gzip.compress(b'{"a": 1}\n{oops', mtime=0),
            r"a\.jsonl\.GZ, line 2 is not JSON",
        ),
        ("a.json.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("a.gz", gzip.compress(b"x", mtime=0), r"ends in '\.gz', which is no known format"),
        (
            "a.parquet.gz",
            gzip.compress(b"x", mtime=0),
            r"ends in '\.parquet\.gz', which is no known format",
        ),
        ("a.csv", "a,b,a\n1,2,3\n", r"a\.csv has two columns 'a'"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", r"a\.csv, line 3 has 3 cells, but the header has 2.*quotes"),
        ("a.csv", 'a,b\n1,2\n1,"2', r"a\.csv, line 3 is not CSV"),
        ("a.csv", "a,b\n", "is empty"),
        ("a.csv", "", "is empty"),
        ("a.jsonl", "\n", "is empty"),
        ("a.jsonl", b"\xff", r"is not UTF-8 text \(byte 0\)"),
        ("a.parquet", b"no table", "is not a Parquet file"),
        (
            "a.txt",
            "x",
            (
                r"ends in '\.txt', which is no known"
                r" format.*\.jsonl.*\.csv.*\.parquet.*owner/name:split"
            ),
        ),
        ("a", "x", "ends in ''"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(write, name, content, says):
    with pytest.raises(LabError, match=says):
        load_rows(write(name, content))


@pytest.mark.parametrize(
    "source",
    [
        "nowhere.jsonl",
        "data/pairs.jsonl",
        "/data/pairs",
        "a/b/c",
        ".",
        "",
        "owner/na me",
        "owner/name:",
    ],
)
def test_a_source_that_is_neither_file_nor_hub_id_says_what_would_do(source):
    with pytest.raises(LabError, match=r"No data file at .*\.jsonl.*owner/name:split"):
        load_rows(source)


def test_a_hub_that_cannot_be_reached_is_called_so():
    with pytest.raises(
        LabError,
        match=r"The hub cannot be reached for 'some-owner/some-data'.*Go online, or give a file",
    ):
        load_rows("some-owner/some-data:test")


def test_the_hub_is_asked_for_the_split_that_the_source_names(monkeypatch):
    class Hub:
        @staticmethod
        def load_dataset(name, split):
            if split == "none":
                raise ValueError("Unknown split\nmore")
            return [{"name": name, "split": split}]

    monkeypatch.setitem(sys.modules, "datasets", Hub)
    assert read_numbered_rows("o-w/n.1") == [
        (1, {"name": "o-w/n.1", "split": "train"})
    ] and load_rows("o/n:test") == [{"name": "o/n", "split": "test"}]
    with pytest.raises(LabError, match=r"Could not load 'o/n' from the hub \(Unknown split\)"):
        load_rows("o/n:none")


def test_bytes_are_read_as_the_ending_of_their_name_says():
    assert parse_file(b"a\n1\n", "x.csv") == [(2, {"a": "1"})] and parse_file(
        b'{"a": "1"}', "x.JSONL"
    ) == [(1, {"a": "1"})]
