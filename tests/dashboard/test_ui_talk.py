"""The page Talk without a browser: every control, what is shown when something goes wrong, and what
must not happen.
"""

import json
from functools import partial

import pytest
from support.elements import healthy, opened, texts, unfolded

from lab.config.methods import make_config
from lab.dashboard.components import token_text
from lab.dashboard.pages.talk import answer_view, answers, page
from lab.dashboard.pages.talk.question import DEFAULT_EXAMPLE
from lab.dashboard.state.shipped_runs import SHIPPED_RUNS_FOLDER
from lab.errors import LabError
from lab.runs.folder import RunFolder, create
from lab.runs.fork import RECORDINGS_FOLDER
from lab.serving.side_by_side import PolicyWithReference
from lab.tasks.registry import TASKS

HELD_OUT = [p.prompt for p in TASKS["chain"].held_out(12)]


class Stub:
    """A worker that says what it is told to."""

    def __init__(self):
        self.asked, self.says = [], None

    def warm(self):
        pass

    def ask(self, question):
        self.asked.append(question)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says or {
            "prompt": question["prompt"],
            "answer": "36",
            "seed": question["seed"],
            "temperature": question["temperature"],
            "reference": side(
                ["3", "6", "<eos>"], [-1.0, -2.0, 0.0], [-0.5, -1.0, 0.0], right=True
            ),
            "policy": side(["3", "<b>", "<eos>"], [-0.25, -0.25, 0.0], [-0.5, -3.0, 0.0]),
        }


def side(tokens, ours, theirs, right=False):
    return {
        "text": "".join(tokens[:-1]),
        "tokens": tokens,
        "policy_logps": ours,
        "reference_logps": theirs,
        "right": right,
        "scratchpad": False,
        "truncated": False,
        "draws": {"n": 32, "right": 7, "scratchpads": 5},
    }


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    speaker(tmp_path, "outside")
    answers.sample_answer.clear()
    return tmp_path / "runs"


@pytest.fixture
def stub(monkeypatch):
    made = Stub()
    for module in (page, answers):
        monkeypatch.setattr(module, "inference_worker", lambda: made)
    return made


@pytest.fixture
def drawn(monkeypatch):
    """What the token element was given, by its key."""
    found = {}
    monkeypatch.setattr(token_text, "_element", lambda key, data: found.update({key: data}))
    return found


def speaker(root, name, method="grpo"):
    folder = create(root / name, make_config(method))
    (folder.path / "adapter").mkdir()
    (folder.path / "adapter" / "adapter_config.json").write_text("{}")
    folder.write_status("finished", 40)
    return folder


open_page = partial(opened, "talk")


def test_on_a_fresh_clone_a_recorded_answer_is_shown_without_any_model(root, stub, drawn):
    app = open_page()
    assert (
        stub.asked == []
        and app.selectbox(key="speaker").value == "recorded:grpo"
        and "every recorded run whose weights the lab ships" in texts(app)
    )
    assert drawn["tokens-policy"]["tokens"][0][
        "text"
    ] == "<think>" and "Recorded: `python -m lab build-talk" in texts(app)
    assert app.selectbox(key="prompt").options == HELD_OUT
    shown = [
        a
        for a in answers.recorded_answers()["answers"]
        if a["prompt"] == app.selectbox(key="prompt").value
    ]
    first = next(a for a in shown if a["temperature"] == 1 and a["seed"] == 0)
    counted = first["reference"]["draws"]
    assert 0.3 < counted["right"] / counted["n"] < 0.6, "the example is no longer typical"
    assert (first["reference"]["right"], first["policy"]["right"]) == (False, True)


def test_the_recorded_answers_are_those_of_the_first_held_out_prompts_and_small():
    table = json.loads((SHIPPED_RUNS_FOLDER / "grpo" / "talk.json").read_text("utf-8"))
    assert list(dict.fromkeys(a["prompt"] for a in table["answers"])) == HELD_OUT
    assert (
        sum(
            path.stat().st_size
            for path in (SHIPPED_RUNS_FOLDER / "grpo").rglob("*")
            if path.is_file()
        )
        < 400_000
    )
    assert (
        "/"
        not in json.loads(
            (SHIPPED_RUNS_FOLDER / "grpo" / "adapter" / "adapter_config.json").read_text("utf-8")
        )["base_model_name_or_path"]
    )


def test_what_is_recorded_is_what_the_recorded_adapter_says():
    talker = PolicyWithReference.of(RunFolder(SHIPPED_RUNS_FOLDER / "grpo"), "cpu")
    recorded = [a for a in answers.recorded_answers()["answers"] if a["temperature"] == 0][:3]
    for said in recorded:
        now = talker.answer(said["prompt"], temperature=0)
        for who in ("reference", "policy"):
            assert now[who]["tokens"] == said[who]["tokens"]
            assert now[who]["policy_logps"] == pytest.approx(said[who]["policy_logps"], abs=0.01)


@pytest.mark.parametrize("method", ["dpo", "grpo", "ipo", "ppo"])
def test_a_recording_with_checkpoints_answers_and_the_default_prompt_shows_a_contrast(method):
    folder = RunFolder(RECORDINGS_FOLDER / method)
    talker = PolicyWithReference.of(folder, "cpu")
    answer = talker.answer(HELD_OUT[DEFAULT_EXAMPLE], seed=0, temperature=1.0)
    assert answer["answer"] == "8" and answer["reference"]["text"] == "9"
    assert answer["policy"]["text"] == "<think>5+0=5;5+3=8;8-7=1;1+7=8</think>8"
    assert answer["policy"]["policy_logps"] != answer["policy"]["reference_logps"]


def test_every_recorded_run_with_weights_is_offered_and_asked_by_its_folder(root, stub, drawn):
    app = open_page(run="recorded:play-ppo")
    assert app.selectbox(key="speaker").options == [
        "grpo (recorded), GRPO",
        "DPO after 75 of 100 updates (recorded)",
        "GRPO after 30 of 40 updates (recorded)",
        "IPO after 75 of 100 updates (recorded)",
        "PPO after 40 of 60 updates (recorded)",
    ]
    assert stub.asked[0]["run"] == str(RECORDINGS_FOLDER / "ppo")
    assert "**PPO after 40 of 60 updates \\(recorded\\)**: wrong" in texts(app)
    assert unfolded(app).code[0].value.startswith("python -m lab talk lab/assets/playground/ppo ")


def test_an_own_run_is_asked_and_every_token_has_its_log_ratio_and_its_place(root, stub, drawn):
    folder = speaker(root, "mine")
    app = open_page(run="mine", prompt="7+5*3=", seed="4", temperature="0.5")
    assert stub.asked == [
        {
            "run": str(folder.path.resolve()),
            "prompt": "7+5*3=",
            "seed": 4,
            "temperature": 0.5,
            "draws": 32,
        }
    ]
    assert [t["ratio"] for t in drawn["tokens-policy"]["tokens"]] == [0.25, 2.75, 0.0] and drawn[
        "tokens-policy"
    ]["parts"] == 1
    assert (
        drawn["tokens-policy"]["tokens"][1]["says"]
        == "Token 2 of 3, “<b>”: log π −0.25, log π_ref −3.00, log-ratio +2.75 nats"
    )
    said = texts(app)
    assert (
        "The two answers differ from token 2 on. The right answer is 36. The answer of the trained"
        " policy is 3.0 nats more likely under the policy"
        in said
        and "<b>" not in said
    )
    assert "Of 32 samples of this model, 7 are right and 5 have a scratchpad." in said
    assert "Sampled now" in said and "**Reference**: right" in said and "**mine**: wrong" in said
    assert [frame.value["log-ratio, nats"].tolist() for frame in unfolded(app).dataframe] == [
        [-0.5, -1.0, 0.0],
        [0.25, 2.75, 0.0],
    ]
    assert app.code[0].value == "python -m lab talk runs/mine '7+5*3=' --seed 4 --temperature 0.5"


def test_an_answer_is_asked_for_once(root, stub, drawn):
    speaker(root, "mine")
    for _ in range(2):
        open_page(run="mine", prompt="7+5*3=")
    assert len(stub.asked) == 1


def test_the_next_seed_and_another_temperature_are_asked_for(root, stub, drawn):
    speaker(root, "mine")
    app = open_page(run="mine")
    healthy(app.number_input(key="seed").set_value(7).run())
    healthy(app.select_slider(key="temperature").set_value(0.0).run())
    assert [(q["seed"], q["temperature"]) for q in stub.asked] == [(0, 1.0), (7, 1.0), (7, 0.0)]


@pytest.mark.parametrize(
    "prompt",
    ["7+x=", "<script>alert(1)</script>", "hello", "1+" * 300, "![](http://x/y.png)", "$$x$$"],
)
def test_a_prompt_that_is_no_chain_is_refused_with_what_a_chain_is_made_of(
    root, stub, drawn, prompt
):
    app = open_page(prompt=prompt)
    assert "chain" in app.error[0].value and stub.asked == [] and not drawn
    assert "<script>" not in texts(app) and "![](" not in texts(app) and "$$" not in texts(app)


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "outside",
        "/etc",
        "..",
        "",
        "no-such-run",
        "recorded:../../base",
        "<b>",
        "recorded:dpo",
    ],
)
def test_a_name_in_the_address_cannot_leave_the_runs_folder(root, stub, drawn, name):
    speaker(root, "mine")
    app = open_page(run=name)
    assert app.selectbox(key="speaker").value == "recorded:grpo" and stub.asked == []


@pytest.mark.parametrize(
    "odd",
    [
        {"seed": "-5"},
        {"seed": "many"},
        {"seed": "9" * 30},
        {"temperature": "hot"},
        {"temperature": "99"},
        {"guess": "<b>"},
    ],
)
def test_an_odd_number_in_the_address_is_read_as_none(root, stub, drawn, odd):
    app = open_page(**odd)
    assert (
        app.number_input(key="seed").value == 0
        and app.select_slider(key="temperature").value == 1.0
    )


def test_what_goes_wrong_with_the_worker_is_shown_as_text_and_can_be_tried_again(root, stub, drawn):
    speaker(root, "mine")
    stub.says = LabError("No answer came within 90 s. [x](http://y)")
    app = open_page(run="mine")
    assert "No answer came within 90 s" in app.error[0].value and "[x](" not in app.error[0].value
    stub.says = None
    assert not healthy(app.run()).error and len(stub.asked) == 2


def test_reward_models_and_runs_without_an_adapter_do_not_speak(root, stub, drawn):
    speaker(root, "scores", "reward_model")
    create(root / "young", make_config("dpo"))
    speaker(root, "speaks")
    assert [option.partition(",")[0] for option in open_page().selectbox(key="speaker").options][
        :2
    ] == ["speaks", "grpo (recorded)"]


def test_the_guess_is_answered_with_the_recorded_answers(root, stub, drawn):
    app = open_page()
    app.segmented_control(key="guess").set_value("only in the last number").run()
    assert "There are 36 recorded pairs of answers." in texts(healthy(app))


def test_equal_answers_part_nowhere():
    one = side(["3", "6", "<eos>"], [0.0] * 3, [0.0] * 3)
    assert answer_view.common_prefix_length({"reference": one, "policy": one}) == 3
    assert (
        answer_view.common_prefix_length({"reference": one, "policy": side(["3"], [0.0], [0.0])})
        == 1
    )
