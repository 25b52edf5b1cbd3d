"""The Map page: every node, its claims against the recorded tables, the address, and clicks as the
chart reports them.
"""

import math
from functools import partial

import pytest
from support.elements import opened, texts

from lab.analysis.claims.records import Records
from lab.analysis.claims.table import claims_about
from lab.analysis.recorded_results import Comparison
from lab.dashboard.pages.map.graph import NODE_POSITIONS, clicked_method, graph_spec
from lab.dashboard.pages.map.methods import EDGE_LABELS, METHOD_NODES
from lab.dashboard.pages.map.page import prediction_answer
from lab.figures.palette import METHOD_COLOURS, theme_colour

open_page = partial(opened, "map")


def comparison(gold, half=0.1):
    """A comparison of made-up runs: arm → gold accuracy of each seed."""
    rows = [
        {
            "method": arm,
            "title": arm,
            "gold/accuracy": {"mean": sum(values) / len(values), "half": half},
        }
        for arm, values in gold.items()
    ]
    return Comparison(
        {
            "base": {"gold/accuracy": 0.4},
            "plan": {"seeds": len(next(iter(gold.values())))},
            "methods": rows,
            "runs": {
                arm: [{"gold/accuracy": value} for value in values] for arm, values in gold.items()
            },
        }
    )


@pytest.mark.parametrize("method", METHOD_NODES)
def test_every_method_shows_what_it_solved_and_introduced_and_all_its_claims_with_a_verdict(method):
    app = open_page(method=method)
    text = texts(app)
    assert METHOD_NODES[method].solved in text and METHOD_NODES[method].introduced in text
    labels = {expander.label for expander in app.expander}
    claims = claims_about(method)
    assert claims
    for claim in claims:
        measured = claim.measure(Records())
        assert f"**{measured.verdict.capitalize()}:** “{claim.sentence}”" in labels
        assert measured.text in text


def test_the_control_picks_a_method_and_the_address_follows():
    app = open_page()
    app.segmented_control(key="method").set_value("kto").run()
    assert METHOD_NODES["kto"].solved in texts(app) and app.query_params["method"] in (
        "kto",
        ["kto"],
    )


@pytest.mark.parametrize("value", ["sft", "", "<b>", "../dpo"])
def test_an_address_that_names_no_node_is_read_as_the_first_page(value):
    assert METHOD_NODES["ppo"].solved in texts(open_page(method=value, guess=value))


@pytest.mark.parametrize("guess", ["RLHF (PPO)", "DPO", "GRPO", "no sure difference"])
def test_a_prediction_is_answered_with_the_measurement(guess):
    app = open_page()
    app.segmented_control(key="guess").set_value(guess).run()
    start = "Right" if guess == "no sure difference" else f"You said {guess}"
    assert f"{start}. PPO reaches 0.91 ± 0.01, GRPO 0.89 ± 0.01 and DPO 0.89 ± 0.02." in texts(app)
    # The words of docs/results/methods.md, tuned at equal tokens.
    assert "PPO minus GRPO is +0.016 ± 0.008, better; PPO minus DPO is" in texts(app)


@pytest.mark.parametrize(
    ("gold", "best"),
    [
        ({"ppo@gold": (0.9, 0.91, 0.9), "grpo": (0.5, 0.51, 0.5)}, "no sure difference"),
        (
            {"ppo@gold": (0.9, 0.91, 0.9), "grpo": (0.5, 0.51, 0.5), "dpo": (0.4, 0.41, 0.4)},
            "RLHF (PPO)",
        ),
        ({"ppo@gold": (0.5, 0.51, 0.5), "grpo": (0.9, 0.91, 0.9), "dpo": (0.4, 0.41, 0.4)}, "GRPO"),
        ({"ppo@gold": (0.5, 0.51, 0.5), "grpo": (0.4, 0.41, 0.4), "dpo": (0.9, 0.91, 0.9)}, "DPO"),
    ],
)
def test_only_a_method_that_is_better_than_both_others_is_the_right_guess(gold, best):
    even = {"dpo": (0.9, 0.905, 0.91)}  # not told apart from the best of the first case
    assert prediction_answer(best, comparison(even | gold)).startswith("Right. PPO reaches")


def test_a_click_picks_a_node_and_a_second_click_on_it_keeps_it():
    def state(*selected):
        return {"selection": {"selected": list(selected)}}

    node = {"data_type": "node", "data_indices": [5]}
    assert list(METHOD_NODES)[5] == "grpo" and clicked_method(state(node), "dpo") == "grpo"
    assert clicked_method(state(), "grpo") == "grpo" and clicked_method(state(), None) is None
    assert (
        clicked_method(state({"data_type": "edge", "data_indices": [0]}), "kto") == "kto"
        and clicked_method(state({"data_indices": [99]}), None) is None
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_map_has_every_node_in_its_colour_and_every_edge_with_its_words(theme):
    drawn = graph_spec("ipo", theme)["series"][0]
    assert [node["id"] for node in drawn["data"]] == list(METHOD_NODES) == list(NODE_POSITIONS)
    assert [
        node["id"]
        for node in drawn["data"]
        if node["itemStyle"]["color"] == theme_colour(METHOD_COLOURS[node["id"]], theme)
    ] == ["ipo"]
    assert {
        (e["source"], e["target"]): e["label"]["formatter"] for e in drawn["links"]
    } == EDGE_LABELS
    assert len(set(NODE_POSITIONS.values())) == len(METHOD_NODES)


def test_a_comparison_answers_both_ways_round_and_knows_its_spread():
    table = comparison({"a": (0.2, 0.5), "b": (0.9, 0.9)})
    assert (table.mean("a"), table.spread("a"), table.text("b")) == (0.35, 0.3, "0.90 ± 0.10")
    assert table.difference("a", "b").mean == -0.55 and table.difference("b", "a").mean == 0.55
    with pytest.raises(KeyError):
        table.difference("a", "c")


def test_only_arms_that_share_a_seed_s_luck_are_compared_seed_by_seed():
    luck = (0.1, 0.2, 0.4)
    arms = {"dpo": luck, "ipo": tuple(x + 0.1 + x * x / 99 for x in luck), "grpo": luck}
    table = comparison(arms)
    paired, unpaired = table.difference("ipo", "dpo"), table.difference("ipo", "grpo")
    assert paired.mean == pytest.approx(unpaired.mean)
    assert paired.standard_error < 0.01 * unpaired.standard_error
    assert (paired.degrees, round(unpaired.degrees)) == (2, 4)


def test_the_article_s_comparisons_are_corrected_together():
    # Each arm alone: t = 5, 4 degrees of freedom, p = 0.0075. Of five comparisons with DPO or its kin
    # the correction leaves none below 0.05 that must be multiplied by 7.
    spread = (-1.0, 0.0, 1.0)
    lead = 5 * math.sqrt(2 / 3)  # in standard deviations

    def seeds(mean):
        return [mean + 0.01 * s for s in spread]

    alone = comparison({"grpo": seeds(0.5 + 0.01 * lead), "dpo": seeds(0.5)})
    assert alone.judge_article("grpo", "dpo").word == "better"
    arms = ("ppo", "ppo@gold", "ipo", "kto", "online_dpo", "online_dpo@gold", "grpo")
    table = comparison({arm: seeds(0.5 + 0.01 * lead) for arm in arms} | {"dpo": seeds(0.5)})
    judgement = table.judge_article("grpo", "dpo")
    assert judgement.family_size == 7
    x = 5 / math.sqrt(5**2 + 4)
    tail = 1 - x * (3 - x**2) / 2  # Student's t of 5 with 4 degrees of freedom, in closed form.
    assert judgement.p_value > judgement.difference.p_value == pytest.approx(tail, rel=1e-9)
