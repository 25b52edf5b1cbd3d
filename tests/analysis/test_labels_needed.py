"""The words for the experiment on the number of labels, from a table written by hand."""

import pytest

from lab.analysis.labels_needed import (
    comparison_sentence,
    experiment_sentence,
    goal_sentence,
    needed_words,
)


def made_table(chosen, needed_chosen, word="not told apart"):
    """A table with two counts, one noise and both ways to pick pairs."""

    def row(pick, mean, needed):
        both = {"gold": {"mean": mean, "half": [0.03, 0.02]}}
        both |= {"agreement": {"mean": mean, "half": [0.03, 0.02]}}
        return {"pick": pick, "noise": 0.0, "labels": [50, 100], **both} | {
            "needed/gold": needed,
            "needed/agreement": needed,
        }

    return {
        "plan": {"counts": [50, 100], "noises": [0.0]},
        "goal": 0.8,
        "goal_labels": 50,
        "rows": [
            row("random", [0.7, 0.79], {"mean": None, "least": 100, "most": None}),
            row("uncertain", chosen, needed_chosen),
        ],
        "comparisons": [
            {
                "measure": measure,
                "noise": 0.0,
                "labels": 100,
                "mean": 0.1,
                "half": 0.05,
                "word": word,
            }
            for measure in ("gold", "agreement")
        ],
    }


def test_the_goal_is_met_only_where_the_mean_reaches_it_with_so_many_chosen_labels():
    met = made_table([0.82, 0.9], {"mean": 50, "least": 50, "most": 100})
    assert goal_sentence(met) == (
        "With 50 labels of the least sure pairs, none of them wrong, gold accuracy is 0.82 ± 0.03."
        " So the goal of 0.80 is met on average."
    )
    missed = made_table([0.78, 0.9], {"mean": 100, "least": 50, "most": 100})
    assert (
        "gold accuracy is 0.78 ± 0.03. So the goal of 0.80 is not met on average."
        in goal_sentence(missed)
    )


@pytest.mark.parametrize(
    "needed, words",
    [
        ((100, 50, None), "100 (50 to more than 200)"),
        ((None, None, None), "more than 200"),
        ((25, 25, 25), "25"),
    ],
)
def test_labels_needed_stand_with_both_ends_of_the_interval(needed, words):
    assert needed_words(dict(zip(("mean", "least", "most"), needed)), 200) == words


def test_a_difference_is_named_only_where_the_two_ways_are_told_apart():
    table = made_table([0.78, 0.9], {"mean": 100, "least": 50, "most": 100})
    assert comparison_sentence(table, 0.0, "gold") == (
        "In gold accuracy of the policy the two ways are not told apart at 100 labels."
    )
    sure = made_table([0.78, 0.9], {"mean": 100, "least": 50, "most": 100}, "better")
    assert "the least sure pairs are better at 100 (+0.10 ± 0.05)." in experiment_sentence(
        sure, 0.0
    )
