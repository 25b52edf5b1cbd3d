"""The GRPO page: every control and section, what the address says, and what was drawn."""

import json
from functools import partial

import pandas as pd
import pytest
from support.elements import healthy, opened, sent, texts

from lab.analysis.recorded_results import load_result
from lab.config.methods import make_config
from lab.dashboard.pages.grpo.group_source import (
    ARTICLE_SOURCE,
    REWARD_LABELS,
    SLIDER_GROUP_SIZES,
    completion_pool,
    pool_rewards,
)
from lab.dashboard.pages.grpo.page import completion_label
from lab.runs.folder import create
from lab.storage.jsonl import append_rows

SECTIONS = {
    "Accuracy and cost": "error",
    "Scaling": "variants",
    "Dead groups": "dead",
    "Clipping": "clip",
    "Tokens": "log-ratios",
    "Learning to think": "thinking",
    "Add or sharpen?": "pass-at-k",
}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    return tmp_path


open_page = partial(opened, "grpo", **{"from": "the base"})


def table(app):
    """The table of the group with the numbers that it shows, advantages with two decimals."""
    (shown,) = (
        json.loads(e.proto.json)[0]
        for e in app.get("bidi_component")
        if e.proto.component_name == "lab_sample_table"
    )
    columns = dict(zip(shown["columns"], zip(*shown["rows"])))
    return pd.DataFrame(
        {
            name: [
                cell["text"] if name == "completion" else float(cell["text"].replace("−", "-"))
                for cell in cells
            ]
            for name, cells in columns.items()
        }
    )


def test_every_size_of_the_group_is_drawn_and_said_before_anything_moves():
    drawn = sent(open_page(), "group")
    (slider,) = drawn["sliders"]
    assert len(slider["says"]) == len(SLIDER_GROUP_SIZES) == len(slider["frames"])
    for size, words in zip(SLIDER_GROUP_SIZES, slider["says"]):
        assert words.startswith(f"G = {size}: mean ")


def test_the_numbers_of_a_group_are_those_of_its_completions():
    app = open_page(G="16")
    frame = table(app)
    right = sum(frame["reward r"])
    mean, std = (
        right / 16,
        ((right * (1 - right / 16) ** 2 + (16 - right) * (right / 16) ** 2) / 15) ** 0.5,
    )
    assert 0 < right < 16 and list(frame["reward r"]) == sorted(frame["reward r"], reverse=True)
    # Two decimals are shown: each is off by at most 0.005, and the sum of 16 by at most 0.08.
    assert frame["advantage A"][0] == pytest.approx((1 - mean) / std, abs=0.005)
    assert sum(frame["advantage A"]) == pytest.approx(0, abs=0.08)
    assert f"mean {mean:.3f}, std {std:.3f}" in sent(app, "group")["says"]
    assert rf"\frac{{1-{mean:.3f}}}{{{std:.3f}}}" in app.latex[1].value


def test_the_sentence_counts_who_thought_first():
    app = open_page(G="8")
    frame = table(app)
    thought = [text.startswith("<think>") for text in frame["completion"]]
    for side, found in (
        ("above the mean", frame["advantage A"] > 0),
        ("below it", frame["advantage A"] < 0),
    ):
        assert (
            f"{side} ({sum(t and f for t, f in zip(thought, found))} with a scratchpad)"
            in sent(app, "group")["says"]
        )


def test_the_completions_shown_are_the_pool_s_own():
    app = open_page(G="32")
    row = completion_pool()["rows"][0]
    at = row["prompts"].index(app.selectbox(key="prompt").value)
    written = [c["text"] for c in row["completions"][at]]
    assert set(table(app)["completion"]) <= set(written) and len(table(app)) == 32


def test_resample_draws_others_and_the_address_says_which():
    app = open_page(G="32")
    before = list(table(app)["completion"])
    healthy(app.button(key="resample").click().run())
    assert app.query_params["draw"] in ("1", ["1"]) and list(table(app)["completion"]) != before
    again = open_page(G="32", draw="1")
    assert list(table(again)["completion"]) == list(
        table(app)["completion"]
    ) and "random order number 1;" in texts(again)


@pytest.mark.parametrize(
    "query",
    [
        {"draw": "-1"},
        {"draw": "1e9"},
        {"draw": "9" * 40},
        {"draw": "²"},
        {"G": "7.9"},
        {"G": "nan"},
        {"prompt": "<b>"},
        {"rule": "os.system"},
        {"more": "nothing"},
        {"guess": "x"},
        {"more": "Clipping", "eps": "inf", "eps_high": "-4"},
        {"more": "Learning to think", "update": "x"},
    ],
)
def test_an_address_that_means_nothing_is_ignored(query):
    app = open_page(**query)
    assert sent(app, "group")["says"].startswith("G = 8: mean ") and "<b>" not in texts(app)


@pytest.mark.parametrize("policy", range(3))
def test_every_policy_of_the_pool_can_be_shown(policy):
    row = completion_pool()["rows"][policy]
    app = opened("grpo", **{"from": row["policy"]})
    assert list(app.selectbox(key="prompt").options) == row["prompts"]


@pytest.mark.parametrize("rule", REWARD_LABELS)
def test_every_rule_scores_the_same_completions(rule):
    app = open_page(rule=REWARD_LABELS[rule], G="32")
    assert app.selectbox(key="rule").value == rule
    frame = table(app)
    if rule == "length":
        reward = min(len(frame["completion"][0]) / 64, 1)  # shown with four digits
        assert frame["reward r"][0] == pytest.approx(reward, abs=5e-5)
    if rule == "constant":
        assert (
            "This group is dead" in sent(app, "group")["says"]
            and set(frame["advantage A"]) == {0.0}
            and "all rewards are equal" in app.latex[1].value
        )


def test_the_pool_s_rewards_are_those_of_the_rule():
    for row in completion_pool()["rows"]:
        assert pool_rewards(row["policy"], "answer") == [
            [c["reward"] for c in completions] for completions in row["completions"]
        ]


def test_the_article_s_example_gives_its_advantages_and_says_how():
    app = opened("grpo", **{"from": ARTICLE_SOURCE})
    assert [f"{a:+.2f}" for a in table(app)["advantage A"]] == [
        "+1.19",
        "+0.66",
        "+0.64",
        "+0.61",
        "+0.36",
        "-0.67",
        "-0.74",
        "-2.06",
    ]
    assert "unrounded rewards, chosen by this lab" in texts(app) and [
        s.split(":")[0] for s in sent(app, "group")["sliders"][0]["says"]
    ] == ["G = 2", "G = 4", "G = 8"]


def test_a_prediction_is_answered_with_the_measured_error():
    for guess, word in (("to half", "Right."), ("hardly", "It falls to about half.")):
        assert f"{word} Measured on the recorded completions, the error is 0." in texts(
            open_page(guess=guess)
        )
    assert "Measured on the recorded completions" not in texts(open_page())


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_draws_its_figure_with_its_table_and_source(section):
    app = open_page(more=section)
    drawn = sent(app, SECTIONS[section])
    assert drawn["alt"] and drawn["figure"]["data"]
    assert "`python -m lab experiment" in texts(app) or "`lab." in texts(app)


def test_clipping_ends_with_random_rewards_as_they_were_recorded():
    app = open_page(more="Clipping")
    drawn = sent(app, "random-rewards")
    recorded = {row["arm"]: row for row in load_result("random_rewards")["rows"]}
    (points,) = (
        trace
        for trace in drawn["figure"]["data"]
        if trace["name"] == "random reward" and trace["xaxis"] == "x"
    )
    assert list(points["y"]) == pytest.approx(
        [recorded[f"random.{way}"]["gold/accuracy"]["mean"] for way in ("once", "clip", "free")]
    )
    assert "`python -m lab experiment random_rewards --seeds" in texts(app)


def test_tokens_end_with_the_recorded_lengths_of_right_and_wrong_answers():
    drawn = sent(open_page(more="Tokens"), "answer-length")
    (row, *_) = load_result("answer_length")["rows"]
    curves = {trace["yaxis"]: trace for trace in drawn["figure"]["data"][:2]}
    assert list(curves["y"]["y"]) == pytest.approx(row["right_relative"]["mean"])
    assert list(curves["y2"]["y"]) == pytest.approx(row["wrong_relative"]["mean"])


def test_the_lengths_are_shown_where_a_source_has_no_tokens_too():
    app = opened("grpo", more="Tokens")
    assert "has no log-probabilities of single tokens" in texts(app)
    assert sent(app, "answer-length")["figure"]["data"]


def test_sections_can_be_put_away():
    app = open_page()
    app.segmented_control(key="more").set_value(None).run()
    assert not [
        e
        for e in healthy(app).get("bidi_component")
        if json.loads(e.proto.json)[0].get("key") == "error"
    ]


def test_dead_groups_are_counted_in_the_pool():
    app = open_page(more="Dead groups")
    pools = [[c["reward"] for c in one] for one in completion_pool()["rows"][0]["completions"]]
    pieces = [one[i : i + 8] for one in pools for i in range(0, 64, 8)]
    share = sum(len(set(piece)) == 1 for piece in pieces) / len(pieces)
    assert f"{share:.0%} are dead".replace("%", " %") in texts(app)


def test_the_batch_s_std_is_offered_where_there_is_a_batch():
    rows = {
        trace["y"][0]
        for trace in sent(open_page(more="Scaling"), "variants")["figure"]["data"]
        if trace["y"]
    }
    assert rows == {"group std, n − 1", "group std, n", "batch std", "not divided"}
    rows = {
        trace["y"][0]
        for trace in sent(opened("grpo", more="Scaling", **{"from": ARTICLE_SOURCE}), "variants")[
            "figure"
        ]["data"]
        if trace["y"]
    }
    assert rows == {"group std, n − 1", "group std, n", "not divided"}


def test_clipping_says_where_it_is_flat_and_writes_the_numbers_into_the_formula():
    app = open_page(more="Clipping", eps="0.1", eps_high="0.28")
    assert (
        "until it is 1.28 times as likely" in sent(app, "clip")["says"]
        and "until it is 0.90 times as likely" in sent(app, "clip")["says"]
    )
    assert (
        r"\underbrace{0.1}_{\varepsilon}" in app.latex[2].value
        and r"\underbrace{0.28}" in app.latex[2].value
    )


def test_tokens_show_the_log_ratio_of_the_policy_that_is_picked():
    app = open_page(more="Tokens", when="that wrote it")
    heat = sent(app, "log-ratios")["figure"]["data"][0]
    assert {v for line in heat["z"] for v in line if v is not None} == {
        0.0
    }  # the base wrote it, and is the reference
    assert "no log-probabilities of single tokens" in texts(
        opened("grpo", more="Tokens", **{"from": ARTICLE_SOURCE})
    )


def test_the_latest_group_of_a_run_is_a_source_and_its_text_stays_text(root):
    folder = create(root / "mine", make_config("grpo"))
    for step in (2, 3):
        append_rows(
            folder.path / "samples.jsonl",
            [
                {
                    "step": step,
                    "index": i,
                    "prompt": "1+1=",
                    "completion": "<img src=x>" if i else str(step),
                    "reward": float(not i),
                }
                for i in range(4)
            ],
        )
    create(root / "other", make_config("dpo"))
    app = opened("grpo", **{"from": "run mine"})
    assert list(table(app)["completion"]) == ["3"] + ["<img src=x>"] * 3
    assert "from update 3 of run mine" in texts(app)
    assert "<img" not in texts(app) and "<img" not in json.dumps(sent(app, "group")["figure"])
    assert "run other" not in app.selectbox(key="from").options
    app.number_input(key="at").set_value(2).run()
    assert "from update 2 of" in texts(healthy(app)) and table(app)["completion"][0] == "2"
    for step, found in (("2", 2), ("1", 3), ("-7", 3), ("1e999", 3), ("x", 3)):
        assert f"from update {found} of" in texts(
            opened("grpo", **{"from": "run mine", "at": step})
        )


def test_the_recorded_run_is_replayed_with_its_loss_beside_it():
    app = open_page(more="Learning to think")
    drawn = sent(app, "thinking")
    (slider,) = drawn["sliders"]
    assert slider["says"][0].startswith("After 0 updates") and drawn["figure"]["data"]
    assert "strengthens a habit" in texts(app) and "does not measure progress" in texts(app)


def test_a_completion_s_label_is_its_answer():
    assert [
        completion_label(text) for text in ("45", "<think>1+1=2</think>2", "response 3", "1234567")
    ] == ["45", "…2", "3", "567"]
