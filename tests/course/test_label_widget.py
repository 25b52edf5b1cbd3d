"""The buttons of notebook 11 write labels."""

from lab.course.label_widget import label_box
from lab.taste.labels import LabelSet
from lab.taste.next_pair import next_question


def test_a_press_writes_the_answer_that_the_text_calls_a_or_b(tmp_path):
    labels = LabelSet("ada", "chain", tmp_path)
    box = label_box(labels)
    text, row = box.children
    buttons = {button.description: button for button in row.children}
    first = next_question(labels)
    a, b = first.pair.answers[first.left], first.pair.answers[1 - first.left]
    assert f"A  {a}\n\nB  {b}" in text.value and first.pair.prompt in text.value
    buttons["Prefer B"].click()
    assert [(r["chosen"], r["rejected"]) for r in labels.pairs()] == [(b, a)]
    assert text.value.startswith("1 labels")
    buttons["Skip"].click()
    assert len(labels.skipped()) == 1
    buttons["Undo"].click()
    buttons["Undo"].click()
    assert labels.turn() == 1 and f"A  {a}" in text.value


def test_lines_that_do_not_count_are_named_above_the_pair(tmp_path):
    labels = LabelSet("ada", "chain", tmp_path)
    labels.folder.mkdir(parents=True)
    labels.pairs_path.write_text("{broken\n")
    text, _ = label_box(labels).children
    assert (
        text.value.startswith("labels.jsonl: line 1 is not counted") and "0 labels." in text.value
    )
