"""The page Choose a method: the article beside the measurement, every answer of the questionnaire,
the estimator without its process.
"""

import json
import subprocess
from functools import partial
from itertools import product

import pytest
from support.elements import opened, sent, texts, unfolded

from lab.analysis import recorded_results
from lab.analysis.recommend import CHOICES, recommend
from lab.analysis.recorded_results import Comparison, load_result
from lab.analysis.tuned_view import VIEW_TITLES, tuned_view
from lab.config.methods import estimated_methods
from lab.dashboard.pages.choose import article_chart, article_table
from lab.dashboard.pages.choose.page import TABS
from lab.dashboard.pages.evidence import memory_estimator
from lab.dashboard.state import visitor_processes
from lab.figures.base import log_ticks
from lab.figures.comparison import (
    article_beside_measured,
    comparison_narrow_layout,
    gold_against_kl,
)
from lab.figures.memory import BAR_STYLES, memory_figure

GIB = 2**30
FOUND = {
    "estimate": True,
    "model": "7b",
    "method": "grpo",
    "models": ["policy", "reference"],
    "parameters": 7_000_000_000,
    "trainable": 40_000_000,
    "memory": {
        "updating": {
            "weights": 14 * GIB,
            "gradients": 0,
            "optimizer": GIB,
            "cache": 0,
            "activations": 12 * GIB,
        },
        "sampling": {
            "weights": 14 * GIB,
            "gradients": 0,
            "optimizer": GIB,
            "cache": 2 * GIB,
            "activations": GIB,
        },
    },
    "peak": 27 * GIB,
}


@pytest.fixture
def asked(monkeypatch):
    """The command lines that were run, each answered with `FOUND`."""
    calls = []

    def run(words, *rest):
        calls.append(words)
        return subprocess.CompletedProcess(words, 0, json.dumps(FOUND), "")

    visitor_processes.clear_cached_results()
    monkeypatch.setattr(visitor_processes, "_run_watched", run)
    yield calls
    visitor_processes.clear_cached_results()


open_page = partial(opened, "choose")
open_estimator = partial(opened, "evidence", show="Memory")


def test_the_answer_comes_first_and_each_tab_shows_its_figure(asked):
    app = open_page()
    assert app.subheader[0].value.startswith("Use ")
    assert {trace["name"] for trace in sent(app, "article")["figure"]["data"]} == {
        "article",
        "measured",
    }
    app = open_page(tab=TABS[2])
    assert len(sent(app, "reached")["figure"]["data"]) == len(load_result("tuned")["titles"])
    one, whole = open_page(tab=TABS[1], quality="Training stability").table
    assert list(one.value["the article"]) == ["PPO is unstable", "Stable like SFT", "Fairly stable"]
    assert len(whole.value) == 3 * len(article_table.ARTICLE_QUALITIES)


@pytest.mark.parametrize("view", VIEW_TITLES)
def test_every_view_of_the_tuned_comparison_has_its_points_and_the_words_of_the_record(view):
    table = load_result("tuned")
    app = unfolded(open_page(tab=TABS[2], view=view))
    drawn = {trace["name"]: trace["y"][0] for trace in sent(app, "reached")["figure"]["data"]}
    recorded = {
        row["title"]: row["gold/accuracy"]["mean"] for row in table["rows"] if row["view"] == view
    }
    assert drawn == pytest.approx(recorded, rel=1e-5)  # the browser gets six digits
    shown = {
        (row["first"], row["second"]): row["the first is"]
        for row in app.dataframe[1].value.to_dict("records")
    }
    assert shown == {
        (table["titles"][one["first"]], table["titles"][one["second"]]): one["word"]
        for one in table["comparisons"][view]
    }
    assert f"`{table['command']}`" in texts(app) and table["commit"] in texts(app)


def test_times_and_accuracies_name_the_records_that_they_come_from():
    times = load_result("chain-tokens")
    answer = texts(open_page(matters="speed"))
    assert "Times: an older record on another device, 3 seeds, default settings" in answer
    for tab in TABS[:2]:
        shown = texts(unfolded(open_page(tab=tab)))
        assert f"`{times['command']}` on {times['device']}" in shown
        assert "3 seeds, default settings, 150,000 completion tokens trained on" in shown


def test_the_estimate_waits_for_its_button(asked):
    assert "This is an estimate, not a measurement." in texts(open_estimator()) and asked == []


def test_a_hover_reads_the_article_s_number_with_its_unit():
    bars = sent(open_page(), "article")["figure"]["data"]
    hovers = [bar["hovertemplate"].removesuffix("<extra></extra>") for bar in bars]
    assert [text for text in hovers if text.startswith("article")] == [
        *("article: 4 models", "article: 2 models", "article: 2 models"),
        *("article: 100 %", "article: 40 %", "article: 60 %"),
        *("article: 100 %", "article: 30 %", "article: 60 %"),
    ]
    assert "measured: 4 models" in hovers and "measured: 100 %" in hovers


@pytest.mark.parametrize("guess", ["a third", "half", "all of it"])
def test_a_prediction_is_answered(guess):
    app = open_page()
    app.segmented_control(key="guess").set_value(guess).run()
    runs = load_result("chain-tokens")["runs"]
    ratios = [
        one["seconds"] / other["seconds"]
        for one, other in zip(runs["dpo"], runs["ppo"], strict=True)
    ]
    took = 100 * sum(ratios) / len(ratios)
    right = next(
        words
        for below, words in ((41.5, "a third"), (75, "half"), (200, "all of it"))
        if took < below
    )
    start = "Right" if guess == right else f"You said {guess}"
    assert f"{start}: DPO needs {took:.0f} % of RLHF's time." in texts(app)


def test_every_question_takes_every_answer_and_the_address_follows():
    app = open_page()
    for name, options in CHOICES.items():
        for option in options:
            app.selectbox(key=name).set_value(option).run()
            assert not app.exception and app.query_params[name] in (option, [option])
        app.selectbox(key=name).set_value(next(iter(options))).run()


@pytest.mark.parametrize(
    "answers",
    [
        ("rule", "yes", "tight", "result"),
        ("thumbs", "no", "enough", "speed"),
        ("prompts", "yes", "enough", "result"),
    ],
    ids="-".join,
)
def test_answers_in_the_address_end_in_their_recommendation(answers):
    app = open_page(**dict(zip(CHOICES, answers)))
    text = texts(app)
    assert all(reason in text for reason in recommend(*answers, tuned_view()).reasons)
    assert (app.subheader[0].value == "No method yet") == (answers[0] == "prompts")


def test_bad_answers_in_the_address_are_ignored():
    assert "IPO" in texts(
        open_page(
            data="<b>",
            sampling="",
            memory="7",
            matters="../x",
            model="900b",
            estimate="maybe",
            batch_size="-1",
        )
    )


# --- the estimator
# ----------------------------------------------------------------------------------------------------


def test_an_estimate_runs_once_in_its_own_process_with_the_form_as_arguments_and_is_in_the_address(
    asked,
):
    app = open_estimator(
        model="1.2b", estimated="ppo", weights="full", activations="kept", batch_size="16"
    )
    app.button(key="estimate-button").click().run()
    assert not app.exception and len(asked) == 1
    words = asked[0][1:]
    assert (
        words[:4] == ["-m", "lab", "estimate", "--json"]
        and "--full" in words
        and "--checkpointing" not in words
    )
    given = dict(zip(words[4::2], words[5::2]))
    assert (
        given["--model"] == "1.2b" and given["--method"] == "ppo" and given["--batch-size"] == "16"
    )
    assert app.query_params["estimate"] in (
        "yes",
        ["yes"],
    ) and "Estimated peak memory: 27.0 GiB." in texts(app)
    app.run()
    assert len(asked) == 1


def test_an_address_with_an_estimate_shows_it(asked):
    app = open_estimator(estimate="yes")
    assert len(asked) == 1 and len(sent(app, "estimated-memory")["figure"]["data"]) == len(
        BAR_STYLES
    )


@pytest.mark.parametrize(
    "words",
    list(product(["135m"], estimated_methods(), ("lora", "full"), ("kept", "recomputed"))),
    ids="-".join,
)
def test_the_command_line_takes_every_form(words, monkeypatch, capsys):
    from lab.cli import main
    from lab.profiling import estimate
    from lab.profiling.estimate import MemoryEstimate

    given = {}
    monkeypatch.setattr(
        estimate,
        "estimate_memory",
        lambda model, method, settings: (
            given.update(vars(settings), model=model, method=method)
            or MemoryEstimate(model, method, [], 1, 1, {"updating": {}}, 0)
        ),
    )
    numbers = {name: str(start) for name, (_, _, start) in memory_estimator.NUMBER_FIELDS.items()}
    main.main(
        memory_estimator.estimate_command(
            dict(zip(("model", "method", "weights", "activations"), words)) | numbers
        )[2:]
    )
    assert json.loads(capsys.readouterr().out)["method"] == words[1] == given["method"]
    assert (given["full"], given["checkpointing"]) == (words[2] == "full", words[3] == "recomputed")
    assert {name: str(given[name]) for name in numbers} == numbers


def test_an_estimate_that_fails_says_why(monkeypatch):
    visitor_processes.clear_cached_results()
    monkeypatch.setattr(
        visitor_processes,
        "_run_watched",
        lambda words, *rest: subprocess.CompletedProcess(words, 2, "", "error: no such model"),
    )
    assert "error\\: no such model" in texts(open_estimator(estimate="yes"))
    visitor_processes.clear_cached_results()


@pytest.mark.parametrize(
    ("peak", "says"),
    [
        (5, "It fits on a card of 24 GB."),
        (21.6, "It fits on a card of 40 GB, not on one of 24 GB."),
        (71, "It fits on a card of 80 GB, not on one of 40 GB."),
        (72, "It does not fit on one card of 80 GB."),
    ],
)
def test_a_tenth_of_a_card_is_left_free(peak, says):
    assert says in memory_estimator.estimate_sentence(FOUND | {"peak": peak * GIB})


def test_the_bars_stack_what_memory_holds_and_mark_the_cards_near_by():
    figure = memory_figure(FOUND["memory"], "grpo", (24, 40, 80))
    assert [sum(trace.x[i] for trace in figure.data) for i in (0, 1)] == [27, 18] and [
        t.name for t in figure.data
    ][3] == "key-value cache"
    assert [shape.x0 for shape in figure.layout.shapes] == [24, 40]


def test_every_method_has_a_symbol_of_its_own_and_its_second_arm_the_same_one_open():
    symbols = {
        trace.name: trace.marker.symbol
        for trace in gold_against_kl(
            load_result("chain-tokens")["methods"], {"gold/accuracy": 0.5}
        ).data
    }
    first = [symbol for symbol in symbols.values() if not symbol.endswith("-open")]
    assert (
        len(set(first)) == len(first) == 7
        and symbols["PPO, rule"] == f"{symbols['PPO, reward model']}-open"
    )


def test_every_point_is_named_at_the_edge_with_a_line_to_it_and_no_two_names_overlap():
    rows = load_result("chain-tokens")["methods"]
    figure = gold_against_kl(rows, {"gold/accuracy": 0.5})
    labels = {note.text: note for note in figure.layout.annotations}
    assert set(labels) == {row["title"] for row in rows} and not figure.layout.showlegend
    for row in rows:
        note = labels[row["title"]]
        assert 10**note.x == pytest.approx(row["kl"]["mean"])
        assert note.y == row["gold/accuracy"]["mean"]
    heights = sorted(note.ay for note in labels.values())
    pixels = (430 - 60) / 1.06  # of one unit of the y axis
    assert all((b - a) * pixels > 14 for a, b in zip(heights, heights[1:]))


def test_a_logarithmic_axis_writes_whole_numbers_at_its_ticks():
    ticks = log_ticks()
    written = dict(zip(ticks["ticktext"], ticks["tickvals"]))
    assert [written[text] for text in ("0.02", "1", "5", "20", "1000")] == [0.02, 1, 5, 20, 1000]
    assert gold_against_kl(
        load_result("chain-tokens")["methods"], {"gold/accuracy": 0.5}
    ).layout.xaxis.ticktext == tuple(ticks["ticktext"])


# --- the article's table and chart
# ------------------------------------------------------------------------------------


def comparison(half=1, **arms):
    """arm → (gold of each seed, seconds), the seconds ± `half`."""
    names = {arm.replace("_gold", "@gold"): given for arm, given in arms.items()}
    rows = [
        {
            "method": arm,
            "title": arm,
            "gold/accuracy": {"mean": sum(gold) / len(gold), "half": 0.01},
            "seconds": {"mean": seconds, "half": half},
            "sampled": {"mean": 1000.0, "half": 0},
            "kl": {"mean": 1.0, "half": 0.1},
        }
        for arm, (gold, seconds) in names.items()
    ]
    return Comparison(
        {
            "base": {},
            "plan": {"seeds": 2},
            "methods": rows,
            "runs": {
                arm: [
                    {"gold/accuracy": g, "seconds": seconds + half / 10 * (-1) ** i}
                    for i, g in enumerate(gold)
                ]
                for arm, (gold, seconds) in names.items()
            },
        }
    )


def test_every_cell_of_the_article_s_table_has_a_measured_one_and_a_verdict_worked_out_from_it():
    table = comparison(
        ppo=((0.2, 0.9), 40.0),
        dpo=((0.7, 0.7), 10.0),
        grpo=((0.9, 0.8), 20.0),
        ppo_gold=((0.9, 0.8), 30.0),
    )
    found = article_table.measured_cells(
        table,
        {
            "factor": 4.0,
            "rows": [
                {"method": "ppo", "knob": "learning_rate", "spread": 0.5},
                {"method": "ppo", "knob": "epsilon", "spread": 0.1},
            ],
        },
    )
    assert {quality: set(cells) for quality, cells in found.items()} == {
        quality: set(article_table.ARM_OF_METHOD) for quality in article_table.ARTICLE_QUALITIES
    }
    assert (
        found["Training stability"]["RLHF"]
        == "2 seeds differ by 0.70; 0.50 with its learning rate ÷ 4 or × 4"
    )
    assert found["Training complexity"]["DPO"] == "2 models, 10 s of training"
    assert found["Data requirements"]["GRPO"].startswith("0 pairs, 1,000 tokens")
    lower = comparison(
        ppo=((0.2, 0.4), 1.0),
        dpo=((0.5, 0.5), 1.0),
        grpo=((0.3, 0.3), 1.0),
        ppo_gold=((0.9, 0.9), 1.0),
    )
    said = article_table.quality_verdicts(table, lower)
    assert (
        said["Training stability"] == "RLHF differs most between seeds (0.70) and DPO least (0.00);"
        " 2 seeds measure this only roughly."
    )
    assert "DPO has the shortest mean time (10.00 ± 1.00 s);" in said["Training complexity"]
    assert said["Performance ceiling"] == (
        "Gold accuracy with tuned settings at equal tokens: GRPO minus DPO is +0.15 ± 0.64, not told apart;"
        " GRPO minus RLHF with the same rule is 0.00 ± 0.30, not told apart."
        " Gold accuracy at default settings: GRPO minus DPO is −0.20 ± 0.00, not told apart; GRPO minus RLHF"
        " with the same rule is −0.60 ± 0.00, not told apart."
    )


def test_the_verdicts_name_the_most_sensitive_method():
    table = comparison(
        ppo=((0.2, 0.9), 40.0),
        dpo=((0.7, 0.7), 10.0),
        grpo=((0.9, 0.8), 20.0),
        ppo_gold=((0.9, 0.8), 30.0),
    )

    def row(method, spread, high):
        cells = {
            name: {"mean": mean, "half": 0.02}
            for name, mean in (("low", 0.6), ("centre", 0.7), ("high", high))
        }
        return {"method": method, "knob": "beta", "spread": spread} | cells

    knobs = {"factor": 4.0, "rows": [row("ppo", 0.5, 0.7), row("dpo", 0.3, 0.9)]}
    said = article_table.quality_verdicts(table, table, knobs)
    assert (
        "The mean of RLHF changes most when one setting is divided or multiplied (0.50; DPO 0.30)."
        in (said["Training stability"])
    )
    said = article_table.quality_verdicts(table, table, knobs | {"rows": [row("grpo", 0.8, 0.7)]})
    assert said["Training stability"].endswith("The article names PPO as the unstable method.")


@pytest.mark.parametrize(
    ("half", "seconds", "says"),
    [
        (
            1,
            (40.0, 10.0, 20.0),
            "DPO has the shortest mean time (10.00 ± 1.00 s); GRPO (20.00 ± 1.00 s) is slower than DPO;"
            " RLHF (40.00 ± 1.00 s) is slower than DPO. RLHF takes 4.0 times as long as DPO.",
        ),
        (
            60,
            (90.0, 70.0, 80.0),
            "DPO has the shortest mean time (70.00 ± 60.00 s); GRPO (80.00 ± 60.00 s) is not told apart",
        ),
        (1, (5.0, 10.0, 20.0), "RLHF has the shortest mean time (5.00 ± 1.00 s); DPO"),
    ],
)
def test_a_method_is_called_slower_only_where_the_seeds_tell_it_apart(half, seconds, says):
    arms = dict(zip(("ppo", "dpo", "grpo"), (((0.8, 0.9), one) for one in seconds)))
    assert article_table.time_sentence(comparison(half, **arms)).startswith(says)


def test_measured_memory_stands_beside_the_article_s_where_it_is_recorded(monkeypatch):
    rows = [
        {
            "size": "a",
            "arm": arm,
            "method": arm.partition(".")[0],
            "measured": size,
            "error": 0.02,
            "parameters": 10**6,
        }
        for arm, size in (("dpo", 50), ("grpo", 80), ("ppo.shared", 90), ("ppo.separate", 200))
    ]
    rows[2]["parameters"] += 40_000_000  # its reward model
    rows.append(
        {"size": "b", "arm": "dpo", "method": "dpo", "measured": 1, "error": -0.05, "parameters": 2}
    )
    table = {"command": "c", "device": "d", "completions": 32, "rows": rows}
    monkeypatch.setattr(recorded_results, "recorded_result", lambda name: table)
    monkeypatch.setattr(memory_estimator, "recorded_result", lambda name: table)
    found = article_chart.measured_panels(load_result("chain-tokens"))
    assert {name: part["mean"] for name, part in found["memory"].items()} == {
        "ppo": 100,
        "dpo": 25,
        "grpo": 40,
    }
    drawn = [
        trace.y[0]
        for trace in article_beside_measured(found, article_chart.METHOD_TITLES).data
        if trace.name == "measured" and trace.yaxis == "y2"
    ]
    assert drawn == [100, 25, 40]
    assert (
        "The largest error is 5 %, for DPO on the model b; all others are at most 2 %"
        in memory_estimator.accuracy_sentence()
        and "1 million weights" in memory_estimator.accuracy_sentence()
    )


def test_on_a_telephone_the_panels_stand_under_each_other_without_touching():
    layout = comparison_narrow_layout(["models", "memory", "time"])
    spans = [layout[axis]["domain"] for axis in ("yaxis", "yaxis2", "yaxis3")]
    assert (
        spans[0][0] > spans[1][1] > spans[1][0] > spans[2][1] > spans[2][0] == 0 and spans[0][1] < 1
    )
    assert all(layout[axis]["domain"] == [0, 1] for axis in ("xaxis", "xaxis2", "xaxis3"))
