"""The visitor's own prompt on page GRPO: what the worker is asked, what the browser gets, and what is
refused.
"""

import json
import statistics

import pytest
from support.elements import opened

from lab.analysis.recorded_results import load_result
from lab.dashboard.pages.grpo import own_prompt
from lab.dashboard.pages.grpo.group_text import group_sentences, measured_sentence
from lab.dashboard.pages.grpo.own_prompt import Question, question_of, refusal
from lab.errors import LabError


def completion(reward, advantage, logp, logp_after=None):
    row = {
        "text": "<b>" if reward else "7",
        "tokens": ["<b>" if reward else "7", "<eos>"],
        "right": bool(reward),
        "reward": reward,
        "parts": {"format": 1.0, "closeness": reward, "length": 0.9},
        "advantage": advantage,
        "logp": logp,
        "reference_logp": -1.0,
    }
    return row if logp_after is None else row | {"logp_after": logp_after}


FIRST = {
    "mean": 0.25,
    "std": 0.5,
    "completions": [
        completion(1.0, 1.5, -2.0, -1.5),
        completion(0.0, -0.5, -1.0, -1.25),
        completion(0.0, -0.5, -1.0, -0.75),
        completion(0.0, -0.5, -3.0, -3.5),
    ],
}
DEAD = {"mean": 1.0, "std": 0.0, "completions": [completion(1.0, 0.0, -0.5)] * 4}


class Stub:
    """A worker that answers with the two groups above."""

    def __init__(self):
        self.asked, self.fails = [], ""

    def warm(self):
        pass

    def ask(self, request):
        self.asked.append(request)
        if self.fails:
            raise LabError(self.fails)
        asked = request["one_prompt"]
        return {
            **{name: asked[name] for name in ("prompt", "group_size", "reward", "seed")},
            "answer": "21",
            "learning_rate": 0.0005,
            "groups": [FIRST, DEAD],
            "measured": {
                "0": {"held_out": 123, "fresh": 20},
                str(asked["updates"]): {"held_out": 120, "fresh": 60},
            },
            "of": {"held_out": 256, "fresh": 64},
        }


@pytest.fixture(autouse=True)
def worker(monkeypatch, tmp_path):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    stub = Stub()
    monkeypatch.setattr(own_prompt, "inference_worker", lambda: stub)
    own_prompt._sampled.clear()
    return stub


def element(app):
    """What the browser gets."""
    return next(
        data
        for e in app.get("bidi_component")
        for data in json.loads(e.proto.json)
        if data.get("key") == own_prompt.KEY
    )


def in_url(app, name):
    value = app.query_params[name]
    return value if isinstance(value, str) else value[0]


COMMAND = """
import streamlit as st
from lab.dashboard.pages.grpo import own_prompt, page
if "commanded" not in st.session_state:  # The page runs again when it has obeyed.
    st.session_state["commanded"] = True
    st.session_state[own_prompt.KEY] = {{"command": {command!r}}}
    own_prompt._obey()
    st.session_state.pop(own_prompt.KEY)
page.page()
"""


def commanded(command, **query):
    return opened(COMMAND.format(command=command), **query)


def test_the_page_opens_with_a_recorded_group_and_asks_nobody(worker):
    sent = element(opened("grpo", more=""))
    assert sent["question"]["prompt"] == "7+5*3-4=" and sent["answer"] == "32"
    (group,) = sent["groups"]
    assert len(group["completions"]) == 8 and len(sent["says"]) == 1 and worker.asked == []
    assert sent["says"][0].startswith("Before any update: 4 of 8 completions are right")
    ten = element(opened("grpo", more="", updates="10"))
    assert len(ten["groups"]) == 11 and worker.asked == []
    assert "24 → 56 are right, of 256 held-out prompts 123 → 124" in ten["measuredSays"]


def test_the_address_holds_the_question(worker):
    sent = element(
        opened("grpo", more="", ask="3*8-5+2", G="4", reward="graded", draw="2", updates="1")
    )
    question = {"prompt": "3*8-5+2=", "group_size": 4, "reward": "graded", "seed": 2, "updates": 1}
    assert worker.asked == [{"one_prompt": question}] and sent["question"] == question
    assert sent["groups"][0]["completions"][0]["text"] == "<b>"  # The browser sets it as text.


@pytest.mark.parametrize(
    "query",
    [
        {"ask": "7+x"},
        {"ask": "<script>"},
        {"ask": "1" * 99},
        {"G": "5"},
        {"G": "8.0"},
        {"G": "³"},
        {"reward": "length"},
        {"draw": "-1"},
        {"draw": "9" * 30},
        {"updates": "31"},
        {"updates": "1e1"},
        {"from": "../../etc"},
        {"from": "run ../x"},
    ],
)
def test_an_address_that_means_nothing_shows_the_group_that_the_page_opens_with(query, worker):
    app = opened("grpo", more="", **query)
    assert element(app)["question"] == vars(Question()) and worker.asked == []
    assert "ask" not in app.query_params and "updates" not in app.query_params


def test_a_command_of_the_browser_becomes_the_question(worker):
    command = {"id": 7, "prompt": " 3*8 - 5+2", "group_size": 16, "reward": "graded", "seed": 1}
    app = commanded(command | {"updates": 1})
    sent = element(app)
    assert sent["question"]["prompt"] == "3*8-5+2=" and sent["question"]["group_size"] == 16
    assert sent["done"] == 7 and sent["problem"] == "" and len(worker.asked) == 1
    assert in_url(app, "ask") == "3*8-5+2=" and in_url(app, "updates") == "1"


@pytest.mark.parametrize("prompt", ["7+x", "", None, "7*", "5" * 60])
def test_a_prompt_that_the_task_does_not_accept_is_answered_with_its_reason(prompt, worker):
    sent = element(commanded({"id": 3, "prompt": prompt}, ask="3*8-5+2"))
    assert sent["problem"].count("chain") and sent["done"] == 3
    assert sent["question"]["prompt"] == "3*8-5+2=" and len(worker.asked) == 1


def test_a_worker_that_fails_is_quoted_and_the_question_stays_in_the_address(worker):
    worker.fails = "No answer came within 90 s."
    app = opened("grpo", more="", ask="3*8-5+2")
    sent = element(app)
    assert sent["problem"].startswith("No answer came within 90 s. The cards show the group")
    assert sent["question"] == vars(Question()) and in_url(app, "ask") == "3*8-5+2"


def test_a_typed_prompt_is_judged_by_the_task():
    assert refusal("7+5*3-4") == refusal("") == ""
    assert "cannot hold x" in refusal("7+x") and "is no chain" in refusal("7+")
    assert "this one has 2" in refusal("7+5*3=")


def test_the_sentences_count_what_rose_and_what_the_update_did():
    answer = {
        "groups": [FIRST, DEAD],
        "measured": {"0": {"held_out": 5, "fresh": 1}, "1": {"held_out": 4, "fresh": 3}},
        "of": {"held_out": 8, "fresh": 4},
    }
    before, after = group_sentences(answer)
    assert before == (
        "Before any update: 1 of 4 completions are right, the mean reward is 0.25. An update makes the"
        " 1 above the mean more likely (A up to +1.50) and the 3 below it less likely."
    )
    assert "All rewards are equal" in after
    assert "made 1 of the 1 above the mean more likely and 2 of the 3 below it less likely" in after
    assert "1 → 3 are right, of 8 held-out prompts 5 → 4" in measured_sentence(answer, 1)
    assert "1 of 4 further samples" in measured_sentence(answer, 0)


def test_a_question_keeps_what_is_accepted_and_replaces_the_rest():
    assert question_of({}) == Question()
    assert question_of({"prompt": "1+2", "group_size": True, "updates": 30, "seed": 1.5}) == (
        Question("1+2=", 8, "answer", 0, 30)
    )


def test_the_recorded_groups_have_the_advantages_of_their_rewards():
    (row,) = load_result("one_prompt")["rows"]
    assert len(row["groups"]) == len(row["measured"]) == 11
    for group in row["groups"]:
        rewards = [one["reward"] for one in group["completions"]]
        std = statistics.stdev(rewards)
        assert group["mean"] == pytest.approx(statistics.mean(rewards), rel=1e-4)
        for one in group["completions"]:
            expected = (one["reward"] - statistics.mean(rewards)) / (std + 1e-4) if std else 0.0
            assert one["advantage"] == pytest.approx(expected, abs=1e-4)
            assert one["right"] == (one["text"].rpartition("</think>")[2] == "32")
