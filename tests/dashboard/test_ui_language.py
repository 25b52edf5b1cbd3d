"""What was recorded of a real language model on the pages Choose, GRPO and Talk: there, absent, and
with any address.
"""

import json
import shutil

import pytest
from support.elements import healthy, opened, sent, texts, unfolded
from support.language import arm, ended, shown

from lab.analysis import recorded_results

FACTS = {
    "command": "python -m lab experiment made-up",
    "device": "a device",
    "seeds": 2,
    "evaluation": "so many openings",
}
ODD = "<b>bold</b> ![](http://x/y.png) $$x$$ [a](http://b) !"
NAMES = ("frontier", "arithmetic", "compare-smollm2")


def tables():
    """The three records, made up; the comparison is that of the embedded model, renamed."""
    embedded = recorded_results.load_result("chain-tokens")
    rows = [
        {name: value for name, value in row.items() if name != "scratchpad_share"}
        | {"repetition": row["kl"]}
        for row in embedded["methods"]
    ]
    base = {
        name: value for name, value in embedded["base"].items() if name != "scratchpad_share"
    } | {"repetition": 0.01}
    trained = [
        ended(method, beta, kl, reward)
        for method in ("dpo", "grpo")
        for beta, kl, reward in ((1.0, 1.0, 0.4), (0.1, 10.0, 0.9))
    ]
    sums = [
        arm(equal, size, 0.6, batch=size * 8)
        for equal in ("rollouts", "steps")
        for size in (2, 4, 8, 16, 32)
    ]
    sums += [arm("math", 8, 0.1, paid=0.9), arm("random", 8, 0.2)]
    return {
        "frontier": (
            FACTS
            | {
                "rows": trained,
                "base": {"reward": 0.1, "repetition": 0.01},
                "plan": {"shown_beta": 0.1},
                "shown": shown(
                    base=["dull", "good!"], dpo=["fine!", "fine!"], grpo=[ODD, "love love!"]
                ),
            }
        ),
        "arithmetic": (
            FACTS
            | {
                "rows": sums,
                "base": {"gold/accuracy": 0.2},
                "plan": {"control": 8},
                "shown": shown(
                    "{} + 1 =",
                    base=["7", "8"],
                    grpo=["7!", "8!"],
                    math=["1 + 1 =", "8!"],
                    random=["7!", "9"],
                ),
            }
        ),
        "compare-smollm2": embedded | {"methods": rows, "base": base},
    }


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Record some of the three, and no other of them."""
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(
        "lab.dashboard.pages.talk.answers.answer_pair",
        lambda *given: pytest.fail("no model is needed"),
    )
    monkeypatch.setattr(
        "lab.dashboard.pages.talk.question.question_form",
        lambda there: (next(iter(there)), None, 0, 1.0),
    )
    made = tables()
    folder = shutil.copytree(
        recorded_results.RESULTS_FOLDER,
        tmp_path / "compare",
        ignore=shutil.ignore_patterns(*(f"{name}.json" for name in NAMES)),
    )
    monkeypatch.setattr(recorded_results, "RESULTS_FOLDER", folder)

    def record(*names):
        for name in names:
            (folder / f"{name}.json").write_text(json.dumps(made[name]), "utf-8")

    return record


def keys(app):
    """The keys of the elements of a page's own kind."""
    return {data.get("key") for e in app.get("bidi_component") for data in json.loads(e.proto.json)}


@pytest.mark.parametrize(
    ("page", "query"),
    [
        ("evidence", {"show": "Language model"}),
        ("grpo", {"more": "A language model"}),
        ("talk", {"wrote": "sentiment", "opening": "2"}),
    ],
)
def test_a_page_says_nothing_of_a_language_model_that_is_not_recorded(recorded, page, query):
    said = texts(opened(page, **query), "markdown", "subheader", "caption")
    assert "SmolLM2" not in said and "real language model" not in said


def test_the_measurements_show_reward_against_kl_and_the_comparison(recorded):
    recorded("frontier", "compare-smollm2")
    app = opened("evidence", show="Language model")
    assert {"frontier", "reached-smollm2"} <= keys(app)
    assert (
        "All 2 methods reach a KL of 3.2 nats." in texts(app)
        and "a KL of 3.2 nats" in sent(app, "frontier")["alt"]
    )
    frame = next(e.value for e in unfolded(app).dataframe if "distinct bigrams" in e.value)
    assert list(frame["β"]) == [1.0, 0.1] * 2 and frame["gold reward"][1] == "0.90 ± 0.05"
    chain = unfolded(opened("choose", tab="What each method reached"))
    both = [e.value for page in (chain, app) for e in page.dataframe if "gold accuracy" in e.value]
    assert ["scratchpads" in f for f in both] == [True, False] and [
        "repetition" in f for f in both
    ] == [False, True]
    assert texts(app).count("python -m lab experiment made-up") == 1


@pytest.mark.parametrize("name", ["frontier", "compare-smollm2"])
def test_the_measurements_show_either_record_without_the_other(recorded, name):
    recorded(name)
    assert ("frontier" in keys(opened("evidence", show="Language model"))) == (name == "frontier")


def test_grpo_has_the_sums_as_a_section_of_its_own(recorded):
    recorded("arithmetic")
    app = opened("grpo", more="A language model")
    assert {"sums", "sums-sizes"} <= keys(app)
    said = texts(app)
    assert "fixed prompts are right: 2 of 2 sums (0 before training)." in said
    assert (
        "**Checked answers.** The mean reward goes from 0.30 to 0.60 ± 0.02. Gold accuracy goes"
        " from 0.20 to 0.60 ± 0.02: a rise." in said
    )
    assert (
        "**A checker that can be fooled.** The mean reward goes from 0.30 to 0.90 ± 0.02. Gold"
        " accuracy goes from 0.20 to 0.10 ± 0.02: a fall." in said
    )
    assert "the reward of the last update minus gold accuracy is +0.80 ± 0.01, higher." in said
    assert (
        "With equally many completions in an update, G = 2 has the highest mean gold accuracy, 0.60 ±"
        " 0.02; it is not told apart from G =" in said
    )
    assert "sums" not in keys(opened("grpo", more="Scaling"))


@pytest.mark.parametrize(("section", "has"), [("A language model", True), ("Scaling", False)])
def test_grpo_says_once_what_it_cannot_show_and_of_the_sums_where_they_stand(
    recorded, section, has
):
    recorded("arithmetic")
    folds = [e for e in opened("grpo", more=section).expander if e.label == "What this cannot show"]
    assert (
        len(folds) == 1 and any("sums of two numbers" in e.value for e in folds[0].markdown) == has
    )


def test_talk_shows_a_prompt_at_a_time_letter_by_letter(recorded):
    recorded("frontier", "arithmetic")
    app = opened("talk")
    assert [e.value for e in app.text] == ["Opening 1", "dull", "fine!", ODD]
    assert "<b>" not in texts(app, "markdown") and "![](" not in texts(app, "markdown")
    assert "negative words: 1 before training; 2 with DPO; 2 with GRPO." in texts(
        app
    ) and "before training: not positive" in texts(app)
    healthy(app.button(key="next-opening").click().run())
    assert [e.value for e in app.text] == [
        "Opening 2",
        "good!",
        "fine!",
        "love love!",
    ] and app.query_params["opening"] in ("2", ["2"])
    healthy(app.button(key="next-opening").click().run())
    assert app.text[0].value == "Opening 1"


def test_talk_goes_to_the_sums_and_back_and_the_address_says_which(recorded):
    recorded("frontier", "arithmetic")
    app = opened("talk", wrote="arithmetic", opening="2")
    assert [e.value for e in app.text] == ["2 + 1 =", "8", "8!", "8!", "9"]
    assert "GRPO, a checker that can be fooled: right" in texts(
        app
    ) and "GRPO, random rewards: wrong" in texts(app)
    assert (
        "the answer): 0 before training; 2 with GRPO, checked answers; 1 with GRPO, a checker that"
        " can be fooled; 1 with GRPO, random rewards." in texts(app)
    )
    healthy(app.segmented_control(key="wrote").set_value("sentiment").run())
    assert app.text[1].value == "good!" and app.query_params["wrote"] in (
        "sentiment",
        ["sentiment"],
    )


@pytest.mark.parametrize(
    "query",
    [
        {"wrote": "../x"},
        {"opening": "0"},
        {"opening": "51"},
        {"opening": "-1"},
        {"opening": "<b>"},
        {"opening": "9" * 40},
    ],
)
def test_an_address_that_means_nothing_shows_the_first(recorded, query):
    recorded("frontier")
    assert opened("talk", **query).text[0].value == "Opening 1"
