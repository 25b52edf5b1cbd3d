"""Agreement of labels: Cohen's kappa against numbers by hand, and files that are no labels."""

import json
import math

import pytest

from lab.data.examples import Pair, UnpairedExample
from lab.errors import LabError
from lab.taste.agreement import (
    agreement_of,
    cohen_kappa,
    judgements,
    merged_rows,
    read_label_file,
    rule_agreement,
    self_agreement,
)
from lab.taste.labellers import label_set, simulated_choice
from lab.taste.labels import LabelSet
from lab.taste.next_pair import next_question
from lab.taste.pools import load_pool, preferred_by


def test_kappa_is_that_of_a_table_worked_by_hand():
    first = ["y"] * 25 + ["n"] * 25
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    result = cohen_kappa(first, second)
    assert result.observed == pytest.approx(35 / 50)
    assert result.expected == pytest.approx(25 / 50 * 30 / 50 + 25 / 50 * 20 / 50)
    assert result.kappa == pytest.approx(0.4)
    assert result.half == pytest.approx(1.959964 * math.sqrt(0.7 * 0.3 / (50 * 0.25)), rel=1e-4)
    assert result.text() == "κ = 0.40 ± 0.25 on 50 common items: equal on 70%, by chance 50%"


def test_kappa_of_equal_opposite_and_constant_people():
    assert cohen_kappa("abba", "abba").kappa == 1
    assert cohen_kappa("aabb", "bbaa").kappa == -1
    constant = cohen_kappa("aaa", "aaa")
    assert math.isnan(constant.kappa) and "not defined" in constant.text()
    for first, second in (("ab", "a"), ("", "")):
        with pytest.raises(LabError, match="κ compares two people on the same items"):
            cohen_kappa(first, second)


ALWAYS = "because both always judged alike"
NO_INTERVAL = "no interval, because"


@pytest.mark.parametrize(
    ("first", "second", "start", "end"),
    [
        (
            "a",
            "b",
            "κ = 0.00 on 1 common item: equal on 0%",
            f"{NO_INTERVAL} there is only one item",
        ),
        ("a", "a", "κ is not defined on 1 common item: equal on 100%", ALWAYS),
        (
            "ab",
            "ab",
            "κ = 1.00 on 2 common items:",
            f"{NO_INTERVAL} all of the judgements are equal",
        ),
        ("ab", "ba", "κ = −1.00 on 2 common", f"{NO_INTERVAL} none of the judgements are equal"),
    ],
)
def test_an_interval_that_cannot_be_had_is_not_printed_as_0(first, second, start, end):
    text = cohen_kappa(first, second).text()
    assert text.startswith(start) and text.endswith(end) and "±" not in text


def test_a_line_that_cannot_be_read_is_skipped_and_named(tmp_path):
    path = write(tmp_path / "a.jsonl", PAIR)
    line = path.read_text()
    path.write_text(f"{line[:20]}\n{line}\n[1]\n{line[:-9]}")
    found = read_label_file(path)
    assert (found.rows, found.skipped) == ([PAIR], (1, 4, 5))
    text = found.skipped_text("a.jsonl")
    assert text == "a.jsonl: 3 lines (1, 4 and 5) are skipped, because no label can be read there."
    rows, notes = merged_rows([path, write(tmp_path / "b.jsonl", PAIR)])
    assert len(rows) == 2 and notes == [found.skipped_text(path)]
    assert read_label_file(tmp_path / "b.jsonl").skipped_text("b") == ""


def test_a_judgement_is_whether_the_shorter_answer_was_preferred_in_whatever_order_it_stands():
    ada = judgements([Pair("p", "long text", "text"), Pair("q", "a", "b"), Pair("r", "x", "yy")])
    bob = judgements([Pair("p", "text", "long text"), Pair("q", "a", "b"), Pair("s", "x", "y")])
    assert [*ada.values()] == ["longer", "shorter", "shorter"]
    assert agreement_of(ada, bob).count == 2 and agreement_of(ada, bob).observed == 0.5
    with pytest.raises(LabError, match="no labelled pair in common"):
        agreement_of(ada, {("z", "a", "b"): "shorter"})
    thumbs = judgements([UnpairedExample("p", "a", True), UnpairedExample("p", "a", False)])
    assert thumbs == {("p", "a"): "up"}  # The first judgement of an item counts.


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


PAIR = {"prompt": "1+1=", "chosen": "2", "rejected": "3"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "1+1=", "chosen": "2"}, r"b\.jsonl, line 2 has no 'rejected'"),
        (PAIR | {"chosen": "3"}, "line 2: chosen equals rejected"),
        (PAIR | {"chosen": ""}, "line 2: a completion is empty"),
        (PAIR | {"chosen": 7}, "line 2: 'chosen' is int"),
    ],
)
def test_a_line_that_is_no_label_is_named(tmp_path, row, message):
    with pytest.raises(LabError, match=message):
        read_label_file(write(tmp_path / "b.jsonl", PAIR, row))


def test_files_that_are_none_are_refused_in_words(tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(LabError, match="is empty: it has no rows"):
        read_label_file(empty)
    with pytest.raises(LabError, match="No data file at"):
        read_label_file(tmp_path / "missing.jsonl")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "1+1=", "chosen"\n')
    with pytest.raises(LabError, match="broken.jsonl, line 1"):
        read_label_file(broken)


def test_a_merge_keeps_both_rows_of_a_contradiction_and_says_whose_they_are(tmp_path):
    ada = write(tmp_path / "ada.jsonl", PAIR)
    bob = write(tmp_path / "bob.jsonl", PAIR | {"chosen": "3", "rejected": "2"})
    rows, _ = merged_rows([ada, bob])
    assert [(row["chosen"], row["labeller"]) for row in rows] == [("2", "1: ada"), ("3", "2: bob")]
    thumbs = write(tmp_path / "t.jsonl", {"prompt": "1+1=", "completion": "2", "label": True})
    with pytest.raises(LabError, match="preference data and .*t.jsonl is unpaired preference data"):
        merged_rows([ada, thumbs])


def test_self_agreement_counts_repeats_and_rule_agreement_counts_each_pair_once(tmp_path):
    labels, ordered = LabelSet("ada", "chain", tmp_path), 0
    for number in range(20):
        asked = next_question(labels)
        by_rule = preferred_by("right", asked.pair)
        ordered += by_rule is not None and not asked.repeat
        chosen = by_rule or 0
        chosen = 1 - chosen if number == 19 else chosen  # the second repeat goes the other way
        labels.choose(asked.pair, chosen, asked.turn, held_out=asked.held_out, repeat=asked.repeat)
    own = self_agreement(labels)
    assert (own.hits, own.count, own.value) == (1, 2, 0.5)
    rule = rule_agreement(labels, "right")
    assert (rule.hits, rule.count) == (ordered, ordered) and ordered >= 15
    assert math.isnan(self_agreement(LabelSet("bob", "chain", tmp_path)).value)


def test_a_simulated_labeller_errs_as_often_as_its_noise_and_repeats_itself():
    pairs = [p for p in load_pool("chain").values() if preferred_by("right", p) is not None]
    for noise in (0.0, 0.1, 0.3):
        errors = [
            simulated_choice(pair, "right", noise, seed) != preferred_by("right", pair)
            for pair in pairs
            for seed in range(10)
        ]
        share = sum(errors) / len(errors)
        spread = math.sqrt(noise * (1 - noise) / len(errors))
        assert abs(share - noise) <= 4 * spread
    pair = pairs[0]
    assert simulated_choice(pair, "right", 0.3, 1) == simulated_choice(pair, "right", 0.3, 1)


def test_a_simulated_label_set_repeats_itself_as_often_as_its_noise_lets_it(tmp_path):
    hits = count = 0
    for seed in range(4):
        labels = label_set(
            LabelSet(f"s{seed}", "chain", tmp_path), "right", noise=0.3, seed=seed, count=150
        )
        own = self_agreement(labels)
        assert len(labels.pairs()) == 150 and own.count == 15
        hits, count = hits + own.hits, count + own.count
    expected = 0.7**2 + 0.3**2
    assert abs(hits / count - expected) <= 4 * math.sqrt(expected * (1 - expected) / count)
    same = label_set(LabelSet("s0", "chain", tmp_path / "again"), "right", 0.3, 0, 150)
    assert same.pairs() == LabelSet("s0", "chain", tmp_path).pairs()
