"""The lines that a learner writes and the lines that train, counted on small notebooks."""

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lab.course.learner_lines import LearnerLines, learner_lines

SOLUTION = {"tags": ["solution"]}
FOLDED = "<details><summary>Solution</summary>\n\n```python\n{}\n```\n\n</details>"


def notebook(*sources, solution):
    stub = new_code_cell(
        "def my_loss(x):\n    ...\n\n\ncheck(my_loss)", metadata={"tags": ["exercise"]}
    )
    folded = new_markdown_cell(FOLDED.format(solution), metadata=SOLUTION)
    return new_notebook(cells=[stub, folded, *map(new_code_cell, sources)])


TWO_LINES = "def my_loss(x):\n    # twice\n    y = 2 * x\n\n    return y"


def test_a_function_trains_where_a_run_calls_it():
    for source in (
        'train("dpo", loss=my_loss)',
        'own = {"loss": my_loss}\ntrain("dpo", **own)',
        'for f in (my_loss, print):\n    train("dpo", loss=f)',
        '[train("dpo", loss=f) for f in (my_loss, print)]',
        "repeat_run(run, my_loss)",
        "def update(x):\n    x.backward()\n\n\nupdate(my_loss(3))",
    ):
        assert learner_lines(notebook(source, solution=TWO_LINES)) == LearnerLines(2, 2), source


def test_a_function_that_is_only_printed_does_not_train():
    for source in ("print(my_loss(3))", 'train("dpo", beta=0.1)', "curves(loss)", "update(3)"):
        assert learner_lines(notebook(source, solution=TWO_LINES)) == LearnerLines(2, 0), source


def test_an_example_that_the_learner_changes_counts_too():
    own = "def my_reward(text, answer):\n    return 1.0"
    source = f'{own}\n\n\ntrain("grpo", reward=my_reward)'
    assert learner_lines(notebook(source, solution=TWO_LINES)) == LearnerLines(3, 1)


def test_the_lines_of_a_cell_that_can_be_written_whole_count_apart():
    whole = notebook("def write(x):\n    y = 1\n\n    return x + y", solution=TWO_LINES)
    whole.cells[-1].metadata["stub"] = "def write(x):\n    # one more\n    ..."
    assert learner_lines(whole) == LearnerLines(2, 0, 2)
