"""The figures of the experiments on a language model, on tables small enough to read, and what is
said of them.
"""

import pytest
from support.language import arm, ended, one

from lab.dashboard.pages.evidence.language_model import (
    beta_sentence,
    common_kl,
    comparison_sentence,
    equal_kl_sentence,
    repetition_sentence,
    reward_at,
)
from lab.dashboard.pages.grpo.arithmetic import (
    arm_sentence,
    arms_by_reward,
    change_words,
    checked_answers_sentence,
    cost_sentence,
    group_size_rows,
)
from lab.dashboard.pages.talk.before_after import prompt_labels
from lab.dashboard.state.arithmetic_text import (
    count_right_and_restated,
    only_restates_question,
    restatement_sentence,
    sum_kind,
    sum_kinds_sentence,
)
from lab.figures.arithmetic import REWARD_TITLES, arithmetic_figure, arithmetic_narrow_layout
from lab.figures.frontier import frontier_figure
from lab.figures.palette import METHOD_COLOURS, THEMES

ROWS = [
    ended("dpo", 0.1, 10.0, 0.9),
    ended("dpo", 1.0, 1.0, 0.5),
    ended("grpo", 0.1, 100.0, 0.8),
    ended("grpo", 1.0, 1.0, 0.2),
]
TABLE = {"rows": ROWS, "base": {"reward": 0.1, "repetition": 0.01}}


@pytest.mark.parametrize("theme", THEMES)
def test_every_method_has_its_ends_by_beta_and_the_way_behind_them(theme):
    figure = frontier_figure(TABLE, theme)
    ends = {trace.name: trace for trace in figure.data if trace.mode == "markers"}
    assert {name: (list(t.x), list(t.y), t.marker.color) for name, t in ends.items()} == {
        "DPO": ([1.0, 10.0], [0.5, 0.9], METHOD_COLOURS["dpo"]),
        "GRPO": ([1.0, 100.0], [0.2, 0.8], METHOD_COLOURS["grpo"]),
    }
    assert (
        ends["DPO"].marker.symbol != ends["GRPO"].marker.symbol
        and ends["DPO"].marker.size[0] < ends["DPO"].marker.size[1]
    )
    way = next(trace for trace in figure.data if trace.mode == "lines")
    assert list(way.x) == [1.0, None, 10.0, None] and not way.showlegend
    assert figure.layout.xaxis.type == "log" and figure.layout.shapes[0].y0 == 0.1


def test_a_bar_that_would_reach_below_zero_nats_stays_on_the_logarithmic_axis():
    row = ended("kto", 0.1, 2.0, 0.5)
    row["end"]["kl"]["half"] = 30.0
    bars = frontier_figure(TABLE | {"rows": [row]}).data[1].error_x
    assert list(bars.array) == [30.0] and 0 < 2.0 - bars.arrayminus[0] < 1.0


def test_methods_are_compared_where_most_of_them_have_been_along_log_kl():
    assert common_kl(ROWS) == (pytest.approx(10**0.5), ["dpo", "grpo"])
    found = reward_at(ROWS, "dpo", 10**0.5)
    assert (found.mean, found.half) == (pytest.approx(0.7), pytest.approx(0.05))
    assert reward_at(ROWS, "grpo", 10**0.5).mean == pytest.approx(0.2 + 0.6 / 4)
    assert (
        equal_kl_sentence(ROWS, 3)
        == "All 2 methods reach a KL of 3.2 nats. There DPO has the highest mean reward, 0.70 ± 0.05."
        " The others: GRPO 0.35 ± 0.05. DPO is better than every other."
    )


def test_methods_not_told_apart_are_named_and_a_method_that_was_never_there_is_left_out():
    wide = [
        ended(
            row["method"],
            row["beta"],
            row["end"]["kl"]["mean"],
            row["end"]["reward"]["mean"],
            half=0.5,
        )
        for row in ROWS
    ]
    said = equal_kl_sentence([*wide, ended("ipo", 0.1, 0.02, 0.3), ended("ipo", 1.0, 0.01, 0.2)], 3)
    assert (
        "2 of 3 methods reach a KL" in said
        and said.endswith("DPO is not told apart from GRPO.")
        and "IPO" not in said
    )
    assert equal_kl_sentence(
        [ended("dpo", 0.1, 1.0, 0.5), ended("grpo", 0.1, 2.0, 0.5)], 3
    ).startswith("No two methods")


def test_a_beta_that_does_not_go_further_is_named():
    assert beta_sentence(ROWS).startswith(
        "A smaller β leads to a larger KL in every method. From β = 1 to β = 0.1 the values change"
        " as follows: DPO 1 → 10 nats, reward 0.50 → 0.90;"
    )
    assert "mostly leads to a larger KL; an exception occurs with KTO" in beta_sentence(
        [*ROWS, ended("kto", 0.1, 1.0, 0.4), ended("kto", 1.0, 5.0, 0.6)]
    )


def test_repetition_is_told_where_it_rises_and_where_it_rises_in_some_seeds_only():
    assert repetition_sentence(ROWS, 0.01, 3).startswith(
        "The share of repeated bigrams (pairs of words) rises by at most 0.05, from 0.01"
    )
    hacked = ended("grpo", 0.03, 50.0, 1.0, repetition=0.7)
    assert "GRPO at β = 0.03 (0.70 ± 0.01; reward 1.00)" in repetition_sentence(
        [*ROWS, hacked], 0.01, 3
    )
    hacked["end"]["repetition"]["half"] = 0.8
    assert "(0.70 (0.00 to 1.00), not told apart from before; reward 1.00)" in repetition_sentence(
        [*ROWS, hacked], 0.01, 3
    )


@pytest.mark.parametrize(
    ("spread", "said"),
    [
        (0.001, "GRPO, rule follows with 0.70 ± 0.02. The highest is better than every other"),
        (
            0.2,
            "GRPO, rule follows with 0.70 ± 0.02. The highest is not told apart from GRPO, rule and SFT",
        ),
    ],
)
def test_the_comparison_says_which_method_leads_and_whether_that_is_sure(spread, said):
    arms = {"dpo": ("DPO", 0.9), "grpo": ("GRPO, rule", 0.7), "sft": ("SFT", 0.6)}
    table = {
        "base": {"gold/accuracy": 0.5},
        "plan": {"seeds": 3, "budget": "tokens", "amount": 50000.0},
        "runs": {
            arm: [{"gold/accuracy": gold + spread * seed} for seed in (-1, 0, 1)]
            for arm, (_, gold) in arms.items()
        },
        "methods": [
            {"method": arm, "title": title, "gold/accuracy": one(gold, 0.02), "kl": one(3.0, 0.5)}
            for arm, (title, gold) in arms.items()
        ],
    }
    text = comparison_sentence(table)
    assert f"DPO has the highest mean, 0.90 ± 0.02; {said}" in text
    assert text.startswith(
        "All methods trained with 50,000 tokens. Before training, the share of positive texts is 0.50."
    )
    assert "SFT has the lowest mean, 0.60 ± 0.02." in text


# --- sums
# -------------------------------------------------------------------------------------------------------------


SUMS = {
    "rows": [
        arm("rollouts", 2, 0.6),
        arm("rollouts", 8, 0.7),
        arm("steps", 2, 0.5, batch=16, seconds=5.0),
        arm("steps", 8, 0.7, batch=64, seconds=15.0),
        arm("math", 8, 0.1, paid=0.9),
        arm("random", 8, 0.25, paid=0.5),
    ],
    "base": {"gold/accuracy": 0.2},
}


@pytest.mark.parametrize("theme", THEMES)
def test_checked_answers_stand_beside_two_other_rewards_in_four_panels(theme):
    arms = arms_by_reward(SUMS)
    assert [(row["equal"], row["group_size"]) for row in arms] == [
        ("rollouts", 8),
        ("math", 8),
        ("random", 8),
    ]
    figure = arithmetic_figure(arms, SUMS["base"], theme)
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == [
        *REWARD_TITLES.values(),
        "before training",
    ]
    lines = [trace for trace in figure.data if trace.name in REWARD_TITLES.values()]
    ends = {
        axis: [trace.y[-1] for trace in lines if trace.yaxis == axis]
        for axis in ("y", "y2", "y3", "y4")
    }
    assert ends == {"y": [0.7, 0.9, 0.5], "y2": [0.7, 0.1, 0.25], "y3": [10.0] * 3, "y4": [0.3] * 3}
    assert (
        len({(trace.line.dash, trace.marker.symbol) for trace in lines})
        == len({trace.line.dash for trace in lines})
        == 3
    )
    assert figure.data[-1].y == (0.2, 0.2) and figure.data[-1].yaxis == "y2"
    assert (
        figure.layout.yaxis.range == figure.layout.yaxis2.range
        and figure.layout.yaxis3.range[1] > 20
    )


def test_many_updates_have_a_band_instead_of_bars():
    row = SUMS["rows"][1] | {
        "steps": list(range(40)),
        "length": {"mean": [5.0] * 40, "half": [1.0] * 40},
    }
    band = next(
        trace
        for trace in arithmetic_figure([row], SUMS["base"]).data
        if trace.fill and trace.yaxis == "y3"
    )
    assert (max(band.y), min(band.y), band.yaxis) == (6.0, 4.0, "y3")
    row["length"]["half"] = [9.0] * 40
    assert (
        min(
            next(
                trace
                for trace in arithmetic_figure([row], SUMS["base"]).data
                if trace.fill and trace.yaxis == "y3"
            ).y
        )
        == 0.0
    )


def test_on_a_telephone_the_panels_stand_under_each_other():
    spans = sorted(
        value["domain"]
        for name, value in arithmetic_narrow_layout().items()
        if name.startswith("yaxis")
    )
    assert (
        len(spans) == 4
        and all(before[1] < after[0] for before, after in zip(spans, spans[1:]))
        and 0 < spans[0][0]
        and spans[-1][1] < 1
    )


def test_what_every_reward_paid_and_what_was_right_is_told():
    arms = arms_by_reward(SUMS)
    assert (
        arm_sentence(arms[1], 0.2, "a fall")
        == "**A checker that can be fooled.** The mean reward goes from 0.30 to 0.90 ± 0.02. Gold"
        " accuracy goes from 0.20 to 0.10 ± 0.02: a fall. Completions go from 20 to 10 tokens, and"
        " entropy (the spread of the next-token probabilities) from 0.90 to 0.30 nats per token."
    )
    assert change_words(arms, 0.2, 3)[:2] == ["a rise", "a fall"]
    assert change_words([arm("rollouts", 8, 0.25, half=0.06)], 0.2, 3) == ["not told apart"]
    said = checked_answers_sentence(arms, 3)
    assert (
        "higher. Both were trained alike apart from the reward, so the gain needs the check."
        in said
    )
    assert said.endswith(
        "the reward of the last update minus gold accuracy is +0.80 ± 0.02, higher. The reward curve"
        " alone looks like success."
    )


def test_a_record_in_which_nothing_is_learnt_is_told_as_that():
    said = checked_answers_sentence(
        [arm("rollouts", 8, 0.27), arm("math", 8, 0.25, paid=0.27), arm("random", 8, 0.25)], 3
    )
    assert "shows no gain that needs the check" in said and said.endswith("not told apart.")


def test_groups_of_every_size_are_rows_of_the_group_experiment_without_the_control():
    rows = group_size_rows(SUMS)
    assert [
        (row["budget"], row["group_size"], row["final"]["gold/accuracy"]["mean"]) for row in rows
    ] == [("rollouts", 2, 0.6), ("rollouts", 8, 0.7), ("prompts", 2, 0.5), ("prompts", 8, 0.7)]
    assert (
        "G = 8 takes 6,400 tokens and a run with G = 2 takes 1,600. This is 4.0 times as many."
        in cost_sentence(rows)
    )


def test_prompts_are_listed_without_the_instruction_that_they_share():
    sums = [
        {"prompt": f"State the final answer: {a} + 6 =\nWrite it between <answer> and </answer>."}
        for a in (8, 5)
    ]
    assert prompt_labels(sums) == ["1: 8", "2: 5"]
    assert prompt_labels([{"prompt": "The cast is"}, {"prompt": "The script is"}]) == [
        "1: The cast is",
        "2: The script is",
    ]


def wrote(completion, gold=1.0, asked="11 - 78"):
    return {
        "prompt": f"State the final answer: {asked} =\nWrite it.",
        "completion": completion,
        "gold": gold,
    }


@pytest.mark.parametrize(
    ("completion", "again"),
    [
        ("11 - 78 =\n", True),
        ("It is 11 - 78.", True),
        ("11 - 78 = 11 - 78", True),
        ("11 - 78 = -67", False),
        ("11 - 78 = 5", False),
        ("67", False),
        ("", False),
    ],
)
def test_the_sum_said_again_is_told_from_an_attempt_at_its_answer(completion, again):
    assert only_restates_question(wrote(completion)) == again
    assert not only_restates_question(wrote("14", asked="no sum"))


def test_sums_said_again_are_told_as_hacking_and_answers_are_not():
    again, solved, wrong = wrote("11 - 78 =\n", 0.0), wrote("11 - 78 = -67"), wrote("5", 0.0)
    assert count_right_and_restated([again, solved, wrong]) == (1, 1)
    said = restatement_sentence([wrong, wrong, wrong], [again, again, solved])
    assert said.startswith(
        "**The policy exploits the reward.** 3 texts of seed 0 were written to fixed prompts. After"
        " training with the checker that can be fooled, 1 of them end in the right number and 2"
        " only repeat the question. Before training, these counts are 0 and 0."
    )
    assert "exploits" not in restatement_sentence(
        [wrong], [solved]
    ) and "exploits" not in restatement_sentence([again], [again])


def test_the_kinds_of_sums_that_are_solved_are_told_apart():
    assert [
        sum_kind(f"problem: {asked} =\n")
        for asked in ("5 + 6", "-5 + 3", "9 - 9", "4 - 8", "1 + 2 - 4", "nothing")
    ] == ["sums", "sums", "differences", "differences below zero", "differences below zero", ""]
    before, after = (
        [wrote("", gold, asked) for gold, asked in zip(golds, ("5 + 6", "1 + 2", "9 - 9", "4 - 8"))]
        for golds in ((0, 0, 1, 0), (1, 0, 1, 0))
    )
    assert (
        sum_kinds_sentence(before, after)
        == "After training with checked answers, these texts of seed 0 to fixed prompts are right:"
        " 1 of 2 sums (0 before training), 1 of 1 differences (1 before training), 0 of 1"
        " differences below zero (0 before training). No text about differences below zero was"
        " right before training. A group without a right answer is dead: it teaches nothing."
    )
    assert sum_kinds_sentence(before[:3], after[:3]).endswith(
        "(1 before training)."
    ) and not sum_kinds_sentence([wrote("", 1.0, "nothing")], [wrote("", 1.0, "nothing")])
