"""The columns of a data file against counts made by hand, and what the report says about them."""

import json

import pytest
from support.tiny import save

from lab.cli import main
from lab.data import token_lengths
from lab.data.column_statistics import pair_statistics, summarise_lengths
from lab.data.near_duplicates import comparable_text
from lab.data.report import data_report
from lab.data.report_text import report_text


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def write(tmp_path):
    def write(*rows):
        path = tmp_path / "data.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
        return str(path)

    return write


def pair(prompt, chosen, rejected, **more):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected} | more


def counts(column):
    return tuple(column[name] for name in ("rows", "empty", "distinct"))


def test_every_column_is_counted_those_too_that_training_does_not_read(write, model):
    rows = [
        pair("ask", "yes", "no", source="web", score=4),
        pair("ask", "yes", "  ", source="web", score=None),
        pair("tell", "yes!", "no", source=""),
        pair("tell", "", "no", source="book", score=4),
    ]
    columns = data_report(write(*rows), model, 128)["columns"]
    assert {name: counts(column) for name, column in columns.items()} == {
        "prompt": (4, 0, 2),
        "chosen": (3, 1, 2),  # the empty one is that of the refused row
        "rejected": (3, 1, 1),
        "source": (3, 1, 2),
        "score": (2, 2, 1),
    }
    assert columns["chosen"]["characters"] == {"min": 3, "median": 3, "95 %": 4, "max": 4}
    assert columns["chosen"]["tokens"] == {"min": 4, "median": 4, "95 %": 5, "max": 5}
    assert "tokens" not in columns["source"] and "characters" not in columns["score"]


def test_texts_are_counted_as_training_reads_them(write, model):
    implicit = data_report(write({"chosen": "ask: yes", "rejected": "ask: no"}), model, 128)[
        "columns"
    ]
    assert implicit["prompt"]["characters"]["max"] == 4  # "ask:"
    assert implicit["chosen"]["characters"]["max"] == 4  # " yes"
    talk = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}]
    ((name, text),) = data_report(write({"messages": talk}), model, 128)["columns"].items()
    assert name == "text" and text["characters"]["max"] == 4  # two lines: "ab" and "c"


def test_labels_have_a_balance_and_no_length(write, model):
    rows = [
        {"prompt": f"ask {n}", "completion": "text", "label": label}
        for n, label in enumerate([True, "false", 1, 0, False])
    ]
    found = data_report(write(*rows), model, 128)
    assert counts(found["columns"]["label"]) == (5, 0, 2)
    assert set(found["columns"]["label"]) == {"rows", "empty", "distinct"}
    assert (found["kto"]["desirable"], found["kto"]["undesirable"]) == (2, 3)


def test_prompts_that_differ_only_in_case_spaces_or_punctuation_are_counted_and_named(write, model):
    prompts = ["What is two?", "what is  two", "WHAT is two...", "What is two?", "What is too?"]
    found = data_report(
        write(*[pair(text, f"yes {n}", "no") for n, text in enumerate(prompts)]), model, 128
    )
    assert (found["prompts"], found["near_duplicates"]) == (4, 2)
    (note,) = [p for p in found["problems"] if "but for case" in p["problem"]]
    assert note["lines"] == [2, 3] and not note["refused"]
    assert "--eval-share" in note["problem"]
    assert "4 prompts (2 nearly repeated)" in report_text(found)


def test_comparable_texts_are_those_of_the_docstring():
    assert comparable_text("What is 3*4?") == comparable_text(" what is  3*4") == "what is 3*4"
    assert comparable_text("?!") == "?!"


def test_a_length_bias_is_a_share_that_a_reader_can_check(write, model):
    rows = [pair(f"ask {n}", "c" * (n + 2), "r" * 4) for n in range(6)]  # 2 to 7 against 4
    found = data_report(write(*rows, pair("ask", "same", "same")), model, 128)
    assert found["pairs"] == {
        "pairs": 6,
        "equal": 1,
        "chosen_longer": 3,
        "rejected_longer": 2,
        "same_length": 1,
        "longer_is_chosen": pytest.approx(3.5 / 6, rel=1e-9),
        "mean_difference": pytest.approx(0.5, rel=1e-9),
        "median_difference": pytest.approx(0.5, rel=1e-9),
    }
    said = report_text(found)
    assert "chosen in 3 of 6 (50.0 %) pairs, rejected in 2 of 6 (33.3 %), the same in 1" in said
    assert "always prefers the longer completion agrees with 58.3 % of the pairs" in said
    assert "chosen is rejected in 1 rows" in said


def test_the_anchor_of_pair_statistics():
    found = pair_statistics({"chosen": [3, 5, 2], "rejected": [1, 5, 4]}, 0)
    assert (found["longer_is_chosen"], found["mean_difference"]) == (0.5, 0.0)


def test_rows_that_are_cut_left_out_and_refused_are_counted_once_each(write, model):
    rows = [
        pair("ask", "y" * 5, "n"),
        pair("ask", "y" * 30, "n"),  # cut
        pair("q" * 40, "y", "n"),  # left out: the prompt fills max_length
        pair("ask", "y" * 20 + "a", "y" * 20 + "b"),  # left out: equal after the cut
        pair("ask", "", "n"),  # refused
    ]
    found = data_report(write(*rows), model, 20)
    assert found["truncation"] == {"measured": 4, "cut": 1, "left_out": 2, "refused": 1}
    said = report_text(found)
    assert "20 cuts 1 of 4 (25.0 %) rows and leaves out 2 of 4 (50.0 %)" in said
    assert "1 of 5 (20.0 %) rows" in said


def test_the_quantiles_are_values_of_the_file():
    assert summarise_lengths([4, 1, 3, 2]) == {"min": 1, "median": 2, "95 %": 4, "max": 4}
    assert summarise_lengths(range(1, 101)) == {"min": 1, "median": 50, "95 %": 95, "max": 100}


def test_the_command_prints_a_table_and_the_same_numbers_as_json(write, model, capsys):
    path = write(pair("ask", "yes", "no", **{"a column with a very long name": "x\x1b"}))
    main.main(["data", path, "--model", model])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["column", "rows", "empty", "distinct", "characters", "tokens"]
    assert lines[2].split() == ["prompt", *"1 0 1 3 / 3 / 3 / 3 3 / 3 / 3 / 3".split()]
    assert lines[5].startswith("a column with a ver…")
    main.main(["data", path, "--model", model, "--json"])
    columns = json.loads(capsys.readouterr().out)["columns"]
    assert columns["prompt"] == {
        "rows": 1,
        "empty": 0,
        "distinct": 1,
        "characters": {"min": 3, "median": 3, "95 %": 3, "max": 3},
        "tokens": {"min": 3, "median": 3, "95 %": 3, "max": 3},
    }


def test_parts_of_a_file_that_are_measured_one_after_another_make_the_same_report(
    write, model, monkeypatch
):
    rows = [pair(f"ask {n}", "y" * (n + 1), "n" * 3) for n in range(7)] + [pair("q" * 40, "y", "n")]
    path = write(*rows)
    whole = data_report(path, model, 20)
    monkeypatch.setattr(token_lengths, "ROWS_AT_ONCE", 3)
    assert data_report(path, model, 20) == whole
    assert whole["pairs"]["pairs"] == 8 and whole["truncation"]["left_out"] == 1
