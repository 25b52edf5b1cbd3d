"""Labels on disk: nothing is lost, nobody's labels mix, and the next pair follows from them alone."""

import json
from pathlib import Path

import pytest

from lab.data.parsing import load_examples
from lab.errors import LabError
from lab.taste.agreement import rule_agreement, self_agreement
from lab.taste.labels import LabelSet, uncounted_text
from lab.taste.next_pair import most_uncertain, next_answer, next_question
from lab.taste.pools import POOLS, known_pairs, load_pool, pool_record, preferred_by, truth_of
from lab.taste.training import own_held_out, rule_rows, training_rows, write_training_files


@pytest.fixture
def labels(tmp_path):
    return LabelSet("ada", "chain", tmp_path)


def answer(labels, side="left", pick="random", margins=None):
    """Answer the next question with the side that a person would press; return the question."""
    asked = next_question(labels, pick, margins)
    chosen = asked.left if side == "left" else 1 - asked.left
    assert labels.choose(
        asked.pair,
        chosen,
        asked.turn,
        picked=asked.picked,
        held_out=asked.held_out,
        repeat=asked.repeat,
    )
    return asked


def test_a_choice_is_one_line_of_trls_preference_format_and_a_new_session_reads_it(labels):
    asked = answer(labels, "right")
    (line,) = labels.pairs_path.read_text("utf-8").splitlines()
    row = json.loads(line)
    assert row["prompt"] == asked.pair.prompt
    assert row["chosen"] == asked.pair.answers[1 - asked.left]
    assert row["rejected"] == asked.pair.answers[asked.left]
    again = LabelSet("ada", "chain", labels.folder.parents[2])
    assert again.pairs() == [row] and again.turn() == 2
    (pair,) = load_examples(labels.pairs_path, "dpo")
    assert (pair.chosen, pair.rejected) == (row["chosen"], row["rejected"])


def test_a_label_of_a_pair_that_the_pool_has_not_does_not_count_and_stays_in_the_file(labels):
    answer(labels)
    text = labels.pairs_path.read_text("utf-8")
    strange = json.dumps(json.loads(text) | {"pair": "gone-169", "turn": 2}) + "\n"
    labels.pairs_path.write_text(text + strange, "utf-8")
    assert len(labels.pairs()) == 1 and self_agreement(labels).count == 0
    answer(labels)
    assert len(labels.pairs()) == 2 and strange in labels.pairs_path.read_text("utf-8")


@pytest.mark.parametrize(
    "broken",
    [
        '{"prompt": "1+',
        "[1]",
        '{"pair": "chain-000", "turn": 9}',
        '{"pair": "chain-000", "turn": 9, "chosen": "none of its answers"}',
        '{"pair": "chain-000", "turn": 9, "chosen": []}',
    ],
)
def test_lines_that_do_not_count_are_named_and_stay_in_the_file(labels, broken):
    assert "chain-000" in load_pool("chain") and uncounted_text(labels) == ""
    answer(labels)
    first = labels.pairs_path.read_text("utf-8")
    labels.pairs_path.write_text(f"{broken}\n\n{first}{broken}", "utf-8")
    assert labels.uncounted() == {"labels.jsonl": [1, 4]}
    assert uncounted_text(labels).startswith("labels.jsonl: 2 lines (1 and 4) are not counted")
    answer(labels)
    assert len(labels.pairs()) == 2 and labels.uncounted() == {"labels.jsonl": [1, 4]}
    assert self_agreement(labels).count == 0
    assert labels.undo() and labels.undo()
    assert labels.pairs_path.read_text("utf-8") == f"{broken}\n\n{broken}\n"
    (labels.folder / "thumbs.jsonl").write_text('{"pair": "chain-000", "turn": 1, "answer": 0}')
    assert labels.thumbs() == [] and labels.uncounted()["thumbs.jsonl"] == [1]


def test_undo_removes_the_last_label_however_its_line_is_written(labels):
    answer(labels)
    row = json.loads(labels.pairs_path.read_text("utf-8"))
    labels.pairs_path.write_text(json.dumps(row, indent=None, separators=(",", ":")), "utf-8")
    assert labels.pairs() == [row] and labels.undo() == row and labels.pairs() == []


def test_a_reload_asks_the_same_pair_with_the_same_sides(labels):
    for _ in range(3):
        answer(labels)
    first, again = (
        next_question(labels),
        next_question(LabelSet("ada", "chain", labels.folder.parents[2])),
    )
    assert first == again and first.pair.id not in {row["pair"] for row in labels.pairs()}


def test_a_second_press_of_a_key_writes_nothing(labels):
    asked = next_question(labels)
    assert labels.choose(asked.pair, 0, asked.turn)
    assert not labels.choose(asked.pair, 1, asked.turn)
    assert [row["chosen"] for row in labels.pairs()] == [asked.pair.answers[0]]


def test_two_people_and_two_pools_do_not_mix(tmp_path):
    ada, bob = LabelSet("ada", "chain", tmp_path), LabelSet("bob", "chain", tmp_path)
    answer(ada)
    answer(ada)
    answer(bob)
    assert [len(own.pairs()) for own in (ada, bob)] == [2, 1]
    assert LabelSet("ada", "tone", tmp_path).pairs() == []
    assert bob.undo() and ada.turn() == 3 and bob.turn() == 1


def test_undo_takes_back_the_last_action_whatever_it_was(labels):
    answer(labels)
    asked = next_question(labels)
    assert labels.skip(asked.pair, asked.turn)
    assert next_question(labels).pair != asked.pair
    assert labels.undo()["pair"] == asked.pair.id and labels.skipped() == []
    assert next_question(labels).pair == asked.pair and len(labels.pairs()) == 1
    assert labels.undo() is not None and labels.undo() is None and labels.pairs() == []


def test_undo_keeps_every_other_byte_also_a_line_that_a_kill_cut_short(labels):
    answer(labels)
    with labels.pairs_path.open("ab") as file:
        file.write(b'{"prompt": "1+')
    before = labels.pairs_path.read_bytes()
    answer(labels)
    assert len(labels.pairs()) == 2
    assert labels.undo() and labels.pairs_path.read_bytes() == before + b"\n"


@pytest.mark.parametrize("name", ["", "../x", "Ada", "a b", "-a", "a" * 41, "a/b"])
def test_a_name_that_would_leave_the_folder_is_refused(tmp_path, name):
    with pytest.raises(LabError, match="cannot be the name of a label set"):
        LabelSet(name, "chain", tmp_path)
    with pytest.raises(LabError, match="Unknown pool 'none'"):
        LabelSet("ada", "none", tmp_path)


def test_every_fifth_new_pair_is_held_out_and_the_tenth_label_repeats_an_earlier_pair_swapped(
    labels,
):
    asked = [answer(labels) for _ in range(20)]
    assert [q.held_out for q in asked[:9]] == [n == 4 for n in range(9)]
    assert asked[9].repeat and asked[9].pair == asked[1].pair
    assert asked[9].left == 1 - asked[1].left
    new = [q for q in asked if not q.repeat]
    assert [q.held_out for q in new] == [n % 5 == 4 for n in range(18)]
    assert [number for number, q in enumerate(asked) if q.repeat] == [9, 19]
    assert len({q.pair.id for q in new}) == 18
    held = {q.pair.id for q in new if q.held_out}
    assert {row["pair"] for row in own_held_out(labels)} == held
    trained = training_rows(labels)
    assert len(trained) == 15 and not held & {row["pair"] for row in trained}


def test_the_most_uncertain_pair_is_the_one_whose_margin_is_nearest_to_0():
    margins = {"a": 2.0, "b": -0.5, "c": 1.0, "d": -3.0, "e": 0.5}
    assert most_uncertain(["a", "b", "c", "d", "e", "f"], margins, 6) == list("becadf")
    assert most_uncertain(["e", "b"], margins) == ["e"]


def test_uncertain_pairs_come_only_where_a_model_has_margins_and_never_for_the_held_out_fifth(
    labels,
):
    ids = list(load_pool("chain"))
    margins = {own: float(number + 1) for number, own in enumerate(ids)}
    assert next_question(labels, "uncertain", None).picked == "random"
    asked = [answer(labels, pick="uncertain", margins=margins) for _ in range(6)]
    picked = [q.pair.id for q in asked if q.picked == "uncertain"]
    assert picked == ids[:5] and [q.picked for q in asked].index("random") == 4
    assert asked[4].held_out


def test_opposite_thumbs_make_a_pair_and_equal_thumbs_make_none(labels):
    for verdicts in ((True, False), (True, True), (False, True)):
        for verdict in verdicts:
            asked = next_answer(labels)
            assert labels.rate(asked.pair, asked.index, verdict, asked.turn)
    rows = labels.thumbs()
    assert [row["label"] for row in rows] == [True, False, True, True, False, True]
    assert rows[0]["pair"] == rows[1]["pair"] and rows[0]["answer"] != rows[1]["answer"]
    first, third = training_rows(labels)
    assert (first["chosen"], first["rejected"]) == (rows[0]["completion"], rows[1]["completion"])
    assert (third["chosen"], third["rejected"]) == (rows[5]["completion"], rows[4]["completion"])
    assert len(load_examples(labels.folder / "thumbs.jsonl", "kto")) == 6


def test_training_files_hold_out_a_fifth_and_unseen_pairs_with_one_right_answer(labels):
    with pytest.raises(LabError, match="0 labelled pairs are too few to train on"):
        write_training_files(labels)
    for _ in range(12):
        answer(labels)
    files = write_training_files(labels)
    assert (files.trained, files.own) == (9, 2) and files.thumbs is None
    rows = [json.loads(line) for line in files.eval_pairs.read_text("utf-8").splitlines()]
    groups = [row["group"] for row in rows]
    assert groups == ["own"] * 2 + ["rule"] * files.rule and files.rule == 100
    seen = {row["prompt"] for row in labels.pairs()}
    for row, own in zip(rows[2:], rule_rows(labels)):
        assert row["prompt"] not in seen
        assert eval_chain(row["prompt"]) == row["chosen"].rpartition(">")[2]
        assert not is_right(row["prompt"], row["rejected"])
        assert own["chosen"] == row["chosen"]


def is_right(prompt, text):
    """Whether a text is the right answer alone, or one scratchpad and then the right answer."""
    answer = text if "<" not in text else text.partition("</think>")[2]
    return answer == eval_chain(prompt) and text.count("<think>") in (0, 1)


def eval_chain(prompt):
    """The right answer of a chain, computed here by Python from left to right."""
    value = int(prompt[0])
    for sign, digit in zip(prompt[1:-1:2], prompt[2:-1:2]):
        step = {"+": value + int(digit), "-": value - int(digit), "*": value * int(digit)}
        value = step[sign] % 100
    return str(value)


def test_labels_of_retired_pairs_still_count_and_their_pairs_are_not_asked_again(tmp_path):
    retired = {
        own: pair for own, pair in known_pairs("tone").items() if own not in load_pool("tone")
    }
    assert list(retired)[:105] == [f"tone-{number:03d}" for number in range(105)]
    labels = LabelSet("ada", "tone", tmp_path)
    pairs = list(retired.values())
    for pair in pairs[:9]:
        assert labels.choose(pair, 0, labels.turn())
    assert labels.choose(pairs[1], 0, labels.turn(), repeat=True)
    for index in (0, 1):
        assert labels.rate(pairs[20], index, index == 1, labels.turn())
    assert training_rows(labels)[-1]["chosen"][0]["content"] == pairs[20].answers[1]
    assert (self_agreement(labels).hits, self_agreement(labels).count) == (1, 1)
    brief = [len(pair.answers[0]) < len(pair.answers[1]) for pair in pairs[:9]]
    assert rule_agreement(labels, "brief").hits == sum(brief)
    asked = [answer(labels).pair.id for _ in range(10)] + [next_answer(labels).pair.id]
    assert not set(asked) & set(retired)


@pytest.mark.parametrize("pool", POOLS)
def test_every_shipped_pair_has_two_different_answers_and_the_measures_that_rules_compare(pool):
    pairs = load_pool(pool)
    assert len(pairs) == pool_record(pool)["pairs"] and len(pairs) >= 20
    docs = (Path(__file__).parents[2] / "docs" / "dashboard.md").read_text("utf-8")
    assert f"`{pool}`, {len(pairs)} pairs of" in " ".join(docs.split())
    for own, pair in pairs.items():
        assert pair.id == own and pair.prompt and pair.answers[0] != pair.answers[1]
        assert all(text.strip() == text and text for text in pair.answers)
        assert [measures["length"] for measures in pair.measures] == [*map(len, pair.answers)]
    if pool == "chain":
        for pair in pairs.values():
            right = [is_right(pair.prompt, text) for text in pair.answers]
            assert [bool(measures["right"]) for measures in pair.measures] == right
            assert truth_of(pair) == (None if right[0] == right[1] else right.index(True))


def test_a_rule_compares_its_measures_in_turn():
    pair = next(iter(load_pool("chain").values()))
    made = type(pair)(
        "x",
        "1+1=",
        ("2", "<think>1+1=2</think>2"),
        ("a", "b"),
        (
            {"length": 1, "right": 1.0, "thinks": 0.0, "neat": 1.0},
            {"length": 21, "right": 1.0, "thinks": 1.0, "neat": 1.0},
        ),
    )
    assert [preferred_by(rule, made) for rule in ("right", "thinking", "short")] == [1, 1, 0]
    with pytest.raises(LabError, match="Unknown rule 'rigt'. Did you mean 'right'"):
        preferred_by("rigt", made)
