"""A view of the tuned comparison: the record's numbers and words under the names of `Comparison`."""

import pytest

from lab.analysis.recorded_results import Comparison, load_result
from lab.analysis.tuned_view import VIEW_TITLES, TunedView, tuned_view


def tuned_table():
    """A made-up record of two arms and a third one whose name differs; degrees 10 have t = 2.228139."""

    def row(view, arm, by_seed):
        mean = sum(by_seed) / len(by_seed)
        return {
            "view": view,
            "arm": arm,
            "title": arm.upper(),
            "seeds": len(by_seed),
            "gold/accuracy": {"mean": mean, "half": 0.02},
            "seconds": {"mean": 99.0, "half": 1.0},
            "by_seed": by_seed,
        }

    def compared(first, second, mean, word):
        return {
            "first": first,
            "second": second,
            "mean": mean,
            "half": 0.2228139,
            "degrees": 10.0,
        } | {"word": word, "p": 0.01}

    return {
        "command": "python -m lab experiment made-up",
        "device": "a device",
        "torch": "2",
        "commit": "abc",
        "seeds": 2,
        "plan": {"test_prompts": [10, 18], "samples": 3},
        "base": {"gold/accuracy": {"mean": 0.4, "half": 0.1}},
        "rows": [
            row("tokens", "dpo", [0.6, 0.8]),
            row("tokens", "ppo", [0.9, 0.94]),
            row("tokens", "ppo.model", [0.5, 0.5]),
            row("kl", "dpo", [0.1, 0.1]),
        ],
        "comparisons": {
            "tokens": [
                compared("dpo", "ppo", -0.22, "worse"),
                compared("dpo", "ppo.model", 0.2, "not told apart"),
                compared("ppo", "ppo.model", 0.42, "better"),
            ],
            "kl": [],
        },
    }


TIMES = Comparison(
    {
        "base": {},
        "plan": {"seeds": 3},
        "methods": [{"method": "dpo", "title": "DPO", "seconds": {"mean": 7.0, "half": 0.5}}],
        "runs": {
            "dpo": [{"seconds": s} for s in (6.9, 7.0, 7.1)],
            "ppo": [{"seconds": s} for s in (20.0, 20.1, 20.2)],
        },
    }
)


def test_an_arm_with_the_rule_and_one_with_a_reward_model_have_the_names_of_a_comparison():
    view = TunedView(tuned_table(), "tokens")
    assert [view.title(arm) for arm in ("dpo", "ppo@gold", "ppo")] == ["DPO", "PPO", "PPO.MODEL"]
    assert view.text("ppo@gold") == "0.92 ± 0.02" and view.spread("dpo") == pytest.approx(0.2)
    assert view.has("ppo@gold") and not view.has("grpo@model") and view.base["gold/accuracy"] == 0.4
    assert view.table["evaluation"] == "8 test prompts x 3 completions"


def test_the_words_are_the_record_s_both_ways_round():
    view = TunedView(tuned_table(), "tokens")
    (judgement,) = view.judge([("ppo@gold", "dpo")])
    assert (judgement.word, judgement.p_value, judgement.family_size) == ("better", 0.01, 3)
    assert judgement.text() == "+0.22 ± 0.22, better"
    assert judgement.difference.standard_error == pytest.approx(0.1, rel=1e-6)
    assert view.difference("dpo", "ppo").mean == 0.2
    assert [(a, b, j.word) for a, b, j in view.differences()][2] == ("ppo@gold", "ppo", "better")
    assert "the 3 comparisons of this view" in view.differences_note()


def test_seconds_come_from_the_comparison_that_measured_them_and_from_nowhere_else():
    view = TunedView(tuned_table(), "tokens", TIMES)
    assert view.mean("dpo", "seconds") == 7.0 and view.half("dpo", "seconds") == 0.5
    assert view.seeds_of("seconds") == 3 and view.seeds_of() == 2
    (slower,) = view.judge([("ppo", "dpo")], "seconds", words=("slower", "faster"))
    assert slower.word == "slower" and slower.difference.mean == pytest.approx(13.1)
    without = TunedView(tuned_table(), "tokens")
    with pytest.raises(KeyError):
        without.mean("dpo", "seconds")
    with pytest.raises(KeyError):
        without.judge([("ppo", "dpo")], "kl")


def test_every_view_of_the_shipped_record_has_its_arms_and_compares_every_two():
    table = load_result("tuned")
    for name in VIEW_TITLES:
        view = tuned_view(name)
        arms = list(view.table["runs"])
        assert len(arms) == len(table["titles"]) == 9 and len(view.differences()) == 9 * 8 / 2
        means = {
            row["title"]: row["gold/accuracy"]["mean"]
            for row in table["rows"]
            if row["view"] == name
        }
        assert {view.title(arm): view.mean(arm) for arm in arms} == means
        assert view.title("ppo@gold") == "PPO, rule" and view.title("ppo") == "PPO, reward model"
