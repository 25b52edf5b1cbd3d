"""The words for settings, group sizes, ensembles and the order of methods, on records small enough to read."""

import math

import pytest

from lab.analysis.claims import rlhf
from lab.analysis.claims.claim import Verdict
from lab.analysis.claims.records import Records, TunedResults
from lab.analysis.comparison_words import Difference, independent_difference
from lab.analysis.group_sizes import best_sizes, best_sizes_sentence
from lab.analysis.reward_ensembles import (
    ensembles_sentence,
    is_ensemble,
    judged_ensembles,
    single_reward_model,
)
from lab.analysis.setting_changes import compare_falls, falls


def around(mean):
    """Ten values with this mean and a standard deviation of 0.01·√(10/9)."""
    return [mean - 0.01, mean + 0.01] * 5


def measured(values):
    return [{"gold/accuracy": value} for value in values]


def sensitivity(**ends):
    """A record in which each method has one setting: its centre is 0.9, ÷ 4 leaves it there, and × 4 gives
    the accuracy named here.
    """
    runs, rows = {}, []
    for method, end in ends.items():
        rows.append({"method": method, "knob": "beta", "spread": 0.9 - end})
        for name, mean in (("centre", 0.9), ("beta-low", 0.9), ("beta-high", end)):
            runs[f"{method}-{name}"] = measured(around(mean))
    return {"runs": runs, "rows": rows, "factor": 4.0, "seeds": 10}


def test_two_independent_differences_add_their_errors():
    found = independent_difference(Difference(1.0, 3.0, 9.0), Difference(-1.0, 4.0, 9.0))
    assert (found.mean, found.standard_error) == (2.0, 5.0)
    assert found.degrees == pytest.approx(625 / (81 / 9 + 256 / 9))


def test_a_fall_is_that_of_the_worst_change_of_one_setting():
    found = falls(sensitivity(ppo=0.2, dpo=0.7))
    assert (found["ppo"].knob, found["ppo"].end) == ("beta", "high")
    assert found["ppo"].difference.mean == pytest.approx(0.7)
    # Ten values each with s² = 0.001/9, so the squares of the errors are 0.001/90 each.
    assert found["ppo"].difference.standard_error == pytest.approx(math.sqrt(2 * 0.001 / 90))
    word = compare_falls(sensitivity(ppo=0.2, dpo=0.7), "ppo", ["dpo"])["dpo"]
    assert word.word == "larger" and word.difference.mean == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ({"ppo": 0.2, "dpo": 0.7, "grpo": 0.8}, Verdict.HOLDS_HERE),
        ({"ppo": 0.8, "dpo": 0.7, "grpo": 0.1}, Verdict.FAILS_HERE),
        ({"ppo": 0.2, "dpo": 0.7, "grpo": 0.1}, Verdict.UNDECIDED),
        ({"ppo": 0.7, "dpo": 0.7, "grpo": 0.7}, Verdict.UNDECIDED),
    ],
)
def test_ppo_is_unstable_only_if_it_loses_more_than_every_other_method(ends, verdict):
    found = rlhf.ppo_is_unstable(Records({"sensitivity": sensitivity(**ends)}))
    assert found.verdict == verdict
    assert f"PPO {0.9 - ends['ppo']:.2f} ± 0.01" in found.text


def groups(accuracy, half):
    """A record with these means for G = 2, 4 and 8 at equal completions, and 0.5 at equal prompts."""
    return {
        "seeds": 10,
        "rows": [
            {
                "budget": budget,
                "group_size": size,
                "final": {"gold/accuracy": {"mean": mean, "half": half}},
            }
            for budget, means in (("rollouts", accuracy), ("prompts", (0.5, 0.5, 0.5)))
            for size, mean in zip((2, 4, 8), means)
        ],
    }


def test_a_group_size_is_best_beside_those_that_no_test_tells_apart():
    table = groups((0.7, 0.9, 0.9001), 0.01)
    best = best_sizes(table)["rollouts"]
    assert (best.size, best.worse, best.not_told_apart) == (8, (2,), (4,))
    assert best_sizes_sentence(table).startswith(
        "With equally many completions in an update, G = 8 has the highest mean gold accuracy, 0.90 ± 0.01;"
        " it is better than G = 2 and not told apart from G = 4. With equally many prompts"
    )
    wide = best_sizes(groups((0.7, 0.9, 0.9001), 0.5))["rollouts"]
    assert (wide.worse, wide.not_told_apart) == ((), (2, 4))


def optimised(single, ensemble):
    titles = ("2,000 pairs", "4 × 2,000 pairs, mean")
    return {
        "seeds": 10,
        "rows": [{"method": "ppo", "reward_model": title} for title in titles],
        "runs": {"one": measured(single), "four": measured(ensemble)},
    }


def test_an_ensemble_is_compared_with_its_first_member_seed_by_seed():
    assert [is_ensemble(t) for t in ("2,000 pairs, 30 % swapped", "4 × 2,000 pairs, mean")] == [
        False,
        True,
    ]
    assert single_reward_model("4 × 2,000 pairs, mean − spread") == "2,000 pairs"
    wild = [0.1 * i for i in range(10)]
    table = optimised(wild, [value + 0.1 + 0.01 * (-1) ** i for i, value in enumerate(wild)])
    (word,) = judged_ensembles(table).values()
    # Seed by seed the differences are 0.11 and 0.09, although the seeds lie from 0 to 0.9.
    assert word.word == "better" and word.difference.mean == pytest.approx(0.1)
    assert word.difference.standard_error == pytest.approx(math.sqrt(0.001 / 9 / 10))
    said = ensembles_sentence(table)
    assert "PPO with mean +0.10 ± 0.01, better" in said
    assert "better in 1 of 1 cases and worse in 0" in said
    assert ensembles_sentence({"rows": [], "runs": {}, "seeds": 2}) == ""


def test_the_order_of_a_view_names_the_best_and_a_word_for_every_other():
    def row(arm, mean):
        return {"view": "tokens", "arm": arm, "gold/accuracy": {"mean": mean, "half": 0.01}}

    words = {"dpo": "level within 0.02", "ppo": "better", "sft": "better"}
    table = {
        "rows": [row("kto", 0.9), row("ppo", 0.8), row("dpo", 0.89), row("sft", 0.7)],
        "titles": {"kto": "KTO", "dpo": "DPO", "ppo": "PPO, rule", "sft": "SFT"},
        "comparisons": {
            "tokens": [
                {"first": "kto", "second": arm, "word": word, "mean": 0.1, "half": 0.02}
                for arm, word in words.items()
            ]
        },
    }
    assert TunedResults(table).order_text() == (
        "KTO has the highest mean, 0.90 ± 0.01. It is level within 0.02 of DPO; better than PPO, rule and"
        " SFT."
    )
    assert TunedResults(table).against_text("ppo", ["kto"]) == (
        "PPO, rule minus KTO −0.10 ± 0.02, worse"
    )
