"""GRPO on one prompt: its numbers against hand computation and plain torch, and visitors who share
nothing.
"""

import json
import statistics

import pytest
import torch

from lab.config.methods import make_config
from lab.errors import LabError
from lab.models.loading import load_policy
from lab.models.tokenizer import load_tokenizer
from lab.serving import one_prompt
from lab.serving.one_prompt import OnePromptTask, OnePromptTrainer
from lab.serving.worker import serve_requests
from lab.tasks.base import Problem
from lab.tasks.chain import ChainTask

MIXED = "3*8-5+2="  # The base answers it sometimes right and sometimes wrong.


@pytest.fixture(autouse=True)
def few_measurements(monkeypatch):
    monkeypatch.setattr(one_prompt, "HELD_OUT_PROMPTS", 8)
    monkeypatch.setattr(one_prompt, "FRESH_SAMPLES", 4)


@pytest.fixture(scope="module")
def trainer():
    return OnePromptTrainer("cpu")


def advantage_by_hand(reward, rewards):
    return (reward - statistics.mean(rewards)) / (statistics.stdev(rewards) + 1e-4)


@pytest.mark.parametrize("reward", ["answer", "graded"])
def test_rewards_and_advantages_are_those_worked_out_by_hand(trainer, reward):
    (group,) = trainer.answer(MIXED, reward=reward)["groups"]
    rows = group["completions"]
    for row in rows:
        answer = row["text"].rpartition("</think>")[2]
        far = min(abs(int(answer) - 21), 100 - abs(int(answer) - 21))  # (3·8 − 5) + 2 = 21
        graded = (
            0.1 + 0.8 * (0.5 * (1 - far / 50) if far else 1) + 0.1 * (1 - len(row["text"]) / 64)
        )
        assert row["right"] == (answer == "21")
        assert row["reward"] == pytest.approx(
            float(answer == "21") if reward == "answer" else graded, abs=1e-4
        )
    rewards = [row["reward"] for row in rows]
    assert len(set(rewards)) > 1 and group["mean"] == pytest.approx(
        statistics.mean(rewards), abs=1e-4
    )
    assert group["std"] == pytest.approx(statistics.stdev(rewards), abs=1e-4)
    for row in rows:
        # The numbers of the answer have four decimals, and a small std magnifies the last of them.
        assert row["advantage"] == pytest.approx(
            advantage_by_hand(row["reward"], rewards), abs=2e-3
        )


def test_an_update_is_that_of_plain_torch_on_the_same_group(trainer):
    """The loss is −mean over all tokens of A·ρ with ρ = 1, then clipping at norm 1 and AdamW."""
    before, after = trainer.answer(MIXED, updates=1)["groups"]
    rows = before["completions"]
    config = make_config("grpo", {"device": "cpu"})
    model, tokenizer = load_policy(config, torch.device("cpu")), load_tokenizer(config.model)
    prompt = tokenizer(MIXED)["input_ids"]

    def logps(row):
        completion = tokenizer.convert_tokens_to_ids(row["tokens"])
        ids = torch.tensor([prompt + completion])
        chosen = model(input_ids=ids).logits.float().log_softmax(-1)[0, :-1]
        return chosen[torch.arange(len(prompt) - 1, ids.shape[1] - 1), completion]

    for row in rows:
        assert logps(row).sum().item() == pytest.approx(row["logp"], abs=2e-4)  # It is rounded.
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=5e-4, weight_decay=0.0)
    rewards = [row["reward"] for row in rows]
    tokens = sum(len(row["tokens"]) for row in rows)
    loss = sum(
        -(advantage_by_hand(row["reward"], rewards) * logps(row)).sum() / tokens for row in rows
    )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    with torch.no_grad():
        # AdamW's first step is the sign of a gradient, which rounding decides where it is near 0.
        for row in rows:
            assert row["logp_after"] == pytest.approx(logps(row).sum().item(), abs=5e-3)
            assert abs(row["logp_after"] - row["logp"]) > 0.02
        for row in after["completions"]:
            assert row["logp"] == pytest.approx(logps(row).sum().item(), abs=5e-3)
            assert row["reference_logp"] != pytest.approx(row["logp"], abs=5e-3)


def test_every_group_is_sampled_with_the_same_noise(trainer):
    """Without an update nothing changes: of a dead group the first update has the gradient 0."""
    dead = trainer.answer("7+5*3=", updates=2)
    first, *others = dead["groups"]
    assert first["std"] == 0 and {row["advantage"] for row in first["completions"]} == {0}
    for group in others:
        assert [row["text"] for row in group["completions"]] == [
            row["text"] for row in first["completions"]
        ]
    assert first["completions"] != trainer.answer("7+5*3=", seed=1)["groups"][0]["completions"]


def test_visitors_who_take_turns_get_what_each_would_get_alone():
    lonely = OnePromptTrainer("cpu")
    early, alone = (lonely.answer(MIXED, updates=updates) for updates in (1, 3))
    shared = OnePromptTrainer("cpu", max_copies=2)
    frozen = {n: p.clone() for n, p in shared.run.model.named_parameters() if not p.requires_grad}
    for updates in range(4):
        mine = shared.answer(MIXED, updates=updates)
        shared.answer("7+5*3-4=", updates=updates, reward="graded")
    assert mine["groups"] == alone["groups"] and mine["measured"]["3"] == alone["measured"]["3"]
    untouched = shared.answer("9*9-1*4=")
    assert untouched["groups"] == OnePromptTrainer("cpu").answer("9*9-1*4=")["groups"]
    assert len(shared.copies) == 2  # The copy of MIXED was dropped, and is trained again:
    assert shared.answer(MIXED, updates=3)["groups"] == alone["groups"]
    assert shared.answer(MIXED, updates=1) == early
    for name, weight in shared.run.model.named_parameters():
        assert weight.requires_grad or torch.equal(weight, frozen[name])


@pytest.mark.parametrize(
    "given, message",
    [
        ({"prompt": "7+x="}, "A chain cannot hold x"),
        ({"prompt": ""}, "is no chain"),
        ({"prompt": "1" + "+1" * 13}, "at most 25"),
        ({"prompt": "7+5*3=\0"}, "NUL"),
        ({"prompt": 5}, "takes text"),
        ({"group_size": 3}, "takes 4, 8 or 16"),
        ({"group_size": True}, "takes 4, 8 or 16"),
        ({"reward": "length"}, "answer"),
        ({"reward": ["answer"]}, "answer"),
        ({"seed": -1}, "seed is -1"),
        ({"updates": 31}, "from 0 to 30"),
        ({"updates": 1.5}, "a whole number from 0 to 30"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_in_one_line(trainer, given, message):
    with pytest.raises(LabError, match=message) as caught:
        trainer.answer(**{"prompt": MIXED} | given)
    assert "\n" not in str(caught.value)


def test_the_prompt_is_never_among_the_held_out_prompts_that_measure():
    first, second = ChainTask().held_out(2)
    task = OnePromptTask(first)
    assert first not in task.held_out(3) and second in task.held_out(3)
    assert len(task.held_out(3)) == 3 and task.train_problems(2, 0, 0) == [first, first]
    assert OnePromptTask(Problem("1+1=", "2")).held_out(2) == [first, second]


def test_the_worker_answers_a_question_about_one_prompt_and_refuses_others():
    lines = [
        json.dumps({"one_prompt": {"prompt": MIXED, "group_size": 4}}),
        json.dumps({"one_prompt": {"prompt": "a"}}),
        json.dumps({"one_prompt": {"prompt": MIXED, "learning_rate": 1}}),
        json.dumps({"one_prompt": {"prompt": MIXED}, "run": "x"}),
    ]
    answer, *errors = serve_requests(lines, "cpu")
    assert len(answer["groups"][0]["completions"]) == 4 and json.loads(json.dumps(answer)) == answer
    for error, words in zip(errors, ("cannot hold a", "learning_rate", "run")):
        assert words in error["error"]
