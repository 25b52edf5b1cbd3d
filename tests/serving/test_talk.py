"""A policy and its reference answer one prompt: what each says, its log-probabilities, and what is
refused.
"""

import json

import pytest
import torch

from lab.config.methods import make_config
from lab.errors import LabError
from lab.models.loading import load_base, load_policy
from lab.models.tokenizer import load_tokenizer
from lab.recipes.record_chat import record_chat
from lab.runs.folder import create
from lab.serving.load import load_run
from lab.serving.side_by_side import PolicyWithReference
from lab.serving.worker import serve_requests
from lab.tasks.registry import TASKS

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run whose adapter is random, and big enough to change what is said."""
    folder = create(tmp_path_factory.mktemp("runs") / "a", make_config("grpo", {"lora_rank": 4}))
    model = load_policy(folder.config, CPU)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(0.08 * torch.randn(weight.shape, generator=noise))
    model.save_pretrained(folder.path / "adapter")
    folder.write_status("finished", 40)
    return folder


@pytest.fixture(scope="module")
def talker(run):
    return PolicyWithReference.of(run, "cpu")


def greedy(model, prompt, tokens):
    """The likeliest completion, token by token and without a cache."""
    tokenizer = load_tokenizer("embedded")
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    with torch.no_grad():
        while len(ids) - start < tokens and (
            len(ids) == start or ids[-1] != tokenizer.eos_token_id
        ):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        logps = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
    return ids[start:], [float(logps[i - 1, ids[i]]) for i in range(start, len(ids))]


@pytest.mark.parametrize("prompt", ["7+5*3-4*2=", "1*2*3="])
def test_the_reference_is_the_base_and_the_policy_is_the_base_with_the_adapter(run, talker, prompt):
    said = talker.answer(prompt, temperature=0, max_tokens=30)
    models = {"reference": load_base("embedded", CPU), "policy": load_run(run, "cpu")[1]}
    for name, model in models.items():
        ids, logps = greedy(model, prompt, 30)
        assert said[name]["tokens"] == [load_tokenizer("embedded").decode([i]) for i in ids]
        assert said[name][f"{name}_logps"] == pytest.approx(logps, abs=2e-4)
    assert said["reference"]["tokens"] != said["policy"]["tokens"]


def test_one_seed_is_one_answer_and_draws_are_counted(talker):
    first, again, other = (talker.answer("7+5*3=", seed=seed, draws=8) for seed in (1, 1, 2))
    assert first == again and first["policy"]["text"] != other["policy"]["text"]
    assert first["reference"]["draws"]["n"] == 8 and 0 <= first["reference"]["draws"]["right"] <= 8
    assert "draws" not in talker.answer("7+5*3=", temperature=0, draws=8)["policy"]


def test_an_untrained_adapter_says_what_the_reference_says():
    config = make_config("dpo")
    said = PolicyWithReference(config, load_policy(config, CPU), load_tokenizer("embedded")).answer(
        "7+5*3=", seed=3
    )
    assert (
        said["policy"] == said["reference"]
        and said["policy"]["policy_logps"] == said["policy"]["reference_logps"]
    )


def test_without_a_prompt_the_first_held_out_one_is_answered_and_scored(talker):
    said = talker.answer()
    problem = TASKS["chain"].held_out(1)[0]
    assert (said["prompt"], said["answer"]) == (problem.prompt, problem.answer)
    assert said["reference"]["right"] == bool(
        TASKS["chain"].score(problem, said["reference"]["text"]).answer
    )


@pytest.mark.parametrize(
    "odd",
    [
        {"seed": -1},
        {"seed": 1.5},
        {"temperature": 99},
        {"temperature": True},
        {"max_tokens": "9"},
        {"draws": 1000},
    ],
)
def test_numbers_out_of_range_are_refused(talker, odd):
    with pytest.raises(LabError, match=next(iter(odd))):
        talker.answer("7+5*3=", **odd)


@pytest.mark.parametrize("text, prompt", [("7+5*3=", "7+5*3="), (" 7 + 5 * 3 ", "7+5*3=")])
def test_a_typed_chain_is_taken_with_spaces_and_without_its_equals_sign(text, prompt):
    problem = TASKS["chain"].problem(text)
    assert (problem.prompt, problem.answer) == (prompt, "36")


@pytest.mark.parametrize(
    "prompt, said",
    [
        ("1+1=", "has 1"),
        ("7+5*3=", "has 2"),
        ("7+5*3-4=", ""),
        ("1+1+1+1+1+1+1=", ""),
        ("1+1+1+1+1+1+1+1=", "has 7"),
    ],
)
def test_a_chain_of_another_length_than_was_learnt_is_remarked_on(prompt, said):
    task = TASKS["chain"]
    assert said in (found := task.remark(task.problem(prompt))) and bool(found) == bool(said)


@pytest.mark.parametrize(
    "text",
    ["7+x", "<b>", "7/2", "", "7", "7+", "+7", "77+1", "7--1", "1+" * 400 + "1", "7+٣", "7=5"],
)
def test_what_is_no_chain_is_refused_with_what_a_chain_is_made_of(text):
    with pytest.raises(LabError, match="chain"):
        TASKS["chain"].problem(text)


def test_the_worker_answers_in_order_and_survives_every_bad_request(run, tmp_path):
    good = {"run": str(run.path), "prompt": "7+5*3=", "seed": 5}
    lines = [
        json.dumps(good),
        "rubbish",
        json.dumps({"run": str(tmp_path / "none")}),
        json.dumps(good | {"prompt": "x"}),
        json.dumps(good | {"evil": 1}),
        json.dumps([1]),
        json.dumps(good),
    ]
    first, *bad, last = list(serve_requests(lines, "cpu"))
    assert first == last and first["prompt"] == "7+5*3="
    assert all(set(answer) == {"error"} for answer in bad) and len(bad) == 5


def test_a_run_without_an_adapter_is_named(tmp_path):
    folder = create(tmp_path / "young", make_config("dpo"))
    (answer,) = serve_requests([json.dumps({"run": str(folder.path)})], "cpu")
    assert "has no adapter yet" in answer["error"]


def test_what_is_shipped_is_what_the_policy_says(run, talker, tmp_path):
    table = json.loads(record_chat(run, tmp_path / "out", "cpu").read_text("utf-8"))
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file() and table[
        "command"
    ].startswith("python -m lab build-talk")
    shown = table["answers"][5]
    asked = {
        "seed": shown["seed"],
        "temperature": shown["temperature"],
        "draws": shown["policy"].get("draws", {}).get("n", 0),
    }
    assert talker.answer(shown["prompt"], **asked) == shown
