"""The article's claims: each has a verdict that its numbers carry."""

import json
from statistics import fmean, stdev

import pytest

from lab.analysis.claims import rlhf, selection
from lab.analysis.claims.claim import Verdict
from lab.analysis.claims.records import Records, distances_from_median
from lab.analysis.claims.table import CLAIMS, claims_about, find_claim
from lab.analysis.recorded_results import RESULTS_FOLDER
from lab.errors import LabError


def recorded(name):
    return json.loads((RESULTS_FOLDER / f"{name}.json").read_text("utf-8"))


def of_seeds(view, arm):
    (row,) = (r for r in recorded("tuned")["rows"] if (r["view"], r["arm"]) == (view, arm))
    return row["by_seed"]


@pytest.mark.parametrize("key", CLAIMS)
def test_every_claim_has_a_verdict_numbers_and_a_command(key):
    claim, records = CLAIMS[key], Records()
    found = claim.measure(records)
    assert isinstance(found.verdict, Verdict)
    if found.verdict not in (Verdict.HOLDS, Verdict.UNTESTABLE):
        assert any(letter.isdigit() for letter in found.text)
    for command in claim.commands(records):
        assert command.startswith("python -m lab ")


@pytest.mark.parametrize(
    ("key", "first", "second"),
    [
        ("grpo-reasoning", "grpo", "dpo"),
        ("rlhf-best", "ppo", "kto"),
        ("kto-unpaired", "kto", "dpo"),
    ],
)
def test_a_verdict_at_equal_tokens_has_the_sign_of_the_difference_over_seeds(key, first, second):
    a, b = of_seeds("tokens", first), of_seeds("tokens", second)
    difference = fmean(a) - fmean(b)
    error = ((stdev(a) ** 2 + stdev(b) ** 2) / 10) ** 0.5  # Over seeds alone.
    measured = CLAIMS[key].measure(Records())
    if abs(difference) < error:
        assert measured.verdict == Verdict.UNDECIDED
        return
    assert abs(difference) > 3 * error  # Far from "not told apart".
    assert measured.verdict == (Verdict.HOLDS_HERE if difference > 0 else Verdict.FAILS_HERE)
    assert f"{difference:+.2f}".replace("-", "−") in measured.text


@pytest.mark.parametrize(
    ("key", "percent"),
    [("memory-dpo", 40), ("memory-grpo", 60), ("time-dpo", 30), ("time-grpo", 60)],
)
def test_a_bar_of_the_chart_holds_where_the_measurement_is_near(key, percent):
    method = key.partition("-")[2]
    if key.startswith("memory"):
        rows = {r["arm"]: r for r in recorded("resources-h100")["rows"] if r["size"] == "1.2b"}
        found = 100 * rows[method]["measured"] / rows["ppo.separate"]["measured"]
    else:
        runs = recorded("chain-tokens")["runs"]
        found = fmean(100 * a["seconds"] / b["seconds"] for a, b in zip(runs[method], runs["ppo"]))
    measured = CLAIMS[key].measure(Records())
    near = abs(found - percent) <= 5
    assert measured.verdict == (Verdict.HOLDS_HERE if near else Verdict.FAILS_HERE)
    assert f" {found:.0f} %" in measured.text


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [(0.99, Verdict.HOLDS_HERE), (0.80, Verdict.FAILS_HERE), (0.9, Verdict.UNDECIDED)],
)
def test_other_numbers_give_another_verdict(accuracy, verdict):
    table = recorded("tuned")
    words = {0.99: ("worse", -0.1), 0.80: ("better", 0.09), 0.9: ("not told apart", 0.0)}
    word, mean = words[accuracy]
    for one in table["comparisons"]["tokens"]:
        if (one["first"], one["second"]) in (("dpo", "ppo"), ("dpo", "grpo")):
            one["word"], one["mean"] = word, mean
    measured = selection.online_ceiling(Records({"tuned": table}))
    assert measured.verdict == verdict


def test_a_knob_needs_no_tuning_only_if_both_ends_are_surely_level():
    def table(low, high):
        centre = [0.90, 0.91, 0.92]
        runs = {"ppo-centre": centre}
        for knob in rlhf.PPO_KNOBS:
            runs |= {f"ppo-{knob}-low": low, f"ppo-{knob}-high": high}
        named = {name: [{"gold/accuracy": v} for v in values] for name, values in runs.items()}
        return Records({"sensitivity": {"runs": named, "factor": 4.0, "seeds": 3, "rows": []}})

    near, far, wide = [0.90, 0.91, 0.92], [0.30, 0.31, 0.32], [0.2, 0.9, 0.9]
    assert rlhf.ppo_epsilon(table(near, near)).verdict == Verdict.FAILS_HERE
    assert rlhf.ppo_epsilon(table(near, far)).verdict == Verdict.HOLDS_HERE
    assert rlhf.ppo_epsilon(table(near, wide)).verdict == Verdict.UNDECIDED


def test_the_spread_over_seeds_is_compared_by_distances_from_the_median():
    assert distances_from_median([1.0, 2.0, 6.0]) == [1.0, 0.0, 4.0]
    a, b = (distances_from_median(of_seeds("tokens", arm)) for arm in ("ppo", "sft"))
    found = Records().tuned.spread_difference("ppo", "sft")
    assert found.mean == pytest.approx(fmean(a) - fmean(b))
    assert found.standard_error == pytest.approx(((stdev(a) ** 2 + stdev(b) ** 2) / 10) ** 0.5)


def test_claims_are_found_by_key_and_by_method():
    assert find_claim("noise") is CLAIMS["noise"]
    assert {claim.key for claim in claims_about("kto")} == {"kto-unpaired", "kto-annotation"}
    with pytest.raises(LabError, match="ranking"):
        find_claim("rankin")
