"""The claims of papers: their verdicts and sentences follow from the words of a table."""

import pytest
from support.grpo_questions import length_table, pass_table, random_table

from lab.analysis.answer_length import length_sentence
from lab.analysis.claims import papers
from lab.analysis.claims.claim import Verdict
from lab.analysis.claims.records import Records
from lab.analysis.pass_at_k import crossing, curve_sentence
from lab.analysis.random_rewards import reward_sentence

LEVEL = "level within 0.02"
OPEN = "not told apart"
SHARPENS = ["better", LEVEL, "worse"]
ADDS = ["better", "better", "better"]
UNSURE = ["better", OPEN, OPEN]


@pytest.mark.parametrize(
    ("default", "harder", "verdict"),
    [
        (SHARPENS, SHARPENS, Verdict.HOLDS_HERE),
        (SHARPENS, UNSURE, Verdict.HOLDS_HERE),
        (UNSURE, ADDS, Verdict.FAILS_HERE),
        (SHARPENS, ADDS, Verdict.UNDECIDED),
        (UNSURE, UNSURE, Verdict.UNDECIDED),
        ([OPEN, OPEN, LEVEL], UNSURE, Verdict.UNDECIDED),
    ],
)
def test_training_only_sharpens_where_no_arm_is_better_than_the_base_at_many(
    default, harder, verdict
):
    assert papers.sharpening_verdict(pass_table(default, harder)) == verdict


def test_where_the_base_solves_every_chain_training_has_nothing_to_add():
    table = pass_table(["better", OPEN, OPEN], UNSURE)
    assert papers.sharpening_verdict(table) == Verdict.UNDECIDED
    table["rows"][0]["worked"]["mean"][-1] = 1
    assert papers.sharpening_verdict(table) == Verdict.HOLDS_HERE


def test_policies_are_listed_by_their_word_at_one_and_at_many_completions():
    table = pass_table(SHARPENS, ["worse"] * 3)
    assert curve_sentence(table, "default", "worked") == (
        "Chains of 3 to 6 operations; right answer, every step written and right. The base goes from"
        " 0.20 ± 0.02 at k = 1 to 0.80 ± 0.02 at k = 16. At k = 1, against the base: all better. At"
        " k = 16, against the base: all worse."
    )
    found = curve_sentence(table, "harder", "worked")
    assert "At k = 1, against the base: better: DPO; worse: GRPO, GRPO (longer chains)." in found
    assert found.startswith("Chains of 7 to 9 operations;")
    assert "DPO" not in curve_sentence(table, "harder", "worked", ["grpo"])


def test_a_curve_that_only_reaches_the_base_does_not_fall_below_it():
    def points(*values):
        return [{"k": k, "mean": v, "half": 0.0} for k, v in zip((1, 4, 16), values)]

    assert crossing(points(0.1, 0.0, 0.0)).k is None
    assert crossing(points(0.1, 1e-17, -1e-17)).k is None
    assert crossing(points(0.1, 0.0, -0.1)).k == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("word", "verdict"),
    [("longer", Verdict.HOLDS_HERE), ("shorter", Verdict.FAILS_HERE), (OPEN, Verdict.UNDECIDED)],
)
def test_wrong_answers_grow_where_they_are_longer_than_with_a_constant_divisor(
    word, verdict, monkeypatch
):
    monkeypatch.setattr(papers, "LENGTH_RECORDS", ("answer_length",))
    found = papers.wrong_answers_grow(Records({"answer_length": length_table(word)}))
    assert found.verdict == verdict and f"+0.250 ± 0.125, {word}" in found.text


def test_the_unit_of_length_is_that_of_the_task():
    sentence = length_sentence(length_table("longer"), "wrong")
    assert (
        "in tokens / full scratchpad: mean over each completion (GRPO) − sum over a constant"
        in sentence
    )
    sentence = length_sentence(length_table("longer", operations=None), "right")
    assert "SmolLM2-135M, differences in tokens: " in sentence and "shorter" in sentence


@pytest.mark.parametrize(
    ("gain", "clip", "verdict"),
    [
        ("better", "better", Verdict.HOLDS_HERE),
        ("better", "worse", Verdict.FAILS_HERE),
        ("better", LEVEL, Verdict.FAILS_HERE),
        ("better", OPEN, Verdict.UNDECIDED),
        ("worse", "better", Verdict.FAILS_HERE),
        (LEVEL, OPEN, Verdict.FAILS_HERE),
        (OPEN, "better", Verdict.UNDECIDED),
    ],
)
def test_the_clip_explains_random_rewards_only_where_both_differences_are_sure(gain, clip, verdict):
    assert papers.random_verdict(random_table(gain, clip)) == verdict


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        (("worse", OPEN), Verdict.FAILS_HERE),
        ((OPEN, OPEN), Verdict.FAILS_HERE),
        (("better", "better"), Verdict.UNDECIDED),
    ],
)
def test_tasks_that_disagree_decide_nothing(second, verdict, monkeypatch):
    monkeypatch.setattr(papers, "RANDOM_RECORDS", ("first", "second"))
    tables = {"first": random_table("worse", OPEN), "second": random_table(*second)}
    assert papers.random_rewards_teach(Records(tables)).verdict == verdict


@pytest.mark.parametrize(
    ("ppo", "grpo", "verdict"),
    [
        (0.2, 0.0, Verdict.HOLDS_HERE),
        (-0.2, 0.0, Verdict.FAILS_HERE),
        (0.2, -0.2, Verdict.UNDECIDED),
        (0.0, 0.0, Verdict.UNDECIDED),
    ],
)
def test_an_ensemble_is_harder_to_exploit_where_gold_accuracy_is_surely_higher(ppo, grpo, verdict):
    noise = (-0.01, 0.0, 0.01, 0.02, -0.02)
    gains = {"ppo": ppo, "grpo": grpo}
    table = {"rows": [], "runs": {}, "seeds": len(noise)}
    for method, gain in gains.items():
        for title, level in (("100 pairs", 0.5), ("4 × 100 pairs, mean", 0.5 + gain)):
            table["rows"].append({"method": method, "reward_model": title})
            wave = noise if "×" in title else noise[::-1]
            table["runs"][f"{method} {title}"] = [{"gold/accuracy": level + n} for n in wave]
    assert papers.ensembles_keep_gold(Records({"overoptimisation": table})).verdict == verdict


def test_the_sentence_on_random_rewards_has_both_differences_and_the_share_of_clipped_tokens():
    found = reward_sentence(random_table("worse", OPEN, {"model": "smollm2-135m"}), "random")
    assert found == (
        "Random reward on sums with SmolLM2-135M, 4 updates on a rollout with the clip: gold accuracy"
        " goes from 0.30 ± 0.15 to 0.50 ± 0.15 (−0.125 ± 0.250, worse). With the clip minus without it:"
        " −0.125 ± 0.250, not told apart. The clip acts on 3.4 % of the tokens in updates 2 to 4 of a"
        " rollout."
    )
