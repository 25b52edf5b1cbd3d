"""Rows of a data file, against rows written out by hand, and every way in which a file can be unreadable."""

import json
import sys

import pyarrow as pa
import pytest
from pyarrow import parquet

from lab.errors import LabError
from lab.formats import numbered, parse, place, rows

TALK = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I, \"me\"\nand you."}]
ROWS = [{"prompt": "Wer?", "chosen": "ich", "rejected": "du"}, {"prompt": "1+1=", "chosen": "2", "rejected": "3,\n4"}]


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
    assert rows(jsonl) == rows(str(jsonl)) == rows(table) == rows(tmp_path / "a.parquet") == ROWS


def test_conversations_come_whole_from_json_lines_and_parquet(write, tmp_path):
    row = {"chosen": TALK, "label": True, "n": 3}
    jsonl = write("a.jsonl", json.dumps(row))
    parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    assert rows(jsonl) == rows(tmp_path / "a.parquet") == [row]


def test_a_row_is_numbered_by_the_line_on_which_it_begins(write):
    assert [n for n, _ in numbered(write("a.jsonl", '\n{"a": 1}\n\n{"a": 2}'))] == [2, 4]
    assert numbered(write("a.csv", 'a,b\r\n1,"x\r\ny"\r\n\r\n2,z\r\n')) == [(2, {"a": "1", "b": "x\r\ny"}), (5, {"a": "2", "b": "z"})]
    assert place("a.CSV", 5) == "a.CSV, line 5" and place("a.parquet", 5) == "a.parquet, row 5" and place("owner/name:test", 5) == "owner/name:test, row 5"


def test_a_csv_keeps_numbers_as_the_text_that_they_are(write):
    assert rows(write("a.csv", "\ufeffprompt,chosen\n007,1.50\nNaN,\n")) == [{"prompt": "007", "chosen": "1.50"}, {"prompt": "NaN", "chosen": ""}]


def test_a_cell_of_a_csv_may_be_as_long_as_a_book(write):
    assert len(rows(write("a.csv", "a\n" + "x" * 300_000))[0]["a"]) == 300_000


@pytest.mark.parametrize("name, content, says", [
    ("a.jsonl", '{"a": 1}\n{oops', r"a\.jsonl, line 2 is not JSON .*one JSON object a line"),
    ("a.json", "[\n]", r"a\.json, line 1 is not JSON"),
    ("a.jsonl", "[1]", r"line 1 holds list, not an object"),
    ("a.csv", "a,b\n1,2\n1,2,3\n", r"a\.csv, line 3 has 3 cells, but the header has 2.*quotes"),
    ("a.csv", 'a,b\n1,2\n1,"2', r"a\.csv, line 3 is not CSV"),
    ("a.csv", "a,b\n", "is empty"),
    ("a.csv", "", "is empty"),
    ("a.jsonl", "\n", "is empty"),
    ("a.jsonl", b"\xff", r"is not UTF-8 text \(byte 0\)"),
    ("a.parquet", b"no table", "is not a Parquet file"),
    ("a.txt", "x", r"ends in '\.txt', which is no known format.*\.jsonl.*\.csv.*\.parquet.*owner/name:split"),
    ("a", "x", "ends in ''"),
])
def test_what_cannot_be_read_is_named_with_its_line(write, name, content, says):
    with pytest.raises(LabError, match=says):
        rows(write(name, content))


@pytest.mark.parametrize("source", ["nowhere.jsonl", "data/pairs.jsonl", "/data/pairs", "a/b/c", ".", "", "owner/na me", "owner/name:"])
def test_a_source_that_is_neither_file_nor_hub_id_says_what_would_do(source):
    with pytest.raises(LabError, match=r"No data file at .*\.jsonl.*owner/name:split"):
        rows(source)


def test_a_hub_that_cannot_be_reached_is_called_so():
    with pytest.raises(LabError, match=r"The hub cannot be reached for 'some-owner/some-data'.*Go online, or give a file"):
        rows("some-owner/some-data:test")


def test_the_hub_is_asked_for_the_split_that_the_source_names(monkeypatch):
    class Hub:
        @staticmethod
        def load_dataset(name, split):
            if split == "none":
                raise ValueError("Unknown split\nmore")
            return [{"name": name, "split": split}]

    monkeypatch.setitem(sys.modules, "datasets", Hub)
    assert numbered("o-w/n.1") == [(1, {"name": "o-w/n.1", "split": "train"})] and rows("o/n:test") == [{"name": "o/n", "split": "test"}]
    with pytest.raises(LabError, match=r"Could not load 'o/n' from the hub \(Unknown split\)"):
        rows("o/n:none")


def test_bytes_are_read_as_the_ending_of_their_name_says():
    assert parse(b"a\n1\n", "x.csv") == [(2, {"a": "1"})] and parse(b'{"a": "1"}', "x.JSONL") == [(1, {"a": "1"})]
